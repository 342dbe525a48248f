"""What wakes a runner on SQLite when somebody commits. (On PostgreSQL it is `store.listener`.)

by itself    the clerk looks OFTEN: nothing can keep it from finding what is there
logwatch     Linux tells of a write to the database's log, by whatever program; then the clerk looks closely
doorbell     `enqueue()` says that a commit is coming; the same, where nothing tells of writes
"""

from __future__ import annotations

from pathlib import Path

from outbox.runner.waking.doorbell import Doorbell
from outbox.runner.waking.logwatch import LogWatch
from outbox.runner.writing.clerk import Clerk
from outbox.runner.writing.looks import OFTEN, RARELY


class Waking:
    """Belongs to the event loop."""

    def __init__(self, database: Path, clerk: Clerk) -> None:
        self._clerk = clerk
        self._watch = LogWatch(database, clerk.expect)
        self._doorbell = Doorbell(database, clerk.expect)

    async def attend(self) -> None:
        """To be called every few seconds: repairs what is gone. Never raises."""
        self._watch.attend()
        self._doorbell.attend()
        self._clerk.others.looks.every = RARELY if self._watch.proven else OFTEN

    def close(self) -> None:
        self._watch.close()
        self._doorbell.close()
