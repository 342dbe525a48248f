"""SQLAlchemy, over the drivers it has for SQLite and PostgreSQL: its Connection, and what has one.

Every statement goes through `Connection.exec_driver_sql`: SQLAlchemy begins as it does for any other statement, and its
events, its log and its exceptions are what the application expects. An asynchronous connection runs the same code by
`run_sync`. Nothing is flushed: what the Session holds back comes with its own flush.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

from outbox.core.batches import flat
from outbox.doorbell import ring
from outbox.drivers.held import is_autocommit, on_sqlite, transaction
from outbox.drivers.protocols import IDLE, RETURNING, AsyncDriver, Driver, first
from outbox.drivers.sqlite import is_autocommit_async, plain
from outbox.insert import ASYNCPG, POSTGRES, SQLITE, Dialect, Insert, Row


class Sqlalchemy:
    """A sqlalchemy.Connection, also the synchronous side of an AsyncConnection."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    @contextmanager
    def together(self, connection: Any, many: bool) -> Iterator[None]:
        def run(statement: str) -> None:
            connection.exec_driver_sql(statement).close()

        lent = connection.connection
        if not many:
            yield
        elif self.dialect is SQLITE:
            with on_sqlite(plain(lent.driver_connection), run, lambda own: _is_autocommit(lent.dbapi_connection, own)):
                yield
        elif lent.dbapi_connection.autocommit and not _is_open(lent.driver_connection):
            with transaction(run, lambda: _is_open(lent.driver_connection)):
                yield
        else:
            yield

    def insert_one(self, connection: Any, insert: Insert, row: Row) -> int | None:
        result = connection.exec_driver_sql(insert.one(), row)
        try:
            if self.dialect.returning:
                return first(result.fetchone())
            return int(result.lastrowid) if result.rowcount == 1 else None
        finally:
            result.close()

    def insert(self, connection: Any, insert: Insert, rows: Sequence[Row]) -> list[int | None]:
        if not self.dialect.returning and connection.dialect.server_version_info < RETURNING:
            return [self.insert_one(connection, insert, row) for row in rows]
        ids: list[int | None] = []
        for some in insert.sets(rows):
            ids += insert.ids(some, connection.exec_driver_sql(insert.many(len(some)), tuple(flat(some))).fetchall())
        return ids

    def insert_all(self, connection: Any, sql: str, rows: Sequence[Row]) -> None:
        connection.exec_driver_sql(sql, list(rows)).close()


class AsyncSqlalchemy:
    """A sqlalchemy.ext.asyncio.AsyncConnection."""

    def __init__(self, driver: Sqlalchemy) -> None:
        self.dialect = driver.dialect
        self._driver = driver

    @asynccontextmanager
    async def together(self, connection: Any, many: bool) -> AsyncIterator[None]:
        if not many:
            yield
            return
        held = ExitStack()
        await connection.run_sync(lambda plain: held.enter_context(self._driver.together(plain, True)))
        try:
            yield
        except BaseException as error:
            raised = (type(error), error, error.__traceback__)
            await connection.run_sync(lambda _: held.__exit__(*raised))
            raise
        await connection.run_sync(lambda _: held.close())

    async def insert_one(self, connection: Any, insert: Insert, row: Row) -> int | None:
        message_id: int | None = await connection.run_sync(self._driver.insert_one, insert, row)
        return message_id

    async def insert(self, connection: Any, insert: Insert, rows: Sequence[Row]) -> list[int | None]:
        ids: list[int | None] = await connection.run_sync(self._driver.insert, insert, rows)
        return ids

    async def insert_all(self, connection: Any, sql: str, rows: Sequence[Row]) -> None:
        await connection.run_sync(self._driver.insert_all, sql, rows)

    async def ring(self, connection: Any) -> None:
        with suppress(Exception):
            await connection.run_sync(ring)


_KNOWN = {
    "sqlite+pysqlite": Sqlalchemy(SQLITE),
    "sqlite+aiosqlite": Sqlalchemy(SQLITE),
    "postgresql+psycopg": Sqlalchemy(POSTGRES),
    "postgresql+psycopg_async": Sqlalchemy(POSTGRES),
    "postgresql+psycopg2": Sqlalchemy(POSTGRES),
    "postgresql+asyncpg": Sqlalchemy(ASYNCPG),
}
_KNOWN_ASYNC = {name: AsyncSqlalchemy(driver) for name, driver in _KNOWN.items()}


def of_connection(connection: Any) -> tuple[Driver, Any]:
    return _of(connection, _KNOWN), connection


def of_session(session: Any) -> tuple[Driver, Any]:
    """Of the connection that a Session has for its engine. One with several engines says which:
    ``enqueue(session.connection(bind_arguments={"mapper": Order}), mail)``.
    """
    return of_connection(session.connection())


async def of_async_connection(connection: Any) -> tuple[AsyncDriver, Any]:
    return _of(connection, _KNOWN_ASYNC), connection


async def of_async_session(session: Any) -> tuple[AsyncDriver, Any]:
    return await of_async_connection(await session.connection())


def _of(connection: Any, known: dict[str, Any]) -> Any:
    name = f"{connection.dialect.name}+{connection.dialect.driver}"
    driver = known.get(name)
    if driver is None:
        raise TypeError(f"Outbox knows no SQLAlchemy over {name}; it knows {', '.join(known)}")
    return driver


def _is_autocommit(adapter: Any, own: Any) -> bool:
    """`is_autocommit` of sqlite3's connection, also where SQLAlchemy has it by aiosqlite's."""
    return bool(adapter.run_async(is_autocommit_async)) if hasattr(adapter, "run_async") else is_autocommit(own)


def _is_open(connection: Any) -> bool:
    """Whether a PostgreSQL driver's own connection is in a transaction."""
    if hasattr(connection, "is_in_transaction"):  # asyncpg's
        return bool(connection.is_in_transaction())
    return bool(connection.info.transaction_status != IDLE)
