"""Opening a database by its URL: what works, and how clearly the rest is said."""

from __future__ import annotations

import os
import re
import sys
import threading
from contextlib import closing
from pathlib import Path

import peewee
import pytest

from outbox.errors import DatabaseError
from outbox.store.database import _postgres_error, connect, dialect_of, safe_url, sqlite_path
from outbox.store.engine import sqlite3
from outbox.store.migrate import apply
from tests.statements import one, run


def test_a_sqlite_connection_is_durable_and_has_foreign_keys(sqlite_url: str) -> None:
    database = connect(sqlite_url, timeout=7)
    pragmas = {name: one(database, f"PRAGMA {name}") for name in ("journal_mode", "synchronous", "foreign_keys")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    assert one(database, "PRAGMA busy_timeout") == 7000
    database.close()


@pytest.mark.parametrize("create", [True, False])
def test_the_file_of_another_application_keeps_its_journal_mode(tmp_path: Path, *, create: bool) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as shop:
        shop.execute("CREATE TABLE orders (id INTEGER)")
    before = path.read_bytes()
    database = connect(str(path), create=create)
    assert one(database, "PRAGMA journal_mode") == "delete"
    database.close()
    assert path.read_bytes() == before


def test_a_new_file_has_wal_and_one_of_ours_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    database = connect(str(path))
    assert one(database, "PRAGMA journal_mode") == "wal"
    apply(database)
    assert one(database, "PRAGMA journal_mode = delete") == "delete"
    database.close()
    database = connect(str(path), create=False)
    assert one(database, "PRAGMA journal_mode") == "wal"
    database.close()


def test_a_sqlite_transaction_takes_the_lock_at_once(sqlite_url: str) -> None:
    first, second = connect(sqlite_url), connect(sqlite_url, timeout=0)
    with first.atomic(), pytest.raises(peewee.OperationalError, match="locked"):
        run(second, "UPDATE outbox_meta SET value = value")
    first.close()
    second.close()


def test_a_postgres_connection_is_in_utc_and_has_a_name(postgres_url: str) -> None:
    database = connect(postgres_url, application_name="outbox-test")
    assert one(database, "SHOW timezone") == "UTC"
    assert one(database, "SHOW application_name") == "outbox-test"
    assert database.connection().autocommit
    database.close()


def test_other_threads_open_their_own_connection(database_url: str) -> None:
    database = connect(database_url)
    outcomes: list[object] = []

    def read() -> None:
        try:
            database.execute_sql("SELECT 1")
        except peewee.InterfaceError as error:
            outcomes.append(error)
        with database.connection_context():
            outcomes.append(one(database, "SELECT 1"))

    reader = threading.Thread(target=read)
    reader.start()
    reader.join(30)
    assert isinstance(outcomes[0], peewee.InterfaceError)
    assert outcomes[1] == 1
    database.close()


def test_twenty_threads_may_create_the_same_file(tmp_path: Path) -> None:
    url = f"sqlite:///{(tmp_path / 'new.db').as_posix()}"
    together = threading.Barrier(20)
    modes: list[str] = []

    def create() -> None:
        together.wait(30)
        database = connect(url, timeout=30)
        modes.append(one(database, "PRAGMA journal_mode"))
        database.close()

    creators = [threading.Thread(target=create) for _ in range(20)]
    for creator in creators:
        creator.start()
    for creator in creators:
        creator.join(60)
    assert modes == ["wal"] * 20


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///outbox.db", "outbox.db"),
        ("sqlite:////var/lib/outbox.db", "/var/lib/outbox.db"),
        ("sqlite:///C:/mail/outbox.db", "C:/mail/outbox.db"),
        ("sqlite:///our%20mail.db", "our mail.db"),
        ("sqlite+aiosqlite:///outbox.db", "outbox.db"),
        ("SQLite:///outbox.db", "outbox.db"),
        ("mail/outbox.sqlite3", "mail/outbox.sqlite3"),
        ("outbox.sqlite", "outbox.sqlite"),
        (":memory:", ":memory:"),
    ],
)
def test_a_url_or_a_path_names_a_sqlite_file(url: str, path: str) -> None:
    assert dialect_of(url) == "sqlite"
    assert sqlite_path(url) == path


@pytest.mark.parametrize(
    "url", ["postgresql://h/d", "postgres://h/d", "postgresql+psycopg://h/d", "postgresql+asyncpg://h/d"]
)
def test_every_usual_spelling_of_postgres_is_understood(url: str) -> None:
    assert dialect_of(url) == "postgres"


@pytest.mark.parametrize(
    ("url", "words", "hint"),
    [
        ("mysql://u:secret@h/d", "'mysql' are not supported (MySQL has no partial indexes", "postgresql://"),
        ("oracle://u:secret@h/d", "'oracle' are not supported", "sqlite:///outbox.db"),
        ("outbox", "'outbox' is not a database URL", "sqlite:///outbox.db"),
        ("", "'' is not a database URL", "sqlite:///outbox.db"),
        ("sqlite://outbox.db", "names no file", "three slashes"),
        ("sqlite:///", "names no file", "three slashes"),
        ("sqlite:///outbox.db?mode=ro", "options after ?", "the path only"),
        ("postgresql://u:secret%zz@h/d", "cannot read the URL 'postgresql://u:***@h/d'", "percent-encode"),
        ("postgresql://u:sec/ret@h/d", "cannot read the URL", "percent-encode"),
        ("postgresql://u:sec@ret@h/d", "cannot read the URL", "percent-encode"),
        ("postgresql://u:secret@h/d?nonsense=1", "cannot read the URL", "percent-encode"),
        ("postgresql://u:secret@127.0.0.1:1/d", "cannot reach postgresql://u:***@127.0.0.1:1/d", "running"),
        ("postgresql://u@127.0.0.1:1/d?password=secret", "cannot reach postgresql://u@127.0.0.1:1/d", "running"),
        ("postgresql:///d?host=/nowhere", "cannot reach postgresql:///d", "running"),
    ],
)
def test_a_url_that_cannot_be_opened_is_said_without_its_password(url: str, words: str, hint: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        connect(url)
    assert words in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.exit_code == 4
    assert not re.search(r"secret|\bsec\b|\bret\b", f"{caught.value} {caught.value.hint}")


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("postgresql://u:secret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://:secret@h/d", "postgresql://:***@h/d"),
        ("postgresql://u:se@cr:et@h/d", "postgresql://u:***@h/d"),
        (
            "postgresql://h/d?user=u&password=secret&sslmode=require",
            "postgresql://h/d?user=u&password=***&sslmode=require",
        ),
        ("postgresql://h/d?sslpassword=secret", "postgresql://h/d?sslpassword=***"),
        ("host=h password=secret", "host=h password=***"),
        ("sqlite:///outbox.db", "sqlite:///outbox.db"),
    ],
)
def test_a_safe_url_has_no_password(url: str, safe: str) -> None:
    assert safe_url(url) == safe


def test_credentials_are_percent_decoded(postgres_url: str) -> None:
    administrator = connect(postgres_url)
    run(administrator, 'CREATE ROLE "m:üller" LOGIN')
    separator = "&" if "?" in postgres_url else "?"
    database = connect(f"{postgres_url}{separator}user=m%3A%C3%BCller&password=p%40ss%2Fword")
    try:
        assert one(database, "SELECT current_user") == "m:üller"
        assert database.connect_params["password"] == "p@ss/word"
    finally:
        database.close()
        run(administrator, 'DROP ROLE "m:üller"')
        administrator.close()


def test_a_postgres_database_that_does_not_exist_is_said(postgres_url: str) -> None:
    name = postgres_url.partition("?")[0].rsplit("/", 1)[1]
    with pytest.raises(DatabaseError, match='database "nowhere" does not exist') as caught:
        connect(postgres_url.replace(name, "nowhere"))
    assert "CREATE DATABASE" in caught.value.hint


def test_a_postgres_role_that_does_not_exist_is_not_taken_for_a_database() -> None:
    refusal = 'connection failed: FATAL:  role "nobody" does not exist in database "shop"'
    error = _postgres_error("postgresql://nobody@h/shop", "", peewee.OperationalError(refusal))
    assert "CREATE ROLE" in error.hint


def test_a_missing_driver_is_said_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DatabaseError, match="psycopg") as caught:
        connect("postgresql://h/d")
    assert caught.value.hint == 'pip install "mail-outbox[postgres]"'


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="there is no directory") as caught:
        connect(str(tmp_path / "nowhere" / "outbox.db"))
    assert "mkdir" in caught.value.hint


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").mkdir()
    with pytest.raises(DatabaseError, match="is a directory"):
        connect(str(tmp_path / "outbox.db"))


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.write_text("Dear diary, " * 1000)
    with pytest.raises(DatabaseError, match="file is not a database") as caught:
        connect(str(path))
    assert "another file" in caught.value.hint


def test_a_missing_file_is_created_only_where_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with pytest.raises(DatabaseError, match="there is no database") as caught:
        connect(str(path), create=False)
    assert caught.value.hint == "outbox schema apply creates it"
    assert not path.exists()
    connect(str(path)).close()
    assert path.exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read and write everything")
def test_a_file_without_permission_is_said(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    connect(str(path)).close()
    path.chmod(0o000)
    with pytest.raises(DatabaseError, match="permission denied") as caught:
        connect(str(path))
    assert "must both be able to write" in caught.value.hint
