"""A SELECT on a connection of an application, whatever kind it is: what was in no transaction, is in none afterwards.

That is more than politeness: psycopg begins with the first SELECT, and a `with connection.transaction()` that follows
would be a savepoint in a transaction that nobody commits.

Statements have no parameters: there is no way to write one that all drivers understand.
"""

from __future__ import annotations

import sys
from typing import Any

Rows = list[tuple[Any, ...]]

_IDLE = 0
"""libpq's PQTRANS_IDLE: connected, in no transaction."""


def select(connection: Any, sql: str) -> Rows:
    """The rows of a SELECT. Raises TypeError for an asynchronous connection; the driver's exceptions."""
    connection = _unwrapped(connection)
    if is_async(connection):
        raise TypeError(f"a {_names(connection)[0]} is asynchronous: use `async with acaptured(connection)`")
    names = _names(connection)
    if "sqlalchemy.orm.session.Session" in names:
        return _of_session(connection, sql)
    if "sqlalchemy.engine.base.Connection" in names:
        return _of_sqlalchemy(connection, sql)
    if hasattr(connection, "execute_sql"):  # a peewee Database
        return _plain(_fetched(connection.execute_sql(sql)))
    was_idle = _is_idle(connection)
    cursor = _cursor(connection, names)
    try:
        cursor.execute(sql)
        return _plain(cursor.fetchall())
    finally:
        cursor.close()
        if was_idle:
            connection.rollback()


async def aselect(connection: Any, sql: str) -> Rows:
    """The same on an asynchronous connection; and on others."""
    connection = _unwrapped(connection)
    if not is_async(connection):
        return select(connection, sql)
    if hasattr(connection, "run_sync"):  # SQLAlchemy
        rows: Rows = await connection.run_sync(lambda inner: select(inner, sql))
        return rows
    if hasattr(connection, "fetchrow"):  # asyncpg
        return _plain(await connection.fetch(sql))
    was_idle = _is_idle(connection)
    names = _names(connection)
    try:
        async with _cursor(connection, names) as cursor:
            await cursor.execute(sql)
            return _plain(await cursor.fetchall())
    finally:
        if was_idle:
            await connection.rollback()


def is_async(connection: Any) -> bool:
    """Whether a statement on it has to be awaited."""
    return any(name.startswith(_ASYNC) for name in _names(connection))


def driver_connection(connection: Any) -> Any:
    """What is under a SQLAlchemy, Django or peewee connection: the driver's own."""
    connection = _unwrapped(connection)
    names = _names(connection)
    if "sqlalchemy.orm.session.Session" in names:
        connection = connection.connection()
    if hasattr(connection, "exec_driver_sql"):
        return connection.connection.driver_connection
    if hasattr(connection, "ensure_connection"):  # Django
        connection.ensure_connection()
        return connection.connection
    return connection.connection() if hasattr(connection, "execute_sql") else connection


_ASYNC = (
    "psycopg.AsyncConnection",
    "asyncpg.connection.Connection",
    "asyncpg.pool.PoolConnectionProxy",
    "aiosqlite.core.Connection",
    "sqlalchemy.ext.asyncio.",
)


def _names(connection: Any) -> list[str]:
    """Its class and those that it inherits from."""
    return [f"{each.__module__}.{each.__qualname__}" for each in connection.__class__.__mro__]


def _unwrapped(connection: Any) -> Any:
    """The connection of a proxy: of peewee, of SQLAlchemy's scoped sessions, of Django."""
    name = _names(connection)[0]
    if name == "peewee.DatabaseProxy":
        return connection.obj
    if name == "sqlalchemy.orm.scoping.scoped_session" or hasattr(connection, "registry"):
        return connection.registry()
    if name == "django.utils.connection.ConnectionProxy":
        return connection._connections[connection._alias]
    return connection


def _is_idle(connection: Any) -> bool:
    """Whether a SELECT on this connection of psycopg or psycopg2 begins a transaction."""
    info = getattr(connection, "info", None)
    status = getattr(info, "transaction_status", None)
    return status is not None and int(status) == _IDLE and not connection.autocommit


def _cursor(connection: Any, names: list[str]) -> Any:
    """One that returns tuples, whatever the application likes better."""
    if "psycopg.Connection" in names:
        return sys.modules["psycopg"].Cursor(connection, row_factory=sys.modules["psycopg.rows"].tuple_row)
    if "psycopg.AsyncConnection" in names:
        return sys.modules["psycopg"].AsyncCursor(connection, row_factory=sys.modules["psycopg.rows"].tuple_row)
    if "psycopg2.extensions.connection" in names:
        return connection.cursor(cursor_factory=sys.modules["psycopg2.extensions"].cursor)
    cursor = connection.cursor()
    if hasattr(cursor, "row_factory"):
        cursor.row_factory = None
    return cursor


def _of_session(session: Any, sql: str) -> Rows:
    """Of a session in no transaction another connection is asked: ending one would expire all of its objects."""
    if session.in_transaction():
        return _of_sqlalchemy(session.connection(), sql)
    bind = session.get_bind()
    if hasattr(bind, "exec_driver_sql"):
        return _of_sqlalchemy(bind, sql)
    with bind.connect() as connection:
        return _of_sqlalchemy(connection, sql)


def _of_sqlalchemy(connection: Any, sql: str) -> Rows:
    was_idle = not connection.in_transaction()
    try:
        return _plain(connection.exec_driver_sql(sql).fetchall())
    finally:
        if was_idle:
            connection.rollback()


def _fetched(cursor: Any) -> Any:
    try:
        if hasattr(cursor, "row_factory") and cursor.__class__.__module__.startswith(("sqlite3", "pysqlite3")):
            cursor.row_factory = None
        return cursor.fetchall()
    finally:
        cursor.close()


def _plain(rows: Any) -> Rows:
    return [tuple(row) for row in rows]
