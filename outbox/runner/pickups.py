"""The pickup folders, each scanned in its rhythm; at once where the system tells of its files (extra `pickup`).

Files are read and moved in a thread; what the database has to know goes to the clerk, in the order of the folder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from outbox.clock import Clock
from outbox.core.pickup import Folder
from outbox.doors.pickup.intake import Intake
from outbox.doors.pickup.ledger import Ledger, Verb
from outbox.errors import DatabaseError
from outbox.runner.clerk import Clerk
from outbox.store import Store, pickup

if TYPE_CHECKING:
    from outbox.store.opened import Database

log = logging.getLogger("outbox.pickup")

T = TypeVar("T")

LIST_AGAIN = 5.0
"""Seconds after which the list of folders is read again."""

TROUBLED = 30.0
"""Seconds until a folder that cannot be read or written is tried again."""


class Pickups:
    """Duty of a runner. `on_mail` is called when there is new mail, which nobody else tells us of: we inserted it."""

    def __init__(self, clerk: Clerk, clock: Clock, *, on_mail: Callable[[], None]) -> None:
        self._clerk = clerk
        self._clock = clock
        self._on_mail = on_mail
        self._ledger = Ledger(_ByClerk(clerk))
        self._watched: dict[str, _Watched] = {}
        self._listed_at = float("-inf")
        self._scanning = asyncio.Lock()

    async def look(self) -> None:
        """Scan the folders whose time has come."""
        async with self._scanning:
            await self._list()
            for each in list(self._watched.values()):
                if self._clock.monotonic() >= each.due:
                    await self._scan(each)

    async def close(self) -> None:
        """Watch no more. A scan under way comes to its end: it is soon there."""
        for each in self._watched.values():
            each.stop()
        async with self._scanning:
            self._watched.clear()

    async def _list(self) -> None:
        now = self._clock.monotonic()
        if now - self._listed_at < LIST_AGAIN:
            return
        self._listed_at = now
        folders = {each.name: each for each in await self._clerk.read(lambda store: pickup.folders(store.db))}
        for name in self._watched.keys() - folders.keys():
            self._watched.pop(name).stop()
        for name, folder in folders.items():
            if name in self._watched and self._watched[name].intake.folder == folder:
                continue
            if name in self._watched:
                self._watched.pop(name).stop()
            intake = Intake(folder, self._ledger, self._clock)
            self._watched[name] = _Watched(intake, partial(self._told, name))
            log.info("%s: watching %s", name, folder.path)

    async def _told(self, name: str) -> None:
        if name in self._watched:
            self._watched[name].due = 0.0
            await self.look()

    async def _scan(self, watched: _Watched) -> None:
        intake = watched.intake
        try:
            tally = await asyncio.to_thread(intake.scan)
        except OSError as error:
            watched.complain(error)
            watched.due = self._clock.monotonic() + TROUBLED
            return
        watched.trouble = ""
        folder = intake.folder
        pause = min(folder.poll, folder.settle) if intake.waiting else folder.poll
        watched.due = self._clock.monotonic() + pause.total_seconds()
        if tally.taken:
            self._on_mail()


class _Watched:
    """A folder, when it is due (monotonic), and who tells of its files."""

    def __init__(self, intake: Intake, told: Callable[[], Any]) -> None:
        self.intake = intake
        self.due = 0.0
        self.trouble = ""
        self._events = asyncio.ensure_future(_listen(intake.folder, told))

    def complain(self, error: OSError) -> None:
        """Once for each trouble."""
        trouble = f"{error.strerror}: {error.filename}"
        if trouble != self.trouble:
            self.trouble = trouble
            log.error("%s: cannot be scanned: %s", self.intake.folder.name, trouble)

    def stop(self) -> None:
        self._events.cancel()


async def _listen(folder: Folder, told: Callable[[], Any]) -> None:
    """Until cancelled. Without the extra, and where the system does not tell, the rhythm alone finds the files."""
    try:
        from watchfiles import awatch
    except ImportError:
        return
    with suppress(OSError, RuntimeError):
        async for _ in awatch(folder.path, recursive=False, debounce=100, step=20):
            await told()


class _ByClerk:
    """For the thread of a scan: the clerk is asked on the event loop, and waited for."""

    def __init__(self, clerk: Clerk) -> None:
        self._clerk = clerk
        self._loop = asyncio.get_running_loop()

    def write(self, verb: Verb[T]) -> T:
        return self._wait(lambda: self._clerk.upkeep(partial(_write, verb)))

    def read(self, verb: Callable[[Database], T]) -> T:
        return self._wait(lambda: self._clerk.read(lambda store: verb(store.db)))

    def _wait(self, ask: Callable[[], asyncio.Future[T]]) -> T:
        async def asked() -> T:
            return await ask()

        if self._loop.is_closed():
            raise DatabaseError("the runner has ended")
        return asyncio.run_coroutine_threadsafe(asked(), self._loop).result()


def _write(verb: Verb[T], store: Store, now: datetime) -> T:
    return verb(store.db, now)
