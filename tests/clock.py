"""A clock that a test turns by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from outbox.clock import Clock


class FakeClock(Clock):
    """Starts at a fixed moment and moves only when told. `jitter()` is `spread`; tokens count up: 000…1, 000…2."""

    __slots__ = ("_elapsed", "_now", "_tokens", "spread")

    def __init__(self, now: datetime = datetime(2026, 1, 1, 12, 0, tzinfo=UTC), *, spread: float = 0.0) -> None:
        self._now = now
        self._elapsed = 0.0
        self._tokens = 0
        self.spread = spread

    def advance(self, by: timedelta) -> None:
        """Time passes: both clocks move on."""
        self._now += by
        self._elapsed += by.total_seconds()

    def jump(self, by: timedelta) -> None:
        """Somebody sets the wall clock: only `now()` moves, in either direction."""
        self._now += by

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed

    def jitter(self) -> float:
        return self.spread

    def token(self) -> str:
        self._tokens += 1
        return f"{self._tokens:032x}"
