"""How long the clerk leaves SQLite's one lock to others, after it had it, while others write.

An application waits for the lock with SQLite's own busy handler, which looks again after 1, 2, 5, 10, 15, 20, 25 ms and
more. Who meets us, and meets us again, waits ever longer; who finds the lock free at the second or third look waited
for a few milliseconds. So what is left free grows with what we took: after a hold of H, whoever met it looks again
within 2 ms + 2 H, and finds the lock free.

That is for a runner that has much to do. A mail alone takes the lock three times for a fraction of a millisecond: while
we have hardly had it lately, nobody who met us once meets us often, and the mail does not wait.
"""

from __future__ import annotations

SHORTEST, LONGEST = 0.002, 0.012
"""Seconds that the lock is left free after a COMMIT: no more even where the disk is slow."""

SHARE = 3
"""So many times as long as we had it: then we have it for a quarter of the time at most."""

SPARED, EARNED = 0.01, 0.1
"""Seconds for which we may have it without leaving it to others, and how much of that comes back in a second."""

OTHERS_ACTIVE = 1.0
"""For how many seconds after the last sign of another writer we are courteous."""


class Courtesy:
    """Belongs to whoever has the turn to use the store. All times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._others_until = 0.0
        self._free_until = 0.0
        self._spared = 0.0
        self._reckoned_at = float("inf")

    def met_others(self, now: float) -> None:
        """Somebody else has committed, or has the lock."""
        self._others_until = now + OTHERS_ACTIVE

    def had_it(self, since: float, until: float) -> None:
        """We had the lock, and others may have it now."""
        hold = until - since
        spared = min(SPARED, self._spared + EARNED * max(0.0, since - self._reckoned_at))
        self._spared, self._reckoned_at = max(0.0, spared - hold), until
        self._free_until = until if hold <= spared else until + min(LONGEST, max(SHORTEST, SHARE * hold))

    def left(self, now: float) -> float:
        """For how long we leave it to others from now on; 0 when nobody else writes."""
        return max(0.0, self._free_until - now) if now < self._others_until else 0.0
