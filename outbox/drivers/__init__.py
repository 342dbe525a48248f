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

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from outbox.drivers import sqlalchemy
from outbox.drivers.peewee import Peewee
from outbox.drivers.postgres import Asyncpg, AsyncPsycopg, Psycopg, Psycopg2
from outbox.drivers.protocols import AsyncDriver, Driver
from outbox.drivers.sqlite import Aiosqlite, Sqlite3
from outbox.insert import POSTGRES, SQLITE

DRIVERS: dict[str, Driver] = {
    "sqlite3.Connection": Sqlite3("sqlite3"),
    "pysqlite3.dbapi2.Connection": Sqlite3("pysqlite3.dbapi2"),  # the same, with a library of its own
    "psycopg.Connection": Psycopg(),
    "psycopg2.extensions.connection": Psycopg2(),
    "peewee.SqliteDatabase": Peewee(SQLITE),
    "peewee.PostgresqlDatabase": Peewee(POSTGRES),
}
ASYNC_DRIVERS: dict[str, AsyncDriver] = {
    "psycopg.AsyncConnection": AsyncPsycopg(),
    "asyncpg.connection.Connection": Asyncpg(),
    "asyncpg.pool.PoolConnectionProxy": Asyncpg(),
    "aiosqlite.core.Connection": Aiosqlite(),
}

# What has a connection inside, or is one over several drivers: how to find both.
_FOUND: dict[str, Callable[[Any], tuple[Driver, Any]]] = {
    "sqlalchemy.engine.base.Connection": sqlalchemy.of_connection,
    "sqlalchemy.orm.session.Session": sqlalchemy.of_session,
    "sqlalchemy.orm.scoping.scoped_session": sqlalchemy.of_session,
    "peewee.DatabaseProxy": lambda proxy: driver_for(proxy.obj),
    "django.utils.connection.ConnectionProxy": lambda proxy: driver_for(proxy._connections[proxy._alias]),
}
_FOUND_ASYNC: dict[str, Callable[[Any], Awaitable[tuple[AsyncDriver, Any]]]] = {
    "sqlalchemy.ext.asyncio.engine.AsyncConnection": sqlalchemy.of_async_connection,
    "sqlalchemy.ext.asyncio.session.AsyncSession": sqlalchemy.of_async_session,
    "sqlalchemy.ext.asyncio.scoping.async_scoped_session": sqlalchemy.of_async_session,
}
_NOT_YET = {
    "sqlalchemy.engine.base.Engine": "with engine.begin() as connection",
    "sqlalchemy.ext.asyncio.engine.AsyncEngine": "async with engine.begin() as connection",
    "sqlalchemy.orm.session.sessionmaker": "with sessionmaker.begin() as session",
    "sqlalchemy.ext.asyncio.session.async_sessionmaker": "async with async_sessionmaker.begin() as session",
    "flask_sqlalchemy.extension.SQLAlchemy": "db.session",
    "asyncpg.pool.Pool": "async with pool.acquire() as connection",
    "asyncpg.pool.PoolAcquireContext": "async with pool.acquire() as connection",
    "psycopg_pool.pool.ConnectionPool": "with pool.connection() as connection",
    "psycopg_pool.pool_async.AsyncConnectionPool": "async with pool.connection() as connection",
    "psycopg2.pool.AbstractConnectionPool": "connection = pool.getconn()",
    "sqlite3.Cursor": "cursor.connection",
    "psycopg.Cursor": "cursor.connection",
    "psycopg.AsyncCursor": "cursor.connection",
    "psycopg2.extensions.cursor": "cursor.connection",
    "django.utils.connection.BaseConnectionHandler": "connections[alias]",
    "builtins.coroutine": "await",
    "builtins.str": "connect() of a driver",
    "pathlib.PurePath": "connect() of a driver",
    "pathlib._local.PurePath": "connect() of a driver",  # Python 3.13
}
_PROXIES = ("peewee.DatabaseProxy", "django.utils.connection.ConnectionProxy")


def driver_for(connection: Any) -> tuple[Driver, Any]:
    """The driver of `connection`, and the connection itself (that of a Session or a proxy).

    Raises: TypeError that names what is supported.
    """
    kind = _kind(connection.__class__)
    driver = DRIVERS.get(kind)
    if driver is not None:
        return driver, connection
    find = _FOUND.get(kind)
    if find is not None:
        return find(connection)
    if kind in ASYNC_DRIVERS or kind in _FOUND_ASYNC:
        raise TypeError(f"a {kind} is asynchronous: use `await aenqueue(connection, mail)`, or aenqueue_many")
    raise TypeError(_unknown("enqueue", kind, [*DRIVERS, *_FOUND]))


async def async_driver_for(connection: Any) -> tuple[AsyncDriver, Any]:
    """The driver of an asynchronous `connection`, and the connection itself (that of an AsyncSession).

    Raises: TypeError that names what is supported.
    """
    kind = _kind(connection.__class__)
    driver = ASYNC_DRIVERS.get(kind)
    if driver is not None:
        return driver, connection
    find = _FOUND_ASYNC.get(kind)
    if find is not None:
        return await find(connection)
    if kind in DRIVERS or kind in _FOUND:
        raise TypeError(f"a {kind} is not asynchronous: use `enqueue(connection, mail)`, or enqueue_many")
    raise TypeError(_unknown("aenqueue", kind, [*ASYNC_DRIVERS, *_FOUND_ASYNC]))


def _unknown(function: str, kind: str, known: list[str]) -> str:
    if kind in _NOT_YET:
        return f"a {kind} is no connection: `{_NOT_YET[kind]}` gives one, and its transaction is what the mail is in"
    return f"{function}() knows no {kind}; it takes {', '.join(name for name in known if name not in _PROXIES)}"


@lru_cache(maxsize=64)
def _kind(cls: type) -> str:
    """The key of `cls` in the tables above: its own name, or the nearest one it inherits from that is there.

    The class is the `__class__` of a connection, not its type(): instrumentation wraps connections in objects that
    claim to be one.
    """
    names = [f"{ancestor.__module__}.{ancestor.__qualname__}" for ancestor in cls.__mro__]
    known = {*DRIVERS, *ASYNC_DRIVERS, *_FOUND, *_FOUND_ASYNC, *_NOT_YET}
    return next((name for name in names if name in known), names[0])
