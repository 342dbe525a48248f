"""Programs that run in a peer's environment, where there is neither Outbox nor anything it needs."""
