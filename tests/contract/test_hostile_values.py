"""What SQLite hands out though the schema says otherwise, and other values that stop no lane."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import peewee
import pytest

from outbox.clock import Clock
from outbox.core.message import Attachment, Message
from outbox.core.mime import check_attachment
from outbox.core.pickup import _notify, shortened
from outbox.core.pieces import base64_lines
from outbox.core.settlement import Claim
from outbox.errors import InvalidMessage
from outbox.store import Lane, Store, open_store, sqlite
from outbox.store.engine import sqlite3
from outbox.store.rows import as_claim, as_lane, as_message

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EARLIEST, LATEST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
ROW: list[Any] = [1, "t", NOW, "a@b.example", *[None] * 13]


def with_column(place: int, value: object) -> list[Any]:
    return [*ROW[:place], value, *ROW[place + 1 :]]


@pytest.mark.parametrize("stored", ["2026-03-01T00:00:00.000Z", NOW])
def test_a_row_is_a_message(stored: object) -> None:
    message = as_message([*with_column(2, stored), b""], ())
    assert message == Message(1, "t", NOW, "a@b.example")


@pytest.mark.parametrize(
    ("value", "read"), [(b"gr\xc3\xbc\xc3\x9fe", "gr\u00fc\u00dfe"), (7, "7"), (1.5, "1.5"), (None, "")]
)
def test_a_text_that_is_none_is_read_as_one(value: object, read: str) -> None:
    assert as_message([*with_column(9, value), None], ()).subject == read


@pytest.mark.parametrize(
    ("place", "column"),
    [(3, "sender"), (4, "sender_name"), (5, "recipients"), (9, "subject"), (10, "headers"), (16, "html_body")],
)
def test_bytes_that_are_no_text_are_told_with_their_column(place: int, column: str) -> None:
    with pytest.raises(InvalidMessage, match=f"column {column} holds bytes that are not UTF-8"):
        as_message([*with_column(place, b"\xff"), None], ())


@pytest.mark.parametrize("value", ["soon", 7, None, b"x"])
def test_a_moment_that_is_none_is_told(value: object) -> None:
    with pytest.raises(InvalidMessage, match="column created_at holds what is no date"):
        as_message([*with_column(2, value), None], ())


@pytest.mark.parametrize(
    ("value", "sorts"), [("", EARLIEST), ("1969", EARLIEST), ("soon", LATEST), (7, LATEST), (b"x", LATEST)]
)
def test_a_due_time_that_is_none_is_as_early_or_late_as_it_sorts(value: object, sorts: datetime) -> None:
    assert as_lane(["a@b.example", 5, value]) == Lane("a@b.example", 5, sorts)
    row = [1, 2, "a@b.example", 5, 0, 0, 0, "retry", value, None, "2026"]
    assert as_claim(row) == ("2026", 1, Claim(1, 2, "a@b.example", expires_at=sorts))


def test_a_message_that_is_gone_says_so(store: Store) -> None:
    content = store.content(Claim(999, 1, "a@b.example"))
    assert isinstance(content.message, InvalidMessage)
    assert "has been deleted" in str(content.message)


def test_another_error_ends_the_reading_of_a_batch(sqlite_url: str) -> None:
    found: Any = open_store(sqlite_url, Clock())
    found.open()
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        list(sqlite._readable(found._cursor(), "SELECT colour FROM outbox", ()))
    found.close()


def test_a_database_that_is_busy_is_not_taken_for_one_without_tables(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute: Any = peewee.SqliteDatabase.execute_sql

    def busy(db: Any, sql: str, *rest: Any) -> Any:
        if "database_uuid" in sql:
            raise peewee.OperationalError("database is locked")
        return execute(db, sql, *rest)

    found: Any = open_store(sqlite_url, Clock())
    monkeypatch.setattr(peewee.SqliteDatabase, "execute_sql", busy)
    with pytest.raises(peewee.OperationalError, match="locked"):
        found.open()
    found.close()


@pytest.mark.parametrize("column", ["filename", "content_type", "content_id"])
def test_a_file_whose_column_is_no_text_is_refused(column: str) -> None:
    wrong: dict[str, Any] = {"filename": "a", "content": b"", column: b"x"}
    with pytest.raises(ValueError, match=f"column {column} holds bytes, and no text"):
        check_attachment(Attachment(**wrong))


def test_base64_in_lines_however_the_pieces_are_cut() -> None:
    line = b"x" * 57
    assert list(base64_lines([])) == list(base64_lines([b""])) == []
    whole = b"".join(base64_lines([line * 3]))
    assert whole.split(b"\r\n") == [b"eHh4" * 19] * 3
    assert b"".join(base64_lines([line[:1], line * 2, line[1:]])) == whole
    assert b"".join(base64_lines([line, b"y"])) == b"eHh4" * 19 + b"\r\neQ=="


def test_one_notify_for_all_of_them() -> None:
    assert _notify([]) == ""
    assert _notify(["NEVER", "never"]) == "never"
    assert _notify(["never", ""]) == ""
    assert _notify(["never", "success,Failure"]) == "failure,success"


def test_a_name_is_shortened_at_its_beginning() -> None:
    assert shortened("x" * 180) == "x" * 180
    assert shortened("x" * 181 + ".eml", 10) == "xxxxxx.eml"
    assert shortened("a\ud800b") == "a%00b"
