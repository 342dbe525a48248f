"""An application that enqueues, once for each kind of connection that Outbox supports, in each transaction mode.

All are used in the same way, so that one suite runs over them: `tests/contract/test_enqueue.py`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Any

import peewee
import psycopg
from psycopg.pq import TransactionStatus

from outbox import Mail, aenqueue, enqueue, enqueue_many
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


class Sqlite3NewAutocommit(Sqlite3):
    begins_itself = False

    def open(self) -> Any:
        options: dict[str, Any] = {"autocommit": True}
        return sqlite3.connect(sqlite_path(self.url), **options)

    def commit(self) -> None:
        self.sql("COMMIT")  # commit() does nothing in this mode

    def rollback(self) -> None:
        self.sql("ROLLBACK")


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


class AsyncPsycopg(Psycopg):
    """psycopg's AsyncConnection, on an event loop of its own."""

    def open(self) -> Any:
        self.loop = asyncio.SelectorEventLoop()  # psycopg cannot use the one that is Windows' default
        return self.loop.run_until_complete(psycopg.AsyncConnection.connect(self.url, autocommit=self.autocommit))

    def enqueue(self, mail: Mail) -> int | None:
        return self.loop.run_until_complete(aenqueue(self.connection, mail))

    def sql(self, statement: str) -> None:
        self.loop.run_until_complete(self.connection.execute(statement))

    def commit(self) -> None:
        self.loop.run_until_complete(self.connection.commit())

    def rollback(self) -> None:
        self.loop.run_until_complete(self.connection.rollback())

    def close(self) -> None:
        self.loop.run_until_complete(self.connection.close())
        self.loop.close()


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


SQLITE: dict[str, type[Application]] = {
    "sqlite3": Sqlite3,
    "sqlite3-autocommit": Sqlite3Autocommit,
    "peewee-sqlite": Peewee,
}
if sys.version_info >= (3, 12):
    SQLITE |= {"sqlite3-new": Sqlite3New, "sqlite3-new-autocommit": Sqlite3NewAutocommit}
POSTGRES: dict[str, type[Application]] = {
    "psycopg": Psycopg,
    "psycopg-autocommit": PsycopgAutocommit,
    "psycopg-async": AsyncPsycopg,
    "psycopg-async-autocommit": AsyncPsycopgAutocommit,
    "peewee-postgres": Peewee,
}
ALL = SQLITE | POSTGRES
AUTOCOMMIT = [name for name, kind in ALL.items() if not kind.begins_itself]
SYNCHRONOUS = [name for name, kind in ALL.items() if not issubclass(kind, AsyncPsycopg)]
