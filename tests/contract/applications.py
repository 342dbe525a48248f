"""An application that enqueues, once for each kind of connection that Outbox supports, in each transaction mode.

All are used in the same way, so that one suite runs over them: `tests/contract/test_enqueue.py`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Any, ClassVar

import aiosqlite
import asyncpg
import peewee
import psycopg
import psycopg2
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from outbox import Mail, aenqueue, aenqueue_many, enqueue, enqueue_many
from outbox.store.database import connect, sqlite_path
from outbox.store.engine import sqlite3

Rows = list[tuple[Any, ...]]


class Application:
    """What the suite needs of an application. `begins_itself`: a statement outside a transaction begins one."""

    begins_itself = False

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection: Any = self.open()

    def open(self) -> Any:
        raise NotImplementedError

    def enqueue(self, mail: Mail) -> int | None:
        return enqueue(self.connection, mail)

    def enqueue_many(self, mails: Iterable[Mail]) -> list[int | None]:
        return enqueue_many(self.connection, mails)

    def sql(self, statement: str) -> None:
        """Run a statement of the application's own."""
        self.connection.execute(statement)

    def begin(self) -> None:
        if not self.begins_itself:
            self.sql("BEGIN")

    def commit(self) -> None:
        self.connection.commit()

    def rollback(self) -> None:
        self.connection.rollback()

    def in_transaction(self) -> bool:
        raise NotImplementedError

    def close(self) -> None:
        self.connection.close()

    def seen(self, query: str) -> Rows:
        """What another connection sees."""
        database = connect(self.url)
        try:
            return list(database.execute_sql(query).fetchall())
        finally:
            database.close()


class EndsInSql(Application):
    """Where commit() and rollback() do nothing: connections in autocommit."""

    begins_itself = False

    def commit(self) -> None:
        self.sql("COMMIT")

    def rollback(self) -> None:
        self.sql("ROLLBACK")


class Asynchronous(Application):
    """What awaits its connection, on an event loop of its own."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.SelectorEventLoop()  # psycopg cannot use the one that is Windows' default
        super().__init__(url)

    def wait(self, awaitable: Any) -> Any:
        async def awaited() -> Any:
            return await awaitable

        return self.loop.run_until_complete(awaited())

    def enqueue(self, mail: Mail) -> int | None:
        return self.loop.run_until_complete(aenqueue(self.connection, mail))

    def enqueue_many(self, mails: Iterable[Mail]) -> list[int | None]:
        return self.loop.run_until_complete(aenqueue_many(self.connection, mails))

    def sql(self, statement: str) -> None:
        self.wait(self.connection.execute(statement))

    def commit(self) -> None:
        self.wait(self.connection.commit())

    def rollback(self) -> None:
        self.wait(self.connection.rollback())

    def close(self) -> None:
        self.wait(self.connection.close())
        self.loop.close()


class Sqlite3(Application):
    """sqlite3 as it comes: the first INSERT begins."""

    begins_itself = True

    def open(self) -> Any:
        return sqlite3.connect(sqlite_path(self.url))

    def in_transaction(self) -> bool:
        return bool(self.connection.in_transaction)


class Sqlite3Autocommit(Sqlite3):
    begins_itself = False

    def open(self) -> Any:
        return sqlite3.connect(sqlite_path(self.url), isolation_level=None)


class Sqlite3New(Sqlite3):
    """The transaction control of Python 3.12: always in a transaction."""

    def open(self) -> Any:
        options: dict[str, Any] = {"autocommit": False}
        return sqlite3.connect(sqlite_path(self.url), **options)


class Sqlite3NewAutocommit(EndsInSql, Sqlite3):
    def open(self) -> Any:
        options: dict[str, Any] = {"autocommit": True}
        return sqlite3.connect(sqlite_path(self.url), **options)


class Psycopg(Application):
    """psycopg as it comes: the first statement begins."""

    begins_itself = True
    autocommit = False

    def open(self) -> Any:
        return psycopg.connect(self.url, autocommit=self.autocommit)

    def in_transaction(self) -> bool:
        return bool(self.connection.info.transaction_status != TransactionStatus.IDLE)


class PsycopgAutocommit(Psycopg):
    begins_itself = False
    autocommit = True


class AsyncPsycopg(Asynchronous, Psycopg):
    """psycopg's AsyncConnection."""

    def open(self) -> Any:
        return self.wait(psycopg.AsyncConnection.connect(self.url, autocommit=self.autocommit))


class AsyncPsycopgAutocommit(AsyncPsycopg):
    begins_itself = False
    autocommit = True


class Peewee(Application):
    """A peewee Database, which is in autocommit outside of atomic() and begin()."""

    def open(self) -> Any:
        return connect(self.url)

    def sql(self, statement: str) -> None:
        self.connection.execute_sql(statement)

    def in_transaction(self) -> bool:
        connection = self.connection.connection()
        if isinstance(self.connection, peewee.SqliteDatabase):
            return bool(connection.in_transaction)
        return bool(connection.info.transaction_status != TransactionStatus.IDLE)


class Psycopg2(Application):
    begins_itself = True
    autocommit = False

    def open(self) -> Any:
        connection = psycopg2.connect(self.url)
        connection.autocommit = self.autocommit
        return connection

    def sql(self, statement: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(statement)

    def in_transaction(self) -> bool:
        return bool(self.connection.info.transaction_status != TransactionStatus.IDLE)


class Psycopg2Autocommit(EndsInSql, Psycopg2):
    autocommit = True


class Asyncpg(EndsInSql, Asynchronous):
    """asyncpg, which is in autocommit outside of its transaction()."""

    def open(self) -> Any:
        return self.wait(asyncpg.connect(self.url))

    def in_transaction(self) -> bool:
        return bool(self.connection.is_in_transaction())


class AsyncpgPool(Asyncpg):
    """A connection that asyncpg's Pool has lent."""

    def open(self) -> Any:
        async def lent() -> Any:
            self.pool = await asyncpg.create_pool(self.url, min_size=1, max_size=1)
            return await self.pool.acquire()

        return self.loop.run_until_complete(lent())

    def close(self) -> None:
        async def given_back() -> None:
            await self.pool.release(self.connection)
            await self.pool.close()

        self.loop.run_until_complete(given_back())
        self.loop.close()


class Aiosqlite(Asynchronous):
    begins_itself = True
    options: ClassVar[dict[str, Any]] = {}

    def open(self) -> Any:
        async def connected() -> Any:
            return await aiosqlite.connect(sqlite_path(self.url), **self.options)

        return self.loop.run_until_complete(connected())

    def in_transaction(self) -> bool:
        return bool(self.connection.in_transaction)


class AiosqliteAutocommit(Aiosqlite):
    begins_itself = False
    options: ClassVar = {"isolation_level": None}


class AiosqliteNew(Aiosqlite):
    options: ClassVar = {"autocommit": False}


class AiosqliteNewAutocommit(EndsInSql, Aiosqlite):
    options: ClassVar = {"autocommit": True}


class Sqlalchemy(Application):
    """A SQLAlchemy Connection as it comes: the first statement begins."""

    begins_itself = True
    driver = "sqlite"
    isolation: str | None = None

    def open(self) -> Any:
        address = f"{self.driver}:{self.url.partition(':')[2]}"
        options: dict[str, Any] = {"isolation_level": self.isolation} if self.isolation else {}
        self.engine = sa.create_engine(address, poolclass=NullPool, **options)
        return self.opened()

    def opened(self) -> Any:
        return self.engine.connect()

    def sql(self, statement: str) -> None:
        self.connection.execute(sa.text(statement))

    def in_transaction(self) -> bool:
        return bool(self.connection.in_transaction())


class SqlalchemySession(Sqlalchemy):
    def opened(self) -> Any:
        return Session(self.engine)


class SqlalchemyAutocommit(EndsInSql, Sqlalchemy):
    """What SQLAlchemy calls a transaction is none in this mode."""

    isolation = "AUTOCOMMIT"

    def in_transaction(self) -> bool:
        own = self.connection.connection.driver_connection
        if hasattr(own, "in_transaction"):
            return bool(own.in_transaction)
        return bool(own.info.transaction_status != TransactionStatus.IDLE)


class AsyncSqlalchemy(Asynchronous, Sqlalchemy):
    driver = "sqlite+aiosqlite"

    def open(self) -> Any:
        address = f"{self.driver}:{self.url.partition(':')[2]}"
        self.async_engine = create_async_engine(address, poolclass=NullPool)
        return self.wait(self.opened())

    async def opened(self) -> Any:
        return await AsyncConnection(self.async_engine)

    def sql(self, statement: str) -> None:
        self.wait(self.connection.execute(sa.text(statement)))

    def in_transaction(self) -> bool:
        return bool(self.connection.in_transaction())


class AsyncSqlalchemySession(AsyncSqlalchemy):
    async def opened(self) -> Any:
        return AsyncSession(self.async_engine)


def over(application: type[Application], driver: str) -> type[Application]:
    """The application, over another of the drivers that SQLAlchemy has."""
    return type(f"{application.__name__}Over", (application,), {"driver": driver})


SQLITE: dict[str, type[Application]] = {
    "sqlite3": Sqlite3,
    "sqlite3-autocommit": Sqlite3Autocommit,
    "peewee-sqlite": Peewee,
    "aiosqlite": Aiosqlite,
    "aiosqlite-autocommit": AiosqliteAutocommit,
    "sqlalchemy-sqlite": Sqlalchemy,
    "sqlalchemy-sqlite-autocommit": SqlalchemyAutocommit,
    "sqlalchemy-session-sqlite": SqlalchemySession,
    "sqlalchemy-async-sqlite": AsyncSqlalchemy,
    "sqlalchemy-async-session-sqlite": AsyncSqlalchemySession,
}
if sys.version_info >= (3, 12):
    SQLITE |= {"sqlite3-new": Sqlite3New, "sqlite3-new-autocommit": Sqlite3NewAutocommit}
    SQLITE |= {"aiosqlite-new": AiosqliteNew, "aiosqlite-new-autocommit": AiosqliteNewAutocommit}
POSTGRES: dict[str, type[Application]] = {
    "psycopg": Psycopg,
    "psycopg-autocommit": PsycopgAutocommit,
    "psycopg-async": AsyncPsycopg,
    "psycopg-async-autocommit": AsyncPsycopgAutocommit,
    "peewee-postgres": Peewee,
    "psycopg2": Psycopg2,
    "psycopg2-autocommit": Psycopg2Autocommit,
    "asyncpg": Asyncpg,
    "asyncpg-pool": AsyncpgPool,
    "sqlalchemy-psycopg": over(Sqlalchemy, "postgresql+psycopg"),
    "sqlalchemy-psycopg-autocommit": over(SqlalchemyAutocommit, "postgresql+psycopg"),
    "sqlalchemy-psycopg2": over(Sqlalchemy, "postgresql+psycopg2"),
    "sqlalchemy-session-psycopg2": over(SqlalchemySession, "postgresql+psycopg2"),
    "sqlalchemy-async-psycopg": over(AsyncSqlalchemy, "postgresql+psycopg"),
    "sqlalchemy-async-session-asyncpg": over(AsyncSqlalchemySession, "postgresql+asyncpg"),
}
ALL = SQLITE | POSTGRES
AUTOCOMMIT = [name for name, kind in ALL.items() if not kind.begins_itself]
