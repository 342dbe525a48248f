"""Bringing a database's tables up to date: plain SQL files, numbered alike for both dialects, forward only.

Every file runs in one transaction together with its row in `outbox_meta`, under a lock that all migrators share, so
that any number of them may start at once. The files are `schema/sqlite` and `schema/postgres`, `outbox/_schema` in a
wheel.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import peewee

from outbox.errors import DatabaseError, SchemaError
from outbox.store.database import Dialect, dialect
from outbox.store.engine import sqlite3

_LOCK_PATIENCE = 30.0  # seconds to wait for another migrator on SQLite
_ADVISORY_LOCK = 0x6F7574626F78  # "outbox": one number for every migrator of a PostgreSQL database
POSTGRES_LOCK = f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"
"""For whoever runs `statements` in a transaction of their own, before they look at the version."""

_RECORD: dict[Dialect, tuple[str, ...]] = {
    "sqlite": (
        "INSERT OR IGNORE INTO outbox_meta (key, value) VALUES ('database_uuid', lower(hex(randomblob(4)) || '-' ||"
        " hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) || '-'"
        " || hex(randomblob(6))))",
        "INSERT OR REPLACE INTO outbox_meta (key, value) VALUES ('schema_version', '{number}')",
    ),
    "postgres": (
        "INSERT INTO outbox_meta (key, value) VALUES ('database_uuid', gen_random_uuid()::text) ON CONFLICT DO NOTHING",
        "INSERT INTO outbox_meta (key, value) VALUES ('schema_version', '{number}')"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    ),
}
_CREATE_OR_DROP = re.compile(
    r"^\s*(CREATE|DROP)\s+(?:OR\s+REPLACE\s+)?(?:UNIQUE\s+)?(TABLE|INDEX|TRIGGER|VIEW|FUNCTION)\s+(\w+)",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file of a dialect."""

    number: int
    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """How far a database is. `version` 0: no tables of ours. `pending`: numbers that `apply` would apply."""

    dialect: Dialect
    version: int
    latest: int
    pending: tuple[int, ...]
    database_uuid: str | None


@contextmanager
def _in_our_words() -> Iterator[None]:
    """What the database complains of, as DatabaseError."""
    try:
        yield
    except (peewee.PeeweeException, sqlite3.Error) as error:
        raise DatabaseError(f"the database refused: {' '.join(str(error).split())}") from error


@_in_our_words()
def apply(database: peewee.Database) -> list[int]:
    """Apply the migrations that are missing; return their numbers, [] when there was nothing to do.

    Safe to call from any number of processes at once. Raises SchemaError when the tables are newer than this program,
    when a table named `outbox…` is already there and not ours, or when a right is missing.
    """
    applied: list[int] = []
    for migration in migrations(dialect(database)):
        with _exclusive(database):
            version = _version(database)
            _refuse_newer(version, latest(dialect(database)))
            if version >= migration.number:
                continue
            try:
                _run(database, migration)
            except (peewee.PeeweeException, sqlite3.Error) as error:
                raise SchemaError(
                    f"migration {migration.number:04} ({migration.name}) failed: {' '.join(str(error).split())}",
                    hint=_failure_hint(str(error)),
                ) from error
        applied.append(migration.number)
    return applied


@_in_our_words()
def status(database: peewee.Database) -> SchemaStatus:
    """How far this database is. Changes nothing; raises nothing for tables that are missing or newer."""
    numbers = [migration.number for migration in migrations(dialect(database))]
    version = _version(database)
    uuid = _meta(database, "database_uuid") if version else None
    return SchemaStatus(dialect(database), version, numbers[-1], tuple(n for n in numbers if n > version), uuid)


@_in_our_words()
def check(database: peewee.Database) -> None:
    """Make sure that the tables are those of this program. Raises SchemaError when they are missing, older or newer, or
    lack a table, index, trigger, view or function, which it names.
    """
    now = status(database)
    if now.version == 0:
        raise SchemaError("the database has no tables of Outbox", hint="outbox schema apply")
    _refuse_newer(now.version, now.latest)
    if now.pending:
        raise SchemaError(
            f"the tables are at version {now.version}, this program needs {now.latest}", hint="outbox schema apply"
        )
    missing = sorted(_expected(now.dialect) - _present(database))
    if missing:
        names = ", ".join(f"{kind} {name}" for kind, name in missing)
        raise SchemaError(
            f"the schema is at version {now.version} but lacks: {names}",
            hint="somebody dropped them; create them again from: outbox schema show --dialect " + now.dialect,
        )


def show(which: Dialect) -> str:
    """All migrations of a dialect as one SQL script, for `sqlite3`, `psql` or another migration program to run.

    It leaves the database exactly as `apply` does; it is for an empty one.
    """
    parts = []
    for migration in migrations(which):
        record = ";\n".join(line.format(number=migration.number) for line in _RECORD[which])
        parts.append(f"BEGIN;\n\n{migration.sql.strip()}\n\n{record};\n\nCOMMIT;\n")
    return "\n".join(parts)


def statements(which: Dialect, after: int = 0) -> list[str]:
    """What brings tables of version `after` up to date, for another migration program to execute one by one, without
    parameters, in one transaction. On PostgreSQL some of them are several.
    """
    found: list[str] = []
    for migration in migrations(which):
        if migration.number > after:
            found += _statements(migration.sql) if which == "sqlite" else [migration.sql]
            found += [line.format(number=migration.number) for line in _RECORD[which]]
    return found


@cache
def migrations(which: Dialect) -> tuple[Migration, ...]:
    """The numbered files of a dialect, in order."""
    found = []
    for file in _folder().joinpath(which).iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.number))


def latest(which: Dialect) -> int:
    """The number of the newest migration: the schema version this program needs."""
    return migrations(which)[-1].number


def roles_sql() -> str:
    """The grants for PostgreSQL's roles outbox_app, outbox_runner and outbox_auditor (`schema/postgres/roles.sql`)."""
    return _folder().joinpath("postgres", "roles.sql").read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------- inside


def _folder() -> Traversable:
    installed = resources.files("outbox").joinpath("_schema")
    if installed.is_dir():
        return installed
    return Path(__file__).resolve().parents[2] / "schema"  # an editable install: the checkout


@contextmanager
def _exclusive(database: peewee.Database) -> Iterator[None]:
    """A transaction that no other migrator is in."""
    if dialect(database) == "postgres":
        with database.atomic():
            database.execute_sql("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
            yield
        return
    _begin_immediate(database)
    try:
        yield
    except BaseException:
        database.connection().execute("ROLLBACK")
        raise
    database.connection().execute("COMMIT")


def _begin_immediate(database: peewee.Database) -> None:
    """BEGIN IMMEDIATE, with patience: SQLite's own busy handler may starve one of many."""
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            database.connection().execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" in str(error) and time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            raise SchemaError(f"cannot begin: {error}", hint="another program holds the database") from error
        return


def _run(database: peewee.Database, migration: Migration) -> None:
    """Execute one file and record it, in the open transaction."""
    connection = database.connection()
    record = [line.format(number=migration.number) for line in _RECORD[dialect(database)]]
    if dialect(database) == "sqlite":
        # executescript() would commit first.
        for statement in [*_statements(migration.sql), *record]:
            connection.execute(statement)
        return
    schema = connection.execute("SELECT current_schema()").fetchone()[0]
    if schema is None:
        raise SchemaError("no schema on the search_path exists", hint="CREATE SCHEMA it first")
    try:
        connection.execute(";\n".join([migration.sql.strip().rstrip(";"), *record]))
    except Exception as error:  # psycopg's own class; peewee's wrapper is for its own cursor
        raise peewee.DatabaseError(str(error)) from error


def _statements(script: str) -> Iterator[str]:
    """The statements of a SQLite script; a trigger's body stays whole."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _version(database: peewee.Database) -> int:
    if "outbox_meta" not in database.get_tables():
        return 0
    return int(_meta(database, "schema_version") or 0)


def _meta(database: peewee.Database, key: str) -> str | None:
    row = database.execute_sql(f"SELECT value FROM outbox_meta WHERE key = '{key}'").fetchone()
    return None if row is None else str(row[0])


def _refuse_newer(version: int, known: int) -> None:
    if version > known:
        raise SchemaError(
            f"the tables are at version {version}, newer than this program understands ({known})",
            hint='pip install --upgrade "mail-outbox"',
        )


def _failure_hint(reason: str) -> str:
    if "already exists" in reason:
        return "a table of that name is already there and is not ours; use a schema or a file of its own"
    if "permission denied" in reason:
        return "apply the schema as a role that may CREATE in it"
    return ""


def _expected(which: Dialect) -> set[tuple[str, str]]:
    """What the files create and do not drop again, in their order."""
    expected: set[tuple[str, str]] = set()
    for migration in migrations(which):
        for verb, kind, name in _CREATE_OR_DROP.findall(migration.sql):
            (expected.add if verb.upper() == "CREATE" else expected.discard)((kind.lower(), name.lower()))
    return expected


def _present(database: peewee.Database) -> set[tuple[str, str]]:
    if dialect(database) == "sqlite":
        query = "SELECT type, name FROM sqlite_master"
    else:
        query = """
            WITH here AS (SELECT quote_ident(current_schema())::regnamespace AS oid)
            SELECT CASE WHEN relkind = 'v' THEN 'view' WHEN relkind IN ('i', 'I') THEN 'index' ELSE 'table' END, relname
            FROM pg_class JOIN here ON here.oid = relnamespace
            UNION ALL SELECT 'function', proname FROM pg_proc JOIN here ON here.oid = pronamespace
            UNION ALL SELECT 'trigger', tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
            JOIN here ON here.oid = relnamespace WHERE NOT tgisinternal"""
    return {(str(kind), str(name).lower()) for kind, name in database.execute_sql(query).fetchall()}
