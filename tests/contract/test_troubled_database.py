"""A database that is unwell, as it is opened: which words are said of it."""

from __future__ import annotations

import os
import sqlite3 as standard
import threading
import time
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import peewee
import psycopg
import pytest

from outbox.errors import DatabaseError, SchemaError
from outbox.store import database, engine, health
from outbox.store.database import connect, dialect
from outbox.store.migrate import apply, check, latest, roles_sql, statements, status
from outbox.store.opened import opened, refusals
from tests.running import eventually
from tests.statements import run

# -- opening


def test_a_library_that_is_too_old_is_said(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(DatabaseError, match="is too old") as raised:
        connect(sqlite_url)
    assert "3.35" in raised.value.hint
    monkeypatch.setattr(engine.sqlite3, "sqlite_version_info", (3, 35, 0))
    connect(sqlite_url).close()


def test_a_server_that_is_too_old_is_said_and_left(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_OLDEST_POSTGRES", 990000)
    with pytest.raises(DatabaseError, match=r"PostgreSQL \d\d is too old") as raised:
        connect(postgres_url, application_name="outbox too old")
    assert raised.value.hint == "version 14 or later is needed"
    monkeypatch.undo()
    with closing(connect(postgres_url)) as watching:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'outbox too old'"
        for _ in range(200):
            if run(watching, sql).fetchone() == (0,):
                break
            time.sleep(0.01)
        assert run(watching, sql).fetchone() == (0,)


def test_a_connection_that_cannot_be_set_to_utc_is_closed(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[psycopg.Connection[Any]] = []
    execute = psycopg.Connection.execute

    def refuse(connection: psycopg.Connection[Any], sql: str, *rest: Any, **options: Any) -> Any:
        if sql.startswith("SET TIME ZONE"):
            made.append(connection)
            raise psycopg.OperationalError("refused")
        return execute(connection, sql, *rest, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", refuse)
    with pytest.raises(DatabaseError, match="refused"):
        connect(postgres_url)
    assert [each.closed for each in made] == [True]


def test_a_database_in_memory_needs_no_file() -> None:
    with closing(connect(":memory:")) as found:
        assert found.execute_sql("SELECT 1").fetchone() == (1,)


PRAGMAS = {"synchronous": 2, "foreign_keys": 1, "cache_size": -16000, "journal_size_limit": 16 * 1024 * 1024}


def test_a_connection_has_its_pragmas(sqlite_url: str) -> None:
    with closing(connect(sqlite_url, timeout=0.25)) as found:
        said = {name: found.execute_sql(f"PRAGMA {name}").fetchone()[0] for name in (*PRAGMAS, "busy_timeout")}
    assert said == {**PRAGMAS, "busy_timeout": 250}


def test_of_a_folder_that_may_not_be_read_the_permission_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shop.db"

    def refused(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(DatabaseError, match="permission denied") as raised:
        connect(str(path))
    monkeypatch.undo()
    assert "the runner and the application must both be able to write" in raised.value.hint


@pytest.mark.parametrize("exists", [True, False])
def test_a_file_or_folder_that_may_not_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    """Whoever runs the tests as root may do everything, so it is asked what is asked."""
    path, asked = tmp_path / "shop.db", list[tuple[str, int]]()
    if exists:
        path.touch()

    def may(what: os.PathLike[str], mode: int) -> bool:
        asked.append((os.fspath(what), mode))
        return False

    monkeypatch.setattr(os, "access", may)
    with pytest.raises(DatabaseError, match="permission denied"):
        connect(str(path))
    monkeypatch.undo()
    assert asked == [(str(path), os.R_OK | os.W_OK) if exists else (str(tmp_path), os.W_OK | os.X_OK)]


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("file is not a database", "name another file, or restore it from a backup"),
        ("database disk image is malformed", "name another file, or restore it from a backup"),
        ("database is locked", "another program holds it; end that program's transaction"),
        ("attempt to write a readonly database", "the file and its directory must be writable"),
        ("unable to open database file", "the file and its directory must be writable"),
        ("disk I/O error", ""),
    ],
)
def test_what_sqlite_says_on_opening_has_its_hint(reason: str, hint: str) -> None:
    error = database._sqlite_error("shop.db", peewee.OperationalError(reason))
    assert (str(error), error.hint) == (f"cannot open 'shop.db': {reason}", hint)


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ('role "ann" does not exist', "name an existing role as the user"),
        ('database "shop" does not exist', "createdb"),
        ('password authentication failed for user "ann"', "check the user and password"),
        ("fe_sendauth: no password supplied", "check the user and password"),
        ("connection refused", "is the server running"),
        ('schema "shop" does not exist', "is the server running"),
    ],
)
def test_what_postgresql_says_on_opening_has_its_hint(reason: str, hint: str) -> None:
    error = database._postgres_error("postgresql://ann:pencil@h/shop", "pencil", Exception(f"{reason}:\n pencil"))
    assert str(error) == f"cannot reach postgresql://ann:***@h/shop: {reason}: ***"
    assert error.hint.startswith(hint)


def test_whoever_meets_another_who_turns_wal_on_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then SQLite says that the file is locked, and does not wait."""
    connecting, pauses, refusals = peewee.SqliteDatabase.connect, list[float](), ["locked", "locked", "busy"]

    def refuse(db: peewee.SqliteDatabase, **options: Any) -> Any:
        connecting(db, **options)
        if refusals:
            raise peewee.OperationalError(f"database is {refusals.pop(0)}")

    monkeypatch.setattr(peewee.SqliteDatabase, "connect", refuse)
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(DatabaseError, match="database is busy"):
        connect(str(tmp_path / "new.db"))
    assert pauses == [0.01, 0.01]
    refusals += ["locked"] * 2
    with pytest.raises(DatabaseError, match="database is locked"):
        connect(str(tmp_path / "new.db"), timeout=0.0)
    assert refusals == ["locked"]


def test_whoever_migrates_while_the_file_is_locked_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own waiting may starve one of many."""
    path, pauses = tmp_path / "new.db", list[float]()

    def let_go(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            holder.execute("ROLLBACK")

    with closing(connect(str(path), timeout=0.0)) as found, closing(standard.connect(path)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(time, "sleep", let_go)
        assert apply(found)[-1] == latest("sqlite")
        monkeypatch.undo()
        assert found.execute_sql("PRAGMA journal_mode").fetchone() == ("wal",)
    assert pauses == [0.01, 0.01]


def test_a_file_that_stays_locked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new.db"
    with closing(standard.connect(path, isolation_level=None)) as holder, closing(connect(str(path), timeout=0)) as db:
        holder.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr("outbox.store.migrate._LOCK_PATIENCE", 0.0)
        assert "locked" in health.unwritable(db)
        with pytest.raises(SchemaError, match="cannot begin: database is locked") as raised:
            apply(db)
        assert raised.value.hint == "another program holds the database"
        holder.execute("ROLLBACK")
        assert health.unwritable(db) == ""
        assert not db.connection().in_transaction


# -- the schema, by another migration program


def test_the_statements_of_the_schema_do_what_apply_does(empty_url: str) -> None:
    db = connect(empty_url)
    which = dialect(db)
    with db.atomic():
        for each in statements(which):
            db.connection().execute(each)
    check(db)
    assert (status(db).version, status(db).pending) == (latest(which), ())
    assert apply(db) == []
    db.close()


@pytest.mark.parametrize("which", ["sqlite", "postgres"])
def test_only_the_statements_that_are_missing(which: Any) -> None:
    assert statements(which, latest(which)) == []
    last = statements(which, latest(which) - 1)
    assert statements(which)[-len(last) :] == last
    assert f"'{latest(which)}'" in last[-1]
    assert f"'{latest(which) - 1}'" not in "".join(last)


def test_in_a_wheel_the_schema_is_beside_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_schema" / "postgres").mkdir(parents=True)
    (tmp_path / "_schema" / "postgres" / "roles.sql").write_text("-- of the wheel")
    assert roles_sql() != "-- of the wheel"
    monkeypatch.setattr(resources, "files", lambda package: tmp_path if package == "outbox" else None)
    assert roles_sql() == "-- of the wheel"


# -- in our words


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("permission denied for table outbox\nDETAIL: secret", "this needs the role outbox_runner"),
        ("database disk image is malformed", "the file is damaged"),
        ("syntax error", ""),
    ],
)
def test_what_a_database_refuses_is_told_in_one_line(reason: str, hint: str) -> None:
    with pytest.raises(DatabaseError) as raised, refusals():
        raise peewee.OperationalError(reason)
    assert str(raised.value) == f"the database refused: {reason.partition(chr(10))[0]}"
    assert raised.value.hint.startswith(hint)
    assert bool(raised.value.hint) == bool(hint)


def test_a_database_is_closed_at_the_end_of_a_command(sqlite_url: str) -> None:
    with opened(sqlite_url) as db:
        assert not db.is_closed()
    assert db.is_closed()


def test_a_file_of_ours_is_put_into_wal_and_nobody_elses(tmp_path: Path) -> None:
    for name, tables, ours in (("ours", ("a", "outbox_meta", "z"), True), ("theirs", ("a", "outbox"), False)):
        path = tmp_path / f"{name}.db"
        with closing(standard.connect(path)) as made:
            for each in tables:
                made.execute(f"CREATE TABLE {each} (x)")
        for create in (False, True):
            with closing(connect(str(path), create=create)) as found:
                assert found.execute_sql("PRAGMA journal_mode").fetchone() == ("wal" if ours else "delete",)
    empty = tmp_path / "empty.db"
    empty.touch()
    for create, mode in ((False, "delete"), (True, "wal")):
        with closing(connect(str(empty), create=create)) as found:
            assert found.execute_sql("PRAGMA journal_mode").fetchone() == (mode,)


def test_migrators_of_any_version_wait_for_each_other(postgres_url: str) -> None:
    """By a number that never changes, or two versions would not."""
    done: list[list[int]] = []

    def migrate() -> None:
        with closing(connect(postgres_url, application_name="outbox migrates")) as db:
            done.append(apply(db))

    with closing(connect(postgres_url)) as holder, closing(connect(postgres_url)) as watching:
        run(holder, "BEGIN")
        run(holder, "SELECT pg_advisory_xact_lock(?)", 0x6F7574626F78)
        thread = threading.Thread(target=migrate)
        thread.start()
        sql = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'outbox migrates' AND wait_event = 'advisory'"
        eventually(lambda: run(watching, sql).fetchone(), "it waits")
        assert done == []
        run(holder, "COMMIT")
        thread.join()
    assert done == [[]]
