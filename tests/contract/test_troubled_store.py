"""A database that is unwell, while it is used: what passes, what is damage, and what is undone."""

from __future__ import annotations

import os
import sqlite3 as standard
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import peewee
import psycopg
import pytest

from outbox.clock import Clock
from outbox.errors import DatabaseError, InvalidMessage, UnusableDatabase
from outbox.store import Store, TransientError, engine, health, open_store, postgres
from outbox.store.database import connect, dialect
from outbox.store.fields import UtcDateTimeField
from outbox.store.identity import LOG_TOO_LARGE, OpenFile
from outbox.store.presence import FilePresence, absent
from outbox.store.rows import as_bytes, moment
from tests.contract.stores import ME, OTHER, SHOP, claim
from tests.statements import run

# -- a store


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[Any]:
    found: Any = open_store(sqlite_url, Clock())
    found.open()
    yield found
    found.close()


def test_a_file_that_is_replaced_while_it_is_opened_is_not_used(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Any = open_store(sqlite_url, Clock())
    monkeypatch.setattr(OpenFile, "settle", lambda _: False)
    with pytest.raises(TransientError, match="was replaced while it was opened") as raised:
        found.open()
    assert (raised.value.reconnect, found.is_open) == (True, False)


def test_a_file_that_was_not_there_before_it_was_opened_is_another(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    file = OpenFile(str(path))
    path.touch()
    assert not file.settle()
    assert OpenFile(str(path)).settle()


def test_nothing_is_read_or_committed_where_the_file_was_renamed(sqlite_store: Any, sqlite_url: str) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    path.rename(path.with_suffix(".old"))
    for place in (sqlite_store.reading, sqlite_store.transaction):
        with pytest.raises(TransientError, match="renamed, deleted or replaced") as raised, place():
            pass
        assert raised.value.reconnect
        assert not sqlite_store.db.connection().in_transaction
    path.with_suffix(".old").rename(path)
    with sqlite_store.transaction():
        pass


def test_a_transaction_that_sqlite_has_ended_itself_is_not_ended_again(sqlite_store: Any) -> None:
    def fill_the_disk() -> None:
        sqlite_store.db.connection().execute("ROLLBACK")
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"), sqlite_store.transaction():
        fill_the_disk()
    with sqlite_store.transaction():
        pass


def test_a_cursor_that_fails_is_asked_anew(sqlite_store: Any) -> None:
    before = sqlite_store.changes()
    sqlite_store._looking.close()
    assert sqlite_store.changes() == before
    sqlite_store.close()
    with pytest.raises(TransientError, match="not connected") as raised:
        sqlite_store.changes()
    assert raised.value.reconnect
    assert sqlite_store.log_has_grown() == 0


@pytest.mark.parametrize(
    ("code", "reconnect", "grave"),
    [
        (standard.SQLITE_BUSY, False, False),
        (standard.SQLITE_BUSY_SNAPSHOT, False, False),
        (standard.SQLITE_LOCKED, False, False),
        (standard.SQLITE_FULL, False, True),
        (standard.SQLITE_NOMEM, False, True),
        (standard.SQLITE_IOERR, True, True),
        (standard.SQLITE_IOERR_WRITE, True, True),
        (standard.SQLITE_CANTOPEN, True, True),
        (standard.SQLITE_PROTOCOL, True, True),
        (standard.SQLITE_READONLY, True, True),
    ],
)
def test_which_errors_of_sqlite_pass(sqlite_store: Any, code: int, reconnect: bool, grave: bool) -> None:
    error = engine.sqlite3.OperationalError("refused")
    error.sqlite_errorcode = code
    with pytest.raises(TransientError, match="refused") as raised, sqlite_store.reading():
        raise error
    assert (raised.value.reconnect, raised.value.grave) == (reconnect, grave)


@pytest.mark.parametrize("code", [standard.SQLITE_CORRUPT, standard.SQLITE_CORRUPT_INDEX, standard.SQLITE_NOTADB])
def test_damage_is_told_as_damage(sqlite_store: Any, code: int) -> None:
    error = engine.sqlite3.DatabaseError("malformed")
    error.sqlite_errorcode = code
    with pytest.raises(UnusableDatabase, match="the database is damaged: malformed") as raised, sqlite_store.reading():
        raise error
    assert "backup" in raised.value.hint


@pytest.mark.parametrize("error", [engine.sqlite3.IntegrityError("ours"), peewee.IntegrityError("ours")])
def test_an_error_of_ours_is_raised_as_it_is(sqlite_store: Any, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, sqlite_store.reading():
        raise error
    assert raised.value is error


def test_a_database_without_tables_is_none(empty_url: str) -> None:
    connect(empty_url).close()
    with (
        closing(open_store(empty_url, Clock())) as found,
        pytest.raises(DatabaseError, match="has no tables of Outbox"),
    ):
        found.open()


def test_another_database_in_its_place_is_not_served(store: Store, database: peewee.Database) -> None:
    uuid = store.database_uuid
    store.close()
    run(database, "UPDATE outbox_meta SET value = 'another' WHERE key = 'database_uuid'")
    with pytest.raises(UnusableDatabase, match=f"this is database another, and the one .* is {uuid}"):
        store.open()
    assert not store.is_open  # type: ignore[attr-defined]
    run(database, "DELETE FROM outbox_meta WHERE key = 'database_uuid'")
    with pytest.raises(UnusableDatabase, match="this is database ,"):
        store.open()
    run(database, "INSERT INTO outbox_meta (key, value) VALUES ('database_uuid', ?)", uuid)
    store.open()


@pytest.mark.parametrize("pooled", [True, False])
def test_behind_a_pooler_nothing_is_set_or_prepared(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, pooled: bool
) -> None:
    if pooled:
        monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", property(lambda _: 1))
    with closing(open_store(postgres_url, Clock())) as found:
        found.open()
        connection = found.db.connection()
        assert (connection.prepare_threshold is None) is pooled
        assert connection.execute("SHOW enable_seqscan").fetchone() == ("on" if pooled else "off",)


def test_how_long_a_transaction_may_last_is_set_where_the_server_knows_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_LONGEST", "SET statement_timeout = '61s'")
    for first, expected in ((170000, "61s"), (990000, "0")):
        monkeypatch.setattr(postgres, "_HAS_LONGEST", first)
        with closing(open_store(postgres_url, Clock())) as found:
            found.open()
            if found.db.connection().info.server_version >= 170000:
                said = found.db.connection().execute("SHOW statement_timeout").fetchone()[0]
                assert said.replace("1min 1s", "61s") == expected


# -- what a row holds


def test_what_is_no_utf8_is_told_with_its_column(store: Store, database: peewee.Database) -> None:
    if dialect(database) == "postgres":
        pytest.skip("PostgreSQL takes none")
    columns = "sender, recipients, text_body, subject"
    run(database, f"INSERT INTO outbox ({columns}) VALUES (?, 'ann@example.net', 'x', CAST(x'ff' AS TEXT))", SHOP)
    content = store.content(claim(store)[0])
    assert isinstance(content.message, InvalidMessage)
    assert "subject" in str(content.message)


def test_another_error_of_a_row_is_no_matter_of_its_message(sqlite_store: Any) -> None:
    with pytest.raises(engine.sqlite3.OperationalError, match="no such column"):
        sqlite_store._rows_of_one_message("SELECT colour FROM outbox WHERE id = ?", 1)


def test_moments_and_bytes_are_read_however_they_were_written() -> None:
    there = datetime(2026, 3, 1, 17, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert moment(there) == moment(datetime(2026, 3, 1, 12, tzinfo=UTC)) == "2026-03-01T12:00:00.000Z"
    field = UtcDateTimeField()
    assert field.python_value("2026-03-01 12:00") == field.python_value(there) == there
    assert field.python_value("2026-03-01 12:00").tzinfo is UTC  # type: ignore[union-attr]
    assert (as_bytes("\udcff\u00e9"), as_bytes(memoryview(b"x")), as_bytes(None)) == (b"\xff\xc3\xa9", b"x", b"")


# -- the log, and the locks beside the file


def test_a_log_is_told_of_when_it_is_large_and_again_when_it_has_doubled(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    log, file = tmp_path / "x.db-wal", OpenFile(str(path))
    assert (file.log_size(), file.has_grown()) == (0, 0)
    log.touch()

    def told(size: int) -> int:
        os.truncate(log, size)
        assert file.log_size() == size
        return file.has_grown()

    large = LOG_TOO_LARGE
    sizes = [large - 1, large, large + 1, 2 * large - 1, 2 * large, 3 * large, large - 1, large]
    assert [told(size) for size in sizes] == [0, large, 0, 0, 2 * large, 0, 0, large]
    assert large == 64 * 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


def lock_file(path: Path, runner: str) -> Path:
    return path.with_name(f"shop.db.runner-{runner}")


def test_who_lives_holds_a_lock_and_who_is_gone_does_not(path: Path) -> None:
    here = FilePresence(path)
    here.take(ME)
    lock_file(path, OTHER).touch()
    assert absent(path, [ME, OTHER, "c" * 32]) == [OTHER]  # of the third nothing is known
    with pytest.raises(RuntimeError, match=f"another process holds the lock of runner {ME}"):
        FilePresence(path).take(ME)
    here.sweep([OTHER, "c" * 32])
    assert not lock_file(path, OTHER).exists()
    assert absent(path, [ME]) == []
    here.release()


@pytest.mark.parametrize("platform", ["linux", "win32"])
@pytest.mark.parametrize("departed", [True, False])
def test_who_leaves_lets_go_of_its_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, departed: bool
) -> None:
    here = FilePresence(path)
    here.release()  # nothing was taken
    here.take(ME)
    monkeypatch.setattr(sys, "platform", platform)
    here.release(departed=departed)
    monkeypatch.undo()
    assert lock_file(path, ME).exists() is not departed
    assert absent(path, [ME]) == ([] if departed else [ME])
    here.release()
    here.take(ME)
    lock_file(path, ME).unlink()
    here.release()  # somebody has swept it


def test_seen_twice_who_is_absent(store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Callable[[], list[str]]] = [lambda: [ME, OTHER], lambda: [OTHER]]
    monkeypatch.setattr(type(store), "absent", lambda _, runners: answers.pop(0)())
    assert health.absent(database_url, Clock(), [ME, OTHER]) == [OTHER]
    assert answers == []


def test_a_database_that_does_not_answer_proves_nobody_dead(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: object, runners: object) -> list[str]:
        raise TransientError("gone")

    monkeypatch.setattr(type(store), "absent", lost)
    assert health.absent(database_url, Clock(), [ME]) == []
    assert health.absent(database_url, Clock(), []) == []
