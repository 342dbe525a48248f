"""How a mail is inserted through each kind of connection an application may hold: the seam under `outbox.enqueue`.

One more driver is one more class and one more entry in `DRIVERS` or `ASYNC_DRIVERS`: its dialect, how it holds several
statements together, how it inserts. No driver is imported here: a connection comes with its driver loaded.

Nothing here commits, rolls back or begins on the application's behalf, with two exceptions, both for several statements
(a mail with attachments, or many mails):

* A connection in autocommit that is in no transaction gets one of its own, or a mail could leave before its
  attachments. If anything fails in it, it is rolled back.
* On SQLite, inside the application's transaction, a SAVEPOINT holds them together: an application that catches an error
  and commits regardless must not commit half a mail. PostgreSQL needs none: there an error condemns the transaction.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from outbox.core.batches import flat
from outbox.insert import POSTGRES, SQLITE, Dialect, Insert, Row

if TYPE_CHECKING:
    import sqlite3

    import psycopg


class PeeweeDatabase(Protocol):
    """A peewee.SqliteDatabase or PostgresqlDatabase, or a DatabaseProxy of one."""

    server_version: Any

    def connection(self) -> Any: ...
    def execute_sql(self, sql: Any, params: Any = None) -> Any: ...


class Driver(Protocol):
    """A synchronous driver. `together` holds several statements together, as the head of this file says; it gets
    `many` = False for a single statement, which needs nothing. `insert_one` and `insert` return the id of each row, or
    None where the row was not inserted.
    """

    dialect: Dialect

    def together(self, connection: Any, many: bool, /) -> AbstractContextManager[None]: ...
    def insert_one(self, connection: Any, insert: Insert, row: Row, /) -> int | None: ...
    def insert(self, connection: Any, insert: Insert, rows: Sequence[Row], /) -> list[int | None]: ...
    def insert_all(self, connection: Any, sql: str, rows: Sequence[Row], /) -> None: ...


class AsyncDriver(Protocol):
    """The same for an asynchronous driver."""

    dialect: Dialect

    def together(self, connection: Any, many: bool, /) -> AbstractAsyncContextManager[None]: ...
    async def insert_one(self, connection: Any, insert: Insert, row: Row, /) -> int | None: ...
    async def insert_all(self, connection: Any, sql: str, rows: Sequence[Row], /) -> None: ...


class _Sqlite3:
    """sqlite3.Connection, in each of its transaction modes; `module` is the one it comes from."""

    dialect = SQLITE

    def __init__(self, module: str) -> None:
        self._module = module

    @contextmanager
    def together(self, connection: sqlite3.Connection, many: bool) -> Iterator[None]:
        def run(statement: str) -> None:
            connection.execute(statement).close()

        def is_open() -> bool:
            return connection.in_transaction

        if not many:
            yield
        elif is_open():
            with _savepoint(run, is_open):
                yield
        elif _is_autocommit(connection):
            with _transaction(run, is_open):
                yield
        else:
            # The connection would begin before the first INSERT by itself, but not before a SAVEPOINT, whose RELEASE
            # would then commit. So begin as it would; the commit is the application's.
            run(f"BEGIN {connection.isolation_level}")
            with _savepoint(run, is_open):
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
        if sys.modules[self._module].sqlite_version_info < _RETURNING:
            return [self.insert_one(connection, insert, row) for row in rows]
        ids: list[int | None] = []
        with closing(connection.cursor()) as cursor:
            cursor.row_factory = None
            for some in insert.sets(rows):
                ids += insert.ids(some, cursor.execute(insert.many(len(some)), flat(some)).fetchall())
        return ids

    def insert_all(self, connection: sqlite3.Connection, sql: str, rows: Sequence[Row]) -> None:
        connection.executemany(sql, rows).close()


_RETURNING = (3, 35)
"""The SQLite that has it."""


def _is_autocommit(connection: sqlite3.Connection) -> bool:
    """Whether an INSERT outside a transaction commits by itself. Python 3.12's `autocommit` is True, False, or −1 for
    the older rule, by which `isolation_level` decides.
    """
    mode = getattr(connection, "autocommit", -1)
    return bool(mode) if mode in (True, False) else connection.isolation_level is None


class _Psycopg:
    """psycopg.Connection. A cursor of our own: the connection's may return dicts, or speak another paramstyle."""

    dialect = POSTGRES

    @contextmanager
    def together(self, connection: psycopg.Connection[Any], many: bool) -> Iterator[None]:
        if many and connection.autocommit and connection.info.transaction_status == _IDLE:
            with connection.transaction():
                yield
        else:
            yield

    def insert_one(self, connection: psycopg.Connection[Any], insert: Insert, row: Row) -> int | None:
        with self._cursor(connection) as cursor:
            return _first(cursor.execute(insert.one(), row).fetchone())

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


class _AsyncPsycopg:
    """psycopg.AsyncConnection."""

    dialect = POSTGRES

    @asynccontextmanager
    async def together(self, connection: psycopg.AsyncConnection[Any], many: bool) -> AsyncIterator[None]:
        if many and connection.autocommit and connection.info.transaction_status == _IDLE:
            async with connection.transaction():
                yield
        else:
            yield

    async def insert_one(self, connection: psycopg.AsyncConnection[Any], insert: Insert, row: Row) -> int | None:
        async with self._cursor(connection) as cursor:
            await cursor.execute(insert.one(), row)
            return _first(await cursor.fetchone())

    async def insert_all(self, connection: psycopg.AsyncConnection[Any], sql: str, rows: Sequence[Row]) -> None:
        async with self._cursor(connection) as cursor:
            await cursor.executemany(sql, rows)

    def _cursor(self, connection: psycopg.AsyncConnection[Any]) -> Any:
        loaded = sys.modules["psycopg"]
        return loaded.AsyncCursor(connection, row_factory=loaded.rows.tuple_row)


class _Peewee:
    """A peewee Database, always in autocommit outside of its atomic() and manual_commit(). All statements go through
    it, so that its exceptions and query hooks are what its application expects.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    @contextmanager
    def together(self, database: PeeweeDatabase, many: bool) -> Iterator[None]:
        def is_open() -> bool:
            connection = database.connection()
            if self.dialect.returning:
                return bool(connection.info.transaction_status != _IDLE)
            return bool(connection.in_transaction)

        if not many:
            yield
        elif not is_open():
            with _transaction(database.execute_sql, is_open):
                yield
        elif self.dialect.returning:
            yield
        else:
            with _savepoint(database.execute_sql, is_open):
                yield

    def insert_one(self, database: PeeweeDatabase, insert: Insert, row: Row) -> int | None:
        with closing(database.execute_sql(insert.one(), row)) as cursor:
            if self.dialect.returning:
                return _first(cursor.fetchone())
            return cursor.lastrowid if cursor.rowcount == 1 else None

    def insert(self, database: PeeweeDatabase, insert: Insert, rows: Sequence[Row]) -> list[int | None]:
        if not self.dialect.returning and database.server_version < _RETURNING:
            return [self.insert_one(database, insert, row) for row in rows]
        ids: list[int | None] = []
        for some in insert.sets(rows):
            with closing(database.execute_sql(insert.many(len(some)), flat(some))) as cursor:
                if not self.dialect.returning:
                    cursor.row_factory = None
                ids += insert.ids(some, cursor.fetchall())
        return ids

    def insert_all(self, database: PeeweeDatabase, sql: str, rows: Sequence[Row]) -> None:
        for row in rows:
            database.execute_sql(sql, row).close()


_IDLE = 0  # libpq's PQTRANS_IDLE: connected, in no transaction

DRIVERS: dict[str, Driver] = {
    "sqlite3.Connection": _Sqlite3("sqlite3"),
    "pysqlite3.dbapi2.Connection": _Sqlite3("pysqlite3.dbapi2"),  # the same, with a library of its own
    "psycopg.Connection": _Psycopg(),
    "peewee.SqliteDatabase": _Peewee(SQLITE),
    "peewee.PostgresqlDatabase": _Peewee(POSTGRES),
}
ASYNC_DRIVERS: dict[str, AsyncDriver] = {
    "psycopg.AsyncConnection": _AsyncPsycopg(),
}


def driver_for(connection: Any) -> tuple[Driver, Any]:
    """The driver of `connection`, and the connection itself (unwrapped, where it is a proxy).

    Raises: TypeError that names what is supported.
    """
    kind = _kind(connection.__class__)
    if kind == "peewee.DatabaseProxy":
        connection = connection.obj
        kind = _kind(connection.__class__)
    elif kind == "django.utils.connection.ConnectionProxy":
        connection = connection._connections[connection._alias]
        kind = _kind(connection.__class__)
    driver = DRIVERS.get(kind)
    if driver is not None:
        return driver, connection
    if kind in ASYNC_DRIVERS:
        raise TypeError(f"a {kind} is asynchronous: use `await aenqueue(connection, mail)`")
    raise TypeError(f"enqueue() knows no {kind}; it takes {', '.join(DRIVERS)}")


def async_driver_for(connection: Any) -> AsyncDriver:
    """The driver of an asynchronous `connection`.

    Raises: TypeError that names what is supported.
    """
    kind = _kind(connection.__class__)
    driver = ASYNC_DRIVERS.get(kind)
    if driver is not None:
        return driver
    if kind in DRIVERS:
        raise TypeError(f"a {kind} is not asynchronous: use `enqueue(connection, mail)`")
    raise TypeError(f"aenqueue() knows no {kind}; it takes {', '.join(ASYNC_DRIVERS)}")


@lru_cache(maxsize=64)
def _kind(cls: type) -> str:
    """The key of `cls` in the tables above: its own name, or the nearest one it inherits from that is there.

    The class is the `__class__` of a connection, not its type(): instrumentation wraps connections in objects that
    claim to be one.
    """
    names = [f"{ancestor.__module__}.{ancestor.__qualname__}" for ancestor in cls.__mro__]
    known = {*DRIVERS, *ASYNC_DRIVERS, "peewee.DatabaseProxy"}
    return next((name for name in names if name in known), names[0])


def _first(row: Any) -> int | None:
    return None if row is None else int(row[0])


@contextmanager
def _transaction(run: Callable[[str], Any], is_open: Callable[[], bool]) -> Iterator[None]:
    """A transaction of our own on a connection in autocommit, rolled back if anything fails in it."""
    run("BEGIN")
    try:
        yield
        run("COMMIT")
    except BaseException:
        with suppress(Exception):  # what went wrong first is what matters
            if is_open():  # some errors (disk full) have ended it already
                run("ROLLBACK")
        raise


@contextmanager
def _savepoint(run: Callable[[str], Any], is_open: Callable[[], bool]) -> Iterator[None]:
    """All or nothing inside the application's transaction, which goes on either way."""
    run("SAVEPOINT outbox_enqueue")
    try:
        yield
    except BaseException:
        with suppress(Exception):
            if is_open():
                run("ROLLBACK TO outbox_enqueue")
                run("RELEASE outbox_enqueue")
        raise
    run("RELEASE outbox_enqueue")
