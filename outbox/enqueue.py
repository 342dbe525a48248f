"""Hand over mail: INSERT it on the application's own connection, inside the application's own transaction.

    with connection:                                     # sqlite3, psycopg, psycopg2, SQLAlchemy, peewee
        connection.execute("UPDATE orders SET …")
        enqueue(connection, Mail(sender="shop@example.com", to="ann@example.net", subject="Order 7", text="Thanks"))

The mail exists when that transaction commits, and never existed when it rolls back. `drivers/` knows the connections,
and says when a statement of ours surrounds the INSERTs (attachments outside of any transaction, or on SQLite).

The statements also run as `outbox_app` of schema/postgres/roles.sql, who may INSERT content and SELECT only id and
dedup_key. What the database refuses is raised as the driver's own exception (sqlite3.IntegrityError, psycopg.errors.…,
sqlalchemy.exc.IntegrityError), unchanged, because the application knows those; what is wrong with a mail by itself was
already raised by `Mail`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from outbox.doorbell import ring
from outbox.drivers import async_driver_for, driver_for
from outbox.drivers.protocols import (
    AiosqliteConnection,
    AsyncpgConnection,
    Driver,
    PeeweeDatabase,
    Psycopg2Connection,
    SqlalchemyConnection,
    SqlalchemySession,
)
from outbox.insert import SQLITE, Dialect, Insert, Row
from outbox.mail import Mail

if TYPE_CHECKING:
    import sqlite3

    import psycopg

    Connection: TypeAlias = (
        sqlite3.Connection
        | psycopg.Connection[Any]
        | Psycopg2Connection
        | SqlalchemyConnection
        | SqlalchemySession
        | PeeweeDatabase
    )
    AsyncConnection: TypeAlias = (
        psycopg.AsyncConnection[Any]
        | AsyncpgConnection
        | AiosqliteConnection
        | SqlalchemyConnection
        | SqlalchemySession
    )
else:
    Connection = AsyncConnection = Any  # whoever asks for the hints at run time may not have these drivers


def enqueue(connection: Connection, mail: Mail, *, source: str = "python") -> int | None:
    """Insert `mail` in the transaction of `connection`, which may be a SQLAlchemy Session, too. Returns its id, or None
    when its `dedup_key` is already there.

    `source` says through which door it came; the audit shows it. The id is the one of `outbox show ID`; until you
    commit, it is only yours. Where another transaction has inserted the same `dedup_key` and not yet ended, PostgreSQL
    waits for it.

    Raises: TypeError for a connection or mail of another kind; the driver's exceptions.
    """
    if isinstance(connection, Mail):
        raise TypeError(_TURNED)
    driver, connection = driver_for(connection)
    if _checked(mail).attachments:
        message_id = _insert(driver, connection, _load((mail,), driver.dialect, source))[0]
    else:  # one statement, which needs nothing around it
        values = _values(mail, driver.dialect)
        message_id = driver.insert_one(
            connection, _insert_of(driver.dialect, tuple(values)), (*values.values(), source)
        )
    if driver.dialect is SQLITE:
        ring(connection)
    return message_id


async def aenqueue(connection: AsyncConnection, mail: Mail, *, source: str = "python") -> int | None:
    """`enqueue` for an asynchronous connection (psycopg, asyncpg, aiosqlite, SQLAlchemy's AsyncConnection and
    AsyncSession): the same statements, results and exceptions.
    """
    return (await _ainsert(connection, (mail,), source))[0]


def enqueue_many(connection: Connection, mails: Iterable[Mail], *, source: str = "python") -> list[int | None]:
    """Insert all of `mails`, in order, or none. Returns what `enqueue` would for each; the second mail with the same
    `dedup_key` is None.

    Up to 64 mails are one statement. psycopg sends them in one pipeline: two round trips for a batch with attachments.
    SQLite has no round trips; psycopg2, SQLAlchemy and peewee on PostgreSQL make one for each statement.

    Raises: as `enqueue`.
    """
    if isinstance(connection, Mail):
        raise TypeError(_TURNED)
    driver, connection = driver_for(connection)
    load = _load(mails, driver.dialect, source)
    if not load.rows:
        return []
    ids = _insert(driver, connection, load)
    if driver.dialect is SQLITE:
        ring(connection)
    return ids


async def aenqueue_many(
    connection: AsyncConnection, mails: Iterable[Mail], *, source: str = "python"
) -> list[int | None]:
    """`enqueue_many` for an asynchronous connection: all of `mails`, in order, or none. psycopg pipelines them, too;
    asyncpg and SQLAlchemy make one round trip for each statement.
    """
    return await _ainsert(connection, mails, source)


_TURNED = "the connection comes first: enqueue(connection, mail)"


def _insert(driver: Driver, connection: Any, load: _Load) -> list[int | None]:
    with driver.together(connection, load.many):
        if len(load.rows) == 1:
            ids = [driver.insert_one(connection, load.insert, load.rows[0])]
        else:
            ids = driver.insert(connection, load.insert, load.rows)
        if attached := load.attached(ids):
            driver.insert_all(connection, _attachment_sql(driver.dialect), attached)
    return ids


async def _ainsert(connection: Any, mails: Iterable[object], source: str) -> list[int | None]:
    if isinstance(connection, Mail):
        raise TypeError(_TURNED)
    driver, connection = await async_driver_for(connection)
    load = _load(mails, driver.dialect, source)
    if not load.rows:
        return []
    async with driver.together(connection, load.many):
        if len(load.rows) == 1:
            ids = [await driver.insert_one(connection, load.insert, load.rows[0])]
        else:
            ids = await driver.insert(connection, load.insert, load.rows)
        if attached := load.attached(ids):
            await driver.insert_all(connection, _attachment_sql(driver.dialect), attached)
    if driver.dialect is SQLITE:
        await driver.ring(connection)
    return ids


@dataclass(slots=True)
class _Load:
    """Mails as rows, and the attachments of each row (without the message's id), or [] if there are none at all."""

    insert: Insert
    rows: list[Row]
    attachments: list[list[Row]]

    @property
    def many(self) -> bool:
        """More than one statement: they must be held together."""
        return len(self.rows) > 1 or bool(self.attachments)

    def attached(self, ids: Sequence[int | None]) -> list[Row]:
        """The rows of outbox_attachment, for those mails that were inserted."""
        return [
            (message_id, *row)
            for message_id, rows in zip(ids, self.attachments, strict=False)
            if message_id is not None
            for row in rows
        ]


def _load(given: Iterable[object], dialect: Dialect, source: str) -> _Load:
    mails = [_checked(mail) for mail in given]
    filled = [_values(mail, dialect) for mail in mails]
    columns = tuple(dict.fromkeys([column for values in filled for column in values]))
    rows: list[Row] = [(*map(values.get, columns), source) for values in filled]
    attachments: list[list[Row]] = []
    if any(mail.attachments for mail in mails):
        attachments = [_attachments(mail) for mail in mails]
    return _Load(_insert_of(dialect, columns), rows, attachments)


def _values(mail: Mail, dialect: Dialect) -> dict[str, object]:
    """Its columns, as the driver takes them."""
    values = mail.columns()
    for column in ("due_at", "expires_at"):
        if column in values:
            values[column] = dialect.time(values[column])
    return values


@lru_cache(maxsize=256)
def _insert_of(dialect: Dialect, columns: tuple[str, ...]) -> Insert:
    return Insert(dialect, (*columns, "source"))


def _attachments(mail: Mail) -> list[Row]:
    return [
        (position, file.filename, file.content_type, file.content_id or None, file.content)
        for position, file in enumerate(mail.attachments)
    ]


def _checked(mail: object) -> Mail:
    if isinstance(mail, Mail):
        return mail
    kind = f"{type(mail).__module__}.{type(mail).__qualname__}"
    hint = "; Mail.from_message() makes one of it" if hasattr(mail, "as_bytes") else ""
    raise TypeError(f"this takes an outbox.Mail, not {kind}{hint}")


@lru_cache(maxsize=16)
def _attachment_sql(dialect: Dialect) -> str:
    columns = ("message_id", "position", "filename", "content_type", "content_id", "content")
    markers = ", ".join(dialect.marker for _ in columns)
    return dialect.numbers(f"INSERT INTO outbox_attachment ({', '.join(columns)}) VALUES ({markers})")  # noqa: S608
