"""The threats of docs/security.md, each tried on the real programs."""
