"""What others do with a SQLite database: whether they have committed, and for how long its one lock is left to them.

On PostgreSQL, where NOTIFY tells of commits and nobody waits for us, it does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from outbox.clock import Clock
from outbox.runner.writing.courtesy import Courtesy
from outbox.runner.writing.looks import OWN, Looks
from outbox.store import Store

log = logging.getLogger("outbox.clerk")


class Others:
    """Belongs to whoever has the turn to use the store, but for `expect`, `may_be_ours` and `look_after`.

    `on_commit` is called when somebody else has committed.
    """

    def __init__(self, store: Store, clock: Clock, on_commit: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._on_commit = on_commit
        self._changes: int | None = None
        self._courtesy = Courtesy()
        self._committed_at = 0.0
        self.looks = Looks()

    def begin(self) -> None:
        """The database has been opened."""
        self._changes = self._store.changes()

    def expect(self) -> None:
        """Somebody is about to commit, or just has: look closely for a moment."""
        self.looks.expect(self._clock.monotonic(), self._committed_at)

    def may_be_ours(self) -> bool:
        """Whether a write to the log, heard of now, may be one of our own."""
        return self._clock.monotonic() - self._committed_at < OWN

    def look_after(self) -> float | None:
        """Seconds until the next look; None where there is nothing to look for."""
        return None if self._changes is None else self.looks.pause(self._clock.monotonic())

    def look(self) -> None:
        """Has somebody committed? `data_version` says so for 3.5 µs and does not move on our own commits."""
        try:
            changes = self._store.changes()
        except Exception as error:  # noqa: BLE001 -- whatever it is, the next request meets it, and deals with it
            log.debug("cannot look for changes: %s", error)
            return
        if changes != self._changes:
            now = self._clock.monotonic()
            self.looks.found(now)
            self._committed(changes, now)

    def met(self) -> None:
        """Somebody has the lock."""
        self._courtesy.met_others(self._clock.monotonic())

    def left_free(self) -> float:
        """For how many seconds the lock is still left to others."""
        return self._courtesy.left(self._clock.monotonic())

    def make_room(self) -> None:
        """Before we take the lock: leave it to others for as long as is their due."""
        changes = self._store.changes()
        now = self._clock.monotonic()
        if changes is not None and changes != self._changes:
            self._committed(changes, now)
        if free := self._courtesy.left(now):
            self._clock.sleep(free)

    def had_lock(self, since: float, until: float) -> None:
        """We have committed; moments of the monotonic clock."""
        self._committed_at = until
        if self._changes is not None:
            self._courtesy.had_it(since, until)

    def _committed(self, changes: int | None, now: float) -> None:
        self._changes = changes
        self._courtesy.met_others(now)
        self._on_commit()
