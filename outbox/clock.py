"""Time and chance. Nothing else in the program reads a clock or draws a random number.

What depends on them takes a `Clock` as an argument, so that a test passes one it can turn (`tests/clock.py`) and never
sleeps.
"""

from __future__ import annotations

import random
import secrets
import time
from datetime import UTC, datetime


class Clock:
    """The machine's own time and chance."""

    __slots__ = ()

    def now(self) -> datetime:
        """The wall clock, aware, UTC. It may jump: use it for what is stored, never to measure a wait."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed moment. Never goes back: use it for deadlines and durations."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block this thread. For threads that have nothing else to do; nothing on the event loop calls it."""
        time.sleep(seconds)

    def jitter(self) -> float:
        """A number drawn evenly from −1 … 1. Whoever applies it says by how much."""
        return random.uniform(-1.0, 1.0)  # noqa: S311 -- spreads retries over time; nothing is secret about it

    def token(self) -> str:
        """128 bits from the system's secure source, as 32 hex digits: unguessable names for messages and runners."""
        return secrets.token_hex(16)
