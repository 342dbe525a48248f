"""Whether the wall clock can be believed when it says that a message's time is over.

After a jump forward everything that waits may look too old at once: a clock that was set wrong by a month would end a
whole queue, for good, within a second. So for a minute nothing expires: it waits until the clock has been put right, or
has been right for that long (a laptop that slept). Leases have their own answer to that (`Upkeep`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from outbox.clock import Clock

JUMP = 2.0
"""Seconds by which the wall clock may run ahead of the monotonic one, between two looks, before we call it a jump."""

DOUBTED_FOR = 60.0
"""Seconds."""


class Steadiness:
    """`now()`: the clock that messages are measured by, which may be the database's."""

    def __init__(self, clock: Clock, now: Callable[[], datetime]) -> None:
        self._clock = clock
        self._now = now
        self._seen: tuple[datetime, float] | None = None
        self._until = float("-inf")

    @property
    def doubtful(self) -> bool:
        """Whether the clock has jumped forward within the last minute."""
        now, monotonic = self._now(), self._clock.monotonic()
        if self._seen is not None:
            ahead = (now - self._seen[0]).total_seconds() - (monotonic - self._seen[1])
            if ahead > JUMP:
                self._until = monotonic + DOUBTED_FOR
            elif ahead < -JUMP:  # it has been put right
                self._until = float("-inf")
        self._seen = now, monotonic
        return monotonic < self._until
