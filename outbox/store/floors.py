"""From where on a lane of a PostgreSQL database is read: behind what has been claimed.

While somebody keeps an old snapshot open (a report, a backup, a forgotten psql), VACUUM may not remove what has been
claimed since, and all of it stands at the head of its lane's index, where every claim would pass it again. So a claim
begins at the lane's floor: a due time and an id, below which nothing waits.

What can come to wait below a floor all the same, and when it is found:

    mail of a transaction that was open for long    at once: no floor is above the time of the oldest transaction that
                                                    has written to `outbox` and is still open, and mail without a due_at
                                                    is due when it is inserted
    mail that we give back                          at once: then the floors are forgotten
    mail INSERTed with a due_at in the past,        at once in a lane that has sent less than LAG messages since the
    or given back by another runner                 last walk; else with the next walk from the lane's beginning
    what a claim passed because it was locked       the same
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from outbox.store import Place

WALK_EVERY = 30.0
"""Seconds after which the floors are forgotten, and every lane is read from its beginning."""

LAG = 256
"""How many claimed messages of its lane are above a floor, at least. To pass one costs two buffers, to claim one 20."""

LOOK_EVERY = timedelta(milliseconds=200)
"""Between looks at who writes to `outbox`."""

Key = tuple[str, int]
"""A lane: its sender and priority."""


@dataclass(slots=True)
class _Lane:
    floor: Place | None = None
    above: deque[tuple[int, Place]] = field(default_factory=deque)
    """Claims above the floor: how many messages, and the last of them."""
    count: int = 0


class Floors:
    """Of all lanes. `monotonic` times in seconds, others by the database's clock."""

    def __init__(self) -> None:
        self._lanes: dict[Key, _Lane] = {}
        self._walked = float("-inf")
        self._safe: datetime | None = None
        self._seen: tuple[datetime, frozenset[str]] | None = None
        self.unexpired_at: datetime | None = None
        """Nothing that waited then had an `expires_at` before it."""

    def forget(self) -> None:
        """Read every lane from its beginning."""
        self._lanes.clear()
        self.unexpired_at = None

    def is_time_to_walk(self, monotonic: float) -> bool:
        """Whether it is WALK_EVERY since this was last true; then the floors are forgotten."""
        if monotonic - self._walked < WALK_EVERY:
            return False
        self._walked = monotonic
        self.forget()
        return True

    def __getitem__(self, lane: Key) -> Place | None:
        """The first place of this lane that may have something; None: its beginning."""
        found = self._lanes.get(lane)
        return None if found is None else found.floor

    def known(self, after: Key) -> list[tuple[Key, Place]]:
        """The lanes behind `after` that have a floor, in their order."""
        return sorted((key, lane.floor) for key, lane in self._lanes.items() if lane.floor is not None and key > after)

    def claimed(self, lane: Key, count: int, last: Place) -> None:
        """So many messages of a lane were claimed, from its floor on: all that waited there, up to and with `last`."""
        found = self._lanes.setdefault(lane, _Lane())
        found.above.append((count, last))
        found.count += count
        behind = None
        while found.count - found.above[0][0] >= LAG:
            few, behind = found.above.popleft()
            found.count -= few
        if behind is not None and self._safe is not None:
            found.floor = min(behind, last, (self._safe, 0))

    # -- open transactions

    def wants_to_look(self, now: datetime) -> bool:
        """Whether a floor could be higher if it were known who writes to `outbox`."""
        if self._seen is not None and abs(now - self._seen[0]) < LOOK_EVERY:
            return False
        safe = self._safe
        return safe is None or any(lane.above and lane.above[0][1][0] >= safe for lane in self._lanes.values())

    def look(self, now: datetime, writers: Iterable[str]) -> None:
        """These transactions had `outbox` open for writing, at `now` or later. When those of an earlier look have all
        ended, whatever is inserted from now on was not yet begun then, so it is due after that.
        """
        writing = frozenset(writers)
        if self._seen is None or not writing & self._seen[1]:
            if self._seen is not None:
                self._safe = self._seen[0]
            self._seen = (now, writing)
