"""What a driver is, and the connections of libraries that we do not import, as far as we use them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

from outbox.insert import Dialect, Insert, Row

RETURNING = (3, 35)
"""The SQLite that has it."""

IDLE = 0
"""libpq's PQTRANS_IDLE: connected, in no transaction."""


class Driver(Protocol):
    """A synchronous driver. `together` holds several statements together, as the head of this room says; it gets
    `many` = False for a single statement, which needs nothing. `insert_one` and `insert` return the id of each row, or
    None where the row was not inserted.
    """

    dialect: Dialect

    def together(self, connection: Any, many: bool, /) -> AbstractContextManager[None]: ...
    def insert_one(self, connection: Any, insert: Insert, row: Row, /) -> int | None: ...
    def insert(self, connection: Any, insert: Insert, rows: Sequence[Row], /) -> list[int | None]: ...
    def insert_all(self, connection: Any, sql: str, rows: Sequence[Row], /) -> None: ...


class AsyncDriver(Protocol):
    """The same for an asynchronous driver. `ring` is asked for where the dialect is SQLITE, and never raises."""

    dialect: Dialect

    def together(self, connection: Any, many: bool, /) -> AbstractAsyncContextManager[None]: ...
    async def insert_one(self, connection: Any, insert: Insert, row: Row, /) -> int | None: ...
    async def insert(self, connection: Any, insert: Insert, rows: Sequence[Row], /) -> list[int | None]: ...
    async def insert_all(self, connection: Any, sql: str, rows: Sequence[Row], /) -> None: ...
    async def ring(self, connection: Any, /) -> None: ...


class PeeweeDatabase(Protocol):
    """A peewee.SqliteDatabase or PostgresqlDatabase, or a DatabaseProxy of one."""

    server_version: Any

    def connection(self) -> Any: ...
    def execute_sql(self, sql: Any, params: Any = None) -> Any: ...


class Psycopg2Connection(Protocol):
    def get_transaction_status(self) -> int: ...
    def get_parameter_status(self, parameter: str) -> Any: ...


class SqlalchemyConnection(Protocol):
    """A sqlalchemy.Connection; its AsyncConnection looks the same, and is told apart when it is used."""

    def exec_driver_sql(self, *args: Any, **kwargs: Any) -> Any: ...


class SqlalchemySession(Protocol):
    """A sqlalchemy.orm.Session or scoped_session; an AsyncSession looks the same, and is told apart when it is used."""

    def connection(self, *args: Any, **kwargs: Any) -> Any: ...
    def flush(self, *args: Any, **kwargs: Any) -> Any: ...


class AiosqliteConnection(Protocol):
    def execute(self, *args: Any, **kwargs: Any) -> Any: ...
    def execute_insert(self, *args: Any, **kwargs: Any) -> Any: ...


class AsyncpgConnection(Protocol):
    def fetchval(self, *args: Any, **kwargs: Any) -> Any: ...
    def is_in_transaction(self) -> bool: ...


def first(row: Any) -> int | None:
    return None if row is None else int(row[0])
