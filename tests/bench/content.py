"""The mail that everybody sends. Standard library only: it is imported in the peers' environments, too."""

from __future__ import annotations

SHOP = "shop@example.com"
TEXT = "Thanks for your order of today, we pack it at once.\n" * 39
"""2 kB."""


def recipient(number: int) -> str:
    return f"customer{number}@example.net"


def subject(number: int) -> str:
    return f"Order {number}"
