"""psycopg, psycopg2 and asyncpg. An error condemns the transaction here, so that in one nothing has to hold statements
together; in autocommit they get one.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from outbox.core.batches import flat
from outbox.drivers.held import transaction
from outbox.drivers.protocols import IDLE, first
from outbox.insert import ASYNCPG, POSTGRES, Insert, Row

if TYPE_CHECKING:
    import psycopg


class Psycopg:
    """psycopg.Connection. A cursor of our own: the connection's may return dicts, or speak another paramstyle."""

    dialect = POSTGRES

    @contextmanager
    def together(self, connection: psycopg.Connection[Any], many: bool) -> Iterator[None]:
        if many and connection.autocommit and connection.info.transaction_status == IDLE:
            with connection.transaction():
                yield
        else:
            yield

    def insert_one(self, connection: psycopg.Connection[Any], insert: Insert, row: Row) -> int | None:
        with self._cursor(connection) as cursor:
            return first(cursor.execute(insert.one(), row).fetchone())

    def insert(self, connection: psycopg.Connection[Any], insert: Insert, rows: Sequence[Row]) -> list[int | None]:
        ids: list[int | None] = []
        piped = sys.modules["psycopg"].Pipeline.is_supported()  # a matter of libpq's age
        with connection.pipeline() if piped else nullcontext(), ExitStack() as cursors:
            sent = []
            for some in insert.sets(rows):
                cursor = cursors.enter_context(self._cursor(connection))
                sent.append((some, cursor.execute(insert.many(len(some)), flat(some))))
            for some, cursor in sent:
                ids += insert.ids(some, cursor.fetchall())
        return ids

    def insert_all(self, connection: psycopg.Connection[Any], sql: str, rows: Sequence[Row]) -> None:
        with self._cursor(connection) as cursor:
            cursor.executemany(sql, rows)

    def _cursor(self, connection: psycopg.Connection[Any]) -> Any:
        loaded = sys.modules["psycopg"]
        return loaded.Cursor(connection, row_factory=loaded.rows.tuple_row)


class AsyncPsycopg:
    """psycopg.AsyncConnection."""

    dialect = POSTGRES

    @asynccontextmanager
    async def together(self, connection: psycopg.AsyncConnection[Any], many: bool) -> AsyncIterator[None]:
        if many and connection.autocommit and connection.info.transaction_status == IDLE:
            async with connection.transaction():
                yield
        else:
            yield

    async def insert_one(self, connection: psycopg.AsyncConnection[Any], insert: Insert, row: Row) -> int | None:
        async with self._cursor(connection) as cursor:
            await cursor.execute(insert.one(), row)
            return first(await cursor.fetchone())

    async def insert(
        self, connection: psycopg.AsyncConnection[Any], insert: Insert, rows: Sequence[Row]
    ) -> list[int | None]:
        ids: list[int | None] = []
        piped = sys.modules["psycopg"].AsyncPipeline.is_supported()
        async with connection.pipeline() if piped else nullcontext(), AsyncExitStack() as cursors:
            sent = []
            for some in insert.sets(rows):
                cursor = await cursors.enter_async_context(self._cursor(connection))
                sent.append((some, await cursor.execute(insert.many(len(some)), flat(some))))
            for some, cursor in sent:
                ids += insert.ids(some, await cursor.fetchall())
        return ids

    async def insert_all(self, connection: psycopg.AsyncConnection[Any], sql: str, rows: Sequence[Row]) -> None:
        async with self._cursor(connection) as cursor:
            await cursor.executemany(sql, rows)

    async def ring(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """There is no bell: NOTIFY does it."""

    def _cursor(self, connection: psycopg.AsyncConnection[Any]) -> Any:
        loaded = sys.modules["psycopg"]
        return loaded.AsyncCursor(connection, row_factory=loaded.rows.tuple_row)


class Psycopg2:
    """psycopg2's connection. A cursor of its plainest kind: the connection's may return dicts."""

    dialect = POSTGRES

    @contextmanager
    def together(self, connection: Any, many: bool) -> Iterator[None]:
        def run(statement: str) -> None:
            with self._cursor(connection) as cursor:
                cursor.execute(statement)

        def is_open() -> bool:
            return bool(connection.get_transaction_status() != IDLE)

        if many and connection.autocommit and not is_open():
            with transaction(run, is_open):
                yield
        else:
            yield

    def insert_one(self, connection: Any, insert: Insert, row: Row) -> int | None:
        with self._cursor(connection) as cursor:
            cursor.execute(insert.one(), row)
            return first(cursor.fetchone())

    def insert(self, connection: Any, insert: Insert, rows: Sequence[Row]) -> list[int | None]:
        ids: list[int | None] = []
        with self._cursor(connection) as cursor:
            for some in insert.sets(rows):
                cursor.execute(insert.many(len(some)), flat(some))
                ids += insert.ids(some, cursor.fetchall())
        return ids

    def insert_all(self, connection: Any, sql: str, rows: Sequence[Row]) -> None:
        with self._cursor(connection) as cursor:
            cursor.executemany(sql, rows)

    def _cursor(self, connection: Any) -> closing[Any]:
        return closing(connection.cursor(cursor_factory=sys.modules["psycopg2.extensions"].cursor))


class Asyncpg:
    """asyncpg's Connection, or one that its Pool has lent."""

    dialect = ASYNCPG

    @asynccontextmanager
    async def together(self, connection: Any, many: bool) -> AsyncIterator[None]:
        if many and not connection.is_in_transaction():
            async with connection.transaction():
                yield
        else:
            yield

    async def insert_one(self, connection: Any, insert: Insert, row: Row) -> int | None:
        message_id: int | None = await connection.fetchval(insert.one(), *row)
        return message_id

    async def insert(self, connection: Any, insert: Insert, rows: Sequence[Row]) -> list[int | None]:
        plain = sys.modules["asyncpg"].Record  # the application's own class may answer otherwise
        ids: list[int | None] = []
        for some in insert.sets(rows):
            back = await connection.fetch(insert.many(len(some)), *flat(some), record_class=plain)
            ids += insert.ids(some, back)
        return ids

    async def insert_all(self, connection: Any, sql: str, rows: Sequence[Row]) -> None:
        await connection.executemany(sql, rows)

    async def ring(self, connection: Any) -> None:
        """There is no bell: NOTIFY does it."""
