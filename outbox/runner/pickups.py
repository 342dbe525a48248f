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
from outbox.runner.writing.clerk import Clerk
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
        self._database = _ByClerk(clerk)
        self._ledger = Ledger(self._database)
        self._watched: dict[str, _Watched] = {}
        self._listed_at = float("-inf")
        self._scanning = asyncio.Lock()

    async def look(self) -> None:
        """Scan the folders whose time has come, by turns, until none has more."""
        async with self._scanning:
            await self._list()
            while due := [each for each in self._watched.values() if self._clock.monotonic() >= each.due]:
                for each in due:
                    await self._scan(each)

    async def close(self) -> None:
        """Watch no more. A scan under way ends with the file it is at, even if the database does not answer."""
        self._database.close()
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
        if name not in self._watched:
            return
        self._watched[name].due = 0.0
        try:
            await self.look()
        except DatabaseError:  # the rhythm finds it, and says so
            log.debug("%s: a change was not looked at", name, exc_info=True)

    async def _scan(self, watched: _Watched) -> None:
        intake, folder = watched.intake, watched.intake.folder
        watched.due = self._clock.monotonic() + TROUBLED
        try:
            tally = await asyncio.to_thread(intake.scan)
        except OSError as error:
            watched.complain("cannot be scanned", error)
            return
        except DatabaseError:
            if self._database.closed:
                return
            raise
        watched.complain("not all of it could be read and put away", tally.trouble)
        pause = min(folder.poll, folder.settle) if intake.waiting else folder.poll
        watched.due = self._clock.monotonic() + (0.0 if intake.more else pause.total_seconds())
        if tally.taken:
            self._on_mail()


class _Watched:
    """A folder, when it is due (monotonic), and who tells of its files."""

    def __init__(self, intake: Intake, told: Callable[[], Any]) -> None:
        self.intake = intake
        self.due = 0.0
        self.trouble = ""
        self._events = asyncio.ensure_future(_listen(intake.folder, told))

    def complain(self, what: str, error: OSError | None) -> None:
        """Once for each trouble; None: there is none any more."""
        trouble = f"{what}: {error.strerror}: {error.filename}" if error is not None else ""
        if trouble and trouble != self.trouble:
            log.error("%s: %s", self.intake.folder.name, trouble)
        self.trouble = trouble

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
    """For the thread of a scan: the clerk is asked on the event loop, and waited for. Once closed, no more: what was
    asked for last may still be done, and a file whose claim is in the database is not entered again.
    """

    def __init__(self, clerk: Clerk) -> None:
        self._clerk = clerk
        self._loop = asyncio.get_running_loop()
        self._asked: set[asyncio.Future[Any]] = set()
        self.closed = False

    def close(self) -> None:
        """On the event loop."""
        self.closed = True
        for each in self._asked:
            each.cancel()

    def write(self, verb: Verb[T]) -> T:
        return self._wait(lambda: self._clerk.upkeep(partial(_write, verb)))

    def read(self, verb: Callable[[Database], T]) -> T:
        return self._wait(lambda: self._clerk.read(lambda store: verb(store.db)))

    def _wait(self, ask: Callable[[], asyncio.Future[T]]) -> T:
        async def asked() -> T:
            if self.closed:
                raise DatabaseError("the runner ends")
            answer = ask()
            answer.add_done_callback(lambda each: each.cancelled() or each.exception())  # if nobody waits any more
            waiting = asyncio.ensure_future(asyncio.shield(answer))
            self._asked.add(waiting)
            try:
                return await waiting
            except asyncio.CancelledError:
                raise DatabaseError("the runner ends") from None
            finally:
                self._asked.discard(waiting)

        if self._loop.is_closed():
            raise DatabaseError("the runner has ended")
        return asyncio.run_coroutine_threadsafe(asked(), self._loop).result()


def _write(verb: Verb[T], store: Store, now: datetime) -> T:
    return verb(store.db, now)
