"""The log handler: what is logged is mailed, at once and then rarely, whatever the application's transaction does."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from outbox.doors.logging import WAITING, OutboxHandler
from outbox.errors import InvalidMail
from outbox.store.database import connect
from tests.running import eventually


def rows(url: str) -> list[Any]:
    db = connect(url)
    found = list(db.execute_sql("SELECT subject, text_body, source FROM outbox ORDER BY id").fetchall())
    db.close()
    return found


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.Logger("shop.orders")  # of nobody's family: pytest listens to all others
    yield logger
    for each in list(logger.handlers):
        logger.removeHandler(each)
        each.close()


def handler(url: str, every: float = 3600) -> OutboxHandler:
    return OutboxHandler(
        url, sender="ops@example.com", to="ann@example.com", subject="[shop]", every=timedelta(seconds=every)
    )


def test_the_first_line_is_mailed_at_once(database_url: str, log: logging.Logger) -> None:
    log.addHandler(handler(database_url))
    log.error("order %d: the printer\nis on fire", 7)
    (row,) = eventually(lambda: rows(database_url), "the mail of the line")
    assert row == ("[shop] order 7: the printer", "order 7: the printer\nis on fire", "logging")


def test_what_follows_is_counted_and_comes_together(sqlite_url: str, log: logging.Logger) -> None:
    hung = handler(sqlite_url)
    log.addHandler(hung)
    log.error("first")
    eventually(lambda: rows(sqlite_url), "the first mail")
    for number in range(37):
        log.error("order %d failed", number)
    log.warning("and this")
    assert len(rows(sqlite_url)) == 1
    hung.close()
    subject, text, _ = rows(sqlite_url)[1]
    assert subject == "[shop] order 0 failed (and 1 more)"
    assert text == "order 0 failed\n(37 times)\n\nand this"


def test_a_rolled_back_transaction_is_heard_of(sqlite_url: str, log: logging.Logger) -> None:
    hung = handler(sqlite_url)
    log.addHandler(hung)
    application = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    application.execute("BEGIN IMMEDIATE")
    log.error("it goes wrong")
    application.execute("ROLLBACK")
    application.close()
    eventually(lambda: rows(sqlite_url), "the mail of the line")


def test_our_own_lines_are_not_mailed(sqlite_url: str, log: logging.Logger) -> None:
    hung = handler(sqlite_url)
    hung.emit(logging.makeLogRecord({"name": "outbox.runner", "msg": "x"}))
    hung.emit(logging.makeLogRecord({"name": "outboxes", "msg": "y"}))
    hung.close()
    assert [subject for subject, _, _ in rows(sqlite_url)] == ["[shop] y"]


def test_what_cannot_be_formatted_or_written_raises_nothing(
    tmp_path: Path, log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    hung = handler(f"sqlite:///{tmp_path}/nowhere.db")
    log.addHandler(hung)
    log.error("%d", "x")
    log.error("written nowhere")
    hung.close()
    said = capsys.readouterr().err
    assert "the mail of a log was not written" in said
    assert "nowhere.db" in said


def test_so_many_lines_are_kept_and_no_more(sqlite_url: str, log: logging.Logger) -> None:
    hung = handler(sqlite_url)
    log.addHandler(hung)
    log.error("first")
    eventually(lambda: rows(sqlite_url), "the first mail")
    for number in range(WAITING + 3):
        log.error(f"line {number}")
    hung.close()
    assert "(3 other lines were not kept)" in rows(sqlite_url)[1][1]


def test_odd_characters_are_mailed_as_text(sqlite_url: str, log: logging.Logger) -> None:
    hung = handler(sqlite_url)
    log.addHandler(hung)
    log.error("nul \0 and \udcff and \x1b[31m")
    hung.close()
    assert len(rows(sqlite_url)) == 1


def test_a_wrong_sender_is_said_when_it_is_made(sqlite_url: str) -> None:
    with pytest.raises(InvalidMail, match="sender"):
        OutboxHandler(sqlite_url, sender="nobody", to="ann@example.com")
