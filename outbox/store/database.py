"""Opening the database that an application and its runners share: a SQLite file, or PostgreSQL 14 and later."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import peewee

from outbox.errors import DatabaseError
from outbox.store.engine import sqlite3

Dialect = Literal["sqlite", "postgres"]

_SQLITE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_LOG_KEPT = 16 * 1024 * 1024  # octets to which whoever begins the write-ahead log anew cuts it
_OLDEST_SQLITE = (3, 35)  # RETURNING; the schema itself is content with 3.9
_OLDEST_POSTGRES = 140000
_URLS = "sqlite:///outbox.db, sqlite:////var/lib/app/outbox.db or postgresql://user@host/database"


def connect(
    url: str,
    *,
    timeout: float = 5.0,
    application_name: str = "outbox",
    create: bool = True,
    threads: bool = False,
) -> peewee.Database:
    """Open the database at `url` in this thread and return it, open.

    Other threads open their own connection of it with ``with database.connection_context():``, or use this one with
    `threads` (SQLite): then the caller sees to it that they do so one at a time. Nothing connects by itself
    (``autoconnect`` is off). Every connection is in autocommit; ``database.atomic()`` is BEGIN IMMEDIATE on SQLite. A
    SQLite connection has ``synchronous`` FULL (a lost *sent* would be a second copy) and foreign keys, and a file that
    is new or has our tables is put into WAL; anybody else's stays as it is. A PostgreSQL connection has its time zone
    set to UTC.

    `url` is ``sqlite:///relative.db``, ``sqlite:////absolute.db``, a path that ends in .db, .sqlite or .sqlite3, or
    ``postgresql://…`` with everything libpq understands; a driver suffix (``postgresql+psycopg://``) is ignored.
    `timeout` is how long to wait for a locked SQLite file, in seconds. `create` off refuses a SQLite file that is not
    there. Raises DatabaseError with a hint; no message ever has the password of a URL.
    """
    if dialect_of(url) == "sqlite":
        return _connect_sqlite(url, timeout=timeout, create=create, threads=threads)
    return _connect_postgres(url, application_name=application_name)


def dialect(database: peewee.Database) -> Dialect:
    """Which SQL this open database speaks."""
    return "sqlite" if isinstance(database, peewee.SqliteDatabase) else "postgres"


def dialect_of(url: str) -> Dialect:
    """Which SQL the database at `url` speaks. Raises DatabaseError for a URL that is none of ours."""
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower().partition("+")[0]
    if not separator:
        if url.endswith(_SQLITE_SUFFIXES) or url == ":memory:":
            return "sqlite"
        hint = f"write {_URLS}; a path alone ends in .db, .sqlite or .sqlite3"
        raise DatabaseError(f"{safe_url(url)!r} is not a database URL", hint=hint)
    if scheme == "sqlite":
        return "sqlite"
    if scheme in ("postgresql", "postgres"):
        return "postgres"
    reason = " (MySQL has no partial indexes, RETURNING or transactional DDL)" if scheme in ("mysql", "mariadb") else ""
    raise DatabaseError(f"databases of the kind {scheme!r} are not supported{reason}", hint=f"write {_URLS}")


def safe_url(url: str) -> str:
    """`url` with its password replaced by ``***``, for messages and logs; a malformed one loses rather more."""
    url = re.sub(r"(?<=://)([^:@/?]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"(?i)([?&\s]|^)((?:ssl)?password=)[^&\s]*", r"\1\2***", url)


def sqlite_path(url: str) -> str:
    """The file that a SQLite `url` (or bare path) names, as a path or ``:memory:``. Raises DatabaseError."""
    if "://" not in url:
        return url
    rest = url.partition("://")[2]
    if not rest.startswith("/") or rest == "/":
        raise DatabaseError(
            f"{url!r} names no file", hint="three slashes for a relative path, four for an absolute one"
        )
    if "?" in rest:
        raise DatabaseError(f"options after ? are not supported in {url!r}", hint="give the path only")
    return unquote(rest[1:])


# ---------------------------------------------------------------------------------------------------------- SQLite


def _connect_sqlite(url: str, *, timeout: float, create: bool, threads: bool) -> peewee.Database:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise DatabaseError(
            f"SQLite {sqlite3.sqlite_version} is too old", hint="use a Python that was built with SQLite 3.35 or later"
        )
    path = sqlite_path(url)
    if path != ":memory:":
        try:
            _refuse_unusable(Path(path), create=create)
        except PermissionError:  # not even its directory may be read
            raise _permission_denied(Path(path)) from None
    database = peewee.SqliteDatabase(
        path,
        pragmas=[
            ("synchronous", 2),
            ("foreign_keys", 1),
            ("cache_size", -16000),
            ("journal_size_limit", _LOG_KEPT),
        ],
        timeout=timeout,
        lock_type="IMMEDIATE",
        returning_clause=True,
        autoconnect=False,
        thread_safe=not threads,
        check_same_thread=not threads,
    )
    deadline = time.monotonic() + timeout
    while True:
        try:
            database.connect()
            if _is_ours(database, create=create):
                database.execute_sql("PRAGMA journal_mode = wal").fetchone()  # lasts: it is kept in the file
        except peewee.PeeweeException as error:
            database.close()
            # Turning WAL on needs the file alone and does not wait for it: of several who create it, all but one
            # come again.
            if "locked" in str(error) and time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            raise _sqlite_error(path, error) from error
        return database


def _is_ours(database: peewee.Database, *, create: bool) -> bool:
    """Whether the file has our tables, or is empty and about to get them. Only reading finds what is no database."""
    names = "SELECT count(*), max(name = 'outbox_meta') FROM sqlite_master"
    tables, ours = database.execute_sql(names).fetchone()
    return bool(ours) or (create and not tables)


def _refuse_unusable(path: Path, *, create: bool) -> None:
    """Say in words what SQLite calls "unable to open database file". Raises DatabaseError."""
    folder = path.parent
    if not folder.is_dir():
        raise DatabaseError(f"there is no directory {str(folder)!r} for the database", hint=f"mkdir -p {folder}")
    if path.is_dir():
        raise DatabaseError(f"{str(path)!r} is a directory, not a database", hint="name a file in it")
    if not path.exists():
        if not create:
            raise DatabaseError(f"there is no database {str(path)!r}", hint="outbox schema apply creates it")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _permission_denied(path)
    elif not os.access(path, os.R_OK | os.W_OK):
        raise _permission_denied(path)


def _permission_denied(path: Path) -> DatabaseError:
    return DatabaseError(
        f"permission denied: {str(path)!r}",
        hint="the runner and the application must both be able to write the file and its directory",
    )


def _sqlite_error(path: str, error: Exception) -> DatabaseError:
    reason = str(error)
    if "not a database" in reason or "malformed" in reason:
        hint = "name another file, or restore it from a backup"
    elif "locked" in reason:
        hint = "another program holds it; end that program's transaction"
    elif "readonly" in reason or "unable to open" in reason:
        hint = "the file and its directory must be writable"
    else:
        hint = ""
    return DatabaseError(f"cannot open {path!r}: {reason}", hint=hint)


# ------------------------------------------------------------------------------------------------------ PostgreSQL


class _Postgres(peewee.PostgresqlDatabase):
    """PostgreSQL through psycopg 3, every connection in UTC (a SET, because poolers refuse start-up options)."""

    def _connect(self) -> Any:
        connection = super()._connect()  # type: ignore[misc]  # not in peewee's stubs
        try:
            connection.execute("SET TIME ZONE 'UTC'")
        except BaseException:
            connection.close()
            raise
        return connection


def _connect_postgres(url: str, *, application_name: str) -> peewee.Database:
    parameters: dict[str, Any] = {
        "connect_timeout": "5",
        "application_name": application_name,
        # A connection that went dead without a word is noticed in a minute, not in the system's two hours.
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        **_postgres_parameters(url),
    }
    password = parameters.get("password", "")
    name = parameters.pop("dbname", "") or parameters.get("user", "") or "postgres"
    database = _Postgres(name, prefer_psycopg3=True, autoconnect=False, **parameters)
    try:
        database.connect()
    except peewee.PeeweeException as error:
        raise _postgres_error(url, password, error) from None  # the driver's error may quote the URL
    version = getattr(database, "server_version", 0)
    if version < _OLDEST_POSTGRES:
        database.close()
        raise DatabaseError(f"PostgreSQL {version // 10000} is too old", hint="version 14 or later is needed")
    return database


def _postgres_parameters(url: str) -> dict[str, str]:
    """The connection parameters in `url`, percent-decoded, by libpq's own parser. Raises DatabaseError."""
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        raise DatabaseError("PostgreSQL needs the psycopg driver", hint='pip install "mail-outbox[postgres]"') from None
    scheme, _, rest = url.partition("://")
    try:
        found = conninfo_to_dict(f"{scheme.lower().partition('+')[0]}://{rest}")
    except ProgrammingError:  # its text quotes the piece it did not understand, which may be the password
        raise _unreadable(url) from None
    parameters = {key: str(value) for key, value in found.items() if value is not None}
    # A password with a bare @ or / in it spills into these, and from them into messages.
    spilt = "@" in parameters.get("host", "") + parameters.get("dbname", "")
    if spilt or not re.fullmatch(r"[\d,]*", parameters.get("port", "")):
        raise _unreadable(url)
    return parameters


def _unreadable(url: str) -> DatabaseError:
    return DatabaseError(
        f"cannot read the URL {safe_url(url)!r}",
        hint="percent-encode reserved characters of the user, password and database: @ is %40, / is %2F, % is %25",
    )


def _postgres_error(url: str, password: str, error: Exception) -> DatabaseError:
    reason = " ".join(str(error).split())
    if password:
        reason = re.sub(rf"(?<!\w){re.escape(password)}(?!\w)", "***", reason)
    if re.search(r'role "[^"]*" does not exist', reason):
        hint = "name an existing role as the user in the URL; createuser, or CREATE ROLE … LOGIN, makes one"
    elif "does not exist" in reason and "database" in reason:
        hint = "createdb, or CREATE DATABASE, makes it"
    elif "password" in reason or "authentication" in reason:
        hint = "check the user and password in the URL, PGPASSWORD or ~/.pgpass"
    else:
        hint = "is the server running, and does it listen at that host and port?"
    return DatabaseError(f"cannot reach {safe_url(url)}: {reason}", hint=hint)
