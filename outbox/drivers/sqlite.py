"""sqlite3, and aiosqlite, which runs it on a thread."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from outbox.core.batches import flat
from outbox.doorbell import ring_at
from outbox.drivers.held import is_autocommit, on_sqlite, on_sqlite_async
from outbox.drivers.protocols import RETURNING
from outbox.insert import SQLITE, Insert, Row

if TYPE_CHECKING:
    import sqlite3


class Sqlite3:
    """sqlite3.Connection, in each of its transaction modes; `module` is the one it comes from."""

    dialect = SQLITE

    def __init__(self, module: str) -> None:
        self._module = module

    @contextmanager
    def together(self, connection: sqlite3.Connection, many: bool) -> Iterator[None]:
        if not many:
            yield
            return
        with on_sqlite(connection, lambda statement: connection.execute(statement).close()):
            yield

    def insert_one(self, connection: sqlite3.Connection, insert: Insert, row: Row) -> int | None:
        cursor = connection.cursor()
        try:
            cursor.execute(insert.one(), row)
            # Without a new row, lastrowid is still the one of some earlier INSERT.
            return cursor.lastrowid if cursor.rowcount == 1 else None
        finally:
            cursor.close()

    def insert(self, connection: sqlite3.Connection, insert: Insert, rows: Sequence[Row]) -> list[int | None]:
        if sys.modules[self._module].sqlite_version_info < RETURNING:
            return [self.insert_one(connection, insert, row) for row in rows]
        ids: list[int | None] = []
        with closing(connection.cursor()) as cursor:
            cursor.row_factory = None
            for some in insert.sets(rows):
                ids += insert.ids(some, cursor.execute(insert.many(len(some)), flat(some)).fetchall())
        return ids

    def insert_all(self, connection: sqlite3.Connection, sql: str, rows: Sequence[Row]) -> None:
        connection.executemany(sql, rows).close()


class Aiosqlite:
    """aiosqlite.Connection."""

    dialect = SQLITE

    @asynccontextmanager
    async def together(self, connection: Any, many: bool) -> AsyncIterator[None]:
        async def run(statement: str) -> None:
            await (await connection.execute(statement)).close()

        if not many:
            yield
            return
        async with on_sqlite_async(plain(connection), run, lambda: is_autocommit_async(connection)):
            yield

    async def insert_one(self, connection: Any, insert: Insert, row: Row) -> int | None:
        async with connection.execute(insert.one(), row) as cursor:
            return cursor.lastrowid if cursor.rowcount == 1 else None

    async def insert(self, connection: Any, insert: Insert, rows: Sequence[Row]) -> list[int | None]:
        if sys.modules["sqlite3"].sqlite_version_info < RETURNING:
            return [await self.insert_one(connection, insert, row) for row in rows]
        ids: list[int | None] = []
        async with connection.cursor() as cursor:
            cursor.row_factory = None
            for some in insert.sets(rows):
                await cursor.execute(insert.many(len(some)), flat(some))
                ids += insert.ids(some, list(await cursor.fetchall()))
        return ids

    async def insert_all(self, connection: Any, sql: str, rows: Sequence[Row]) -> None:
        await (await connection.executemany(sql, rows)).close()

    async def ring(self, connection: Any) -> None:
        with suppress(Exception):
            async with connection.execute("PRAGMA database_list") as cursor:
                cursor.row_factory = None
                row = await cursor.fetchone()
            ring_at(os.fsencode(row[2] or b""))


def plain(connection: Any) -> Any:
    """The sqlite3.Connection of an aiosqlite.Connection, to ask for its modes: aiosqlite shows only some of them."""
    return getattr(connection, "_conn", connection)


async def is_autocommit_async(connection: Any) -> bool:
    """`is_autocommit` of an aiosqlite.Connection: since Python 3.12, that may be asked only where it was opened, on its
    thread.
    """
    found: bool = await connection._execute(is_autocommit, plain(connection))
    return found
