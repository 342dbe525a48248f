"""A clerk at work in a test, over a real SQLite file to which an application writes, too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from outbox.clock import Clock
from outbox.core.settlement import Claim
from outbox.runner.writing.clerk import Clerk
from outbox.store import Pick, Store, runners
from outbox.store.database import sqlite_path
from outbox.store.engine import sqlite3
from outbox.store.sqlite import SqliteStore

ME = "a" * 32
SHOP = "shop@example.com"
INSERT = "INSERT INTO outbox (sender, recipients, subject, text_body) VALUES (?, 'ann@example.net', 'x', ?)"


class WatchedStore(SqliteStore):
    """Knows on which thread each of its transactions was committed."""

    def __init__(self, url: str) -> None:
        super().__init__(url, Clock())
        self.threads: list[str] = []

    def transaction(self) -> AbstractContextManager[None]:
        return self._watched(super().transaction())

    def single(self, *, durable: bool = True) -> AbstractContextManager[None]:
        return self._watched(super().single(durable=durable))

    @contextmanager
    def _watched(self, transaction: AbstractContextManager[None]) -> Iterator[None]:
        with transaction:
            yield
        self.threads.append(threading.current_thread().name)


@dataclass
class Office:
    """A clerk at work, and an application's connection to the same file."""

    clerk: Clerk
    store: WatchedStore
    application: sqlite3.Connection
    changes: list[int] = field(default_factory=list)

    def insert(self, count: int = 1, text: str = "Thanks") -> None:
        with self.application:
            self.application.executemany(INSERT, [(SHOP, text)] * count)

    async def claim(self, count: int) -> list[Claim]:
        due = datetime.now(UTC) + timedelta(seconds=1)
        return await self.clerk.claim(lambda store, now: store.claim(ME, [Pick(SHOP, 5, count)], due))

    async def noticed(self) -> None:
        """Until the clerk has seen that the application has committed."""
        async with asyncio.timeout(5):
            while not self.changes:  # noqa: ASYNC110 -- the clerk's callback is a plain function
                await asyncio.sleep(0.001)

    async def at_rest(self) -> None:
        """Until the clerk's thread, which has answered, has given up its turn."""
        while self.clerk._desk.turn.locked():  # noqa: ASYNC110 -- a lock of threads has no event of the loop
            await asyncio.sleep(0)

    def states(self) -> dict[str, int]:
        return dict(self.application.execute("SELECT state, count(*) FROM outbox_delivery GROUP BY state").fetchall())


def register(store: Store, now: datetime) -> None:
    runners.register(store, ME, host="web1", pid=1, version="0.1.0", now=now, lease=timedelta(hours=1))


@asynccontextmanager
async def office(url: str, *, byte_budget: int = 1_000_000, clock: Clock | None = None) -> AsyncIterator[Office]:
    store = WatchedStore(url)
    application = sqlite3.connect(sqlite_path(url), timeout=5)
    changes: list[int] = []
    clerk = Clerk(store, clock or Clock(), byte_budget=byte_budget, on_change=lambda: changes.append(1))
    await clerk.start()
    await clerk.upkeep(register)
    it = Office(clerk, store, application, changes)
    await it.at_rest()
    try:
        yield it
    finally:
        application.rollback()
        await clerk.stop(5)
        application.close()
