"""When to look next whether somebody else has committed to a SQLite database: as rarely as a mail can wait, and closely
for a moment when a commit is expected.
"""

from __future__ import annotations

OFTEN = 0.02
"""Seconds between looks while nothing tells of commits."""

RARELY = 0.1
"""Seconds between looks where something does, in case that once it does not."""

CLOSELY = 0.00015
"""Seconds between looks right after something told of a commit that is coming."""

GROWTH = 1 / 8
"""The longer ago that was, the rarer: a look comes after an eighth of the time that has passed. So this is how much is
added to what a commit takes by itself, and one that never comes costs some 60 looks.
"""

OWN = 0.01
"""For how many seconds after a commit of our own what tells of commits may mean that one: then a few looks will do."""

BURST = 10.0
"""So many commits of others are found as soon as they come …"""

PACE = 50.0
"""… and so many a second in the long run; beyond that, as OFTEN as ever. An application that commits a thousand times a
second, with or without mail, must not keep a runner busy with looking.
"""


class Looks:
    """Times are seconds of a monotonic clock. `expect` is called on another thread than the rest."""

    def __init__(self) -> None:
        self.every = OFTEN
        """OFTEN or RARELY."""
        self._expecting_since = float("-inf")
        self._growth = GROWTH
        self._credit = BURST
        self._credited_at = float("-inf")

    def expect(self, now: float, committed_at: float) -> None:
        """Something told of a commit that is coming, or just has come. Our own last one was at `committed_at`."""
        self._growth = GROWTH if now - committed_at > OWN else 1.0
        self._expecting_since = now

    def found(self, now: float) -> None:
        """Somebody has committed."""
        self._credit = max(0.0, self._credit_at(now) - 1)
        self._credited_at = now

    def pause(self, now: float) -> float:
        """Seconds until the next look."""
        if self._credit_at(now) < 1:
            return OFTEN
        return min(self.every, max(CLOSELY, (now - self._expecting_since) * self._growth))

    def _credit_at(self, now: float) -> float:
        return min(BURST, self._credit + (now - self._credited_at) * PACE)
