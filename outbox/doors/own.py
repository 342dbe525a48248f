"""A connection of our own, for doors that no application has opened one for: sendmail, SMTP, a log handler.

Plain sqlite3 or psycopg, as an application has it, so that a short command need not load peewee. What is wrong with the
database is a DatabaseError that may pass; then nothing was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from outbox.core.address import fold, wildcard
from outbox.drivers import driver_for
from outbox.enqueue import enqueue
from outbox.errors import DatabaseError, InvalidMail, Refused
from outbox.mail import Mail

if TYPE_CHECKING:
    from outbox.enqueue import Connection
else:
    Connection = Any


@contextmanager
def connected(url: str, *, patience: float = 10.0) -> Iterator[Connection]:
    """A connection to the database at `url` (as `outbox.toml` has it), in autocommit, closed at the end. It waits for a
    lock, or for the server, for `patience` seconds.

    What the database or its driver raises in the block is raised as DatabaseError; as InvalidMail where it is the mail
    that is refused.
    """
    scheme = url.partition(":")[0].lower().partition("+")[0]
    opened = _postgres(url, patience) if scheme in ("postgresql", "postgres") else _sqlite(url, patience)
    with opened as connection:
        yield connection


def refusal(connection: Connection, addresses: Sequence[str]) -> str:
    """Why the runner would not send what all of these speak for: one is not registered, or to another account than the
    first. Empty where all is well.
    """
    accounts = {each: account_of(connection, each) for each in addresses}
    for address, account in accounts.items():
        if not account:
            return f"{address} is not a registered sender"
        if account != accounts[addresses[0]]:
            return f"{address} is registered to another account than {addresses[0]}"
    return ""


def account_of(connection: Connection, address: str) -> str:
    """To which account `address` is registered, by itself or with all of its domain. Empty: to none."""
    folded = fold(address)
    sql = "SELECT address, account FROM outbox_sender WHERE address IN (?, ?)"
    found = dict(rows(connection, sql, folded, wildcard(folded)))
    return str(found.get(folded) or found.get(wildcard(folded), ""))


def rows(connection: Connection, sql: str, *values: object) -> list[Any]:
    """What a statement returns. ``?`` stands for a value with every driver."""
    driver, plain = driver_for(connection)
    cursor = plain.cursor()
    try:
        cursor.execute(sql.replace("?", driver.dialect.marker), values)
        return list(cursor.fetchall())
    finally:
        cursor.close()


def commit(url: str, mail: Mail, *, source: str, patience: float = 10.0) -> int | None:
    """Enqueue `mail` in a transaction of its own, which is committed when this returns. Its id, or None when its
    dedup_key is there already. Raises DatabaseError.
    """
    with connected(url, patience=patience) as connection:
        return enqueue(connection, mail, source=source)


@contextmanager
def _sqlite(url: str, patience: float) -> Iterator[Any]:
    import sqlite3

    path = unquote(url.partition(":///")[2]) if "://" in url else url
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    if ":" in path[:3]:  # a drive of Windows
        quoted = f"/{quoted}"
    connection: sqlite3.Connection | None = None
    try:
        # mode=rw: a path that is wrong is not a new and empty database.
        connection = sqlite3.connect(f"file:{quoted}?mode=rw", uri=True, timeout=patience, isolation_level=None)
        connection.execute("PRAGMA foreign_keys = ON").close()
        connection.execute("PRAGMA synchronous = FULL").close()
        yield connection
    except sqlite3.IntegrityError as error:
        raise InvalidMail("message", f"the database refuses it: {error}") from error
    except sqlite3.Error as error:
        raise DatabaseError(f"{path}: {error}") from error
    finally:
        if connection is not None:
            connection.close()


@contextmanager
def _postgres(url: str, patience: float) -> Iterator[Any]:
    try:
        import psycopg
    except ImportError:
        raise DatabaseError("PostgreSQL needs the psycopg driver", hint='pip install "mail-outbox[postgres]"') from None
    scheme, _, rest = url.partition("://")
    connection: psycopg.Connection[Any] | None = None
    try:
        plain = f"{scheme.partition('+')[0]}://{rest}"
        seconds = max(2, int(patience))
        connection = psycopg.connect(plain, connect_timeout=seconds, tcp_user_timeout=seconds * 1000, autocommit=True)
        connection.execute(f"SET lock_timeout = {int(patience * 1000)}")
        yield connection
    except (psycopg.IntegrityError, psycopg.DataError) as error:
        raise InvalidMail("message", f"the database refuses it: {str(error).strip()}") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refused(f"PostgreSQL: {str(error).strip()}", hint="docs/operate.md says which roles there are") from None
    except psycopg.Error as error:
        # Of a connection that fails, libpq's own words may have the URL in them, and with it the password.
        said = str(error).strip() if connection is not None else "it cannot be reached"
        raise DatabaseError(f"PostgreSQL: {said}") from None
    finally:
        if connection is not None:
            connection.close()
