"""Log lines: one line each, never a parameter of a statement."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest

from outbox.log import Status, delivery_line, set_up


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Where `set_up` logs to; what it changed is put back."""
    names = ("", "outbox", "peewee", "apscheduler", "asyncio")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    stream = io.StringIO()
    set_up(2, stream)
    yield stream
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


def test_a_sent_recipient_reads_as_it_does_in_postfix() -> None:
    line = delivery_line(
        message_id=7,
        to="ann@example.net",
        status=Status.SENT,
        delay=timedelta(seconds=3.14),
        relay="mx[192.0.2.1]:25",
        dsn="2.0.0",
        reply="250 2.0.0 queued as 4X",
    )
    assert line == (
        "id=7 to=<ann@example.net> relay=mx[192.0.2.1]:25 delay=3.1 dsn=2.0.0 status=sent (250 2.0.0 queued as 4X)"
    )


def test_what_is_not_known_is_left_out() -> None:
    line = delivery_line(message_id=7, to="a@b.example", status=Status.EXPIRED, delay=timedelta(days=2))
    assert line == "id=7 to=<a@b.example> relay=none delay=172800.0 status=expired"


def test_no_reply_or_address_can_forge_a_second_line() -> None:
    line = delivery_line(
        message_id=7,
        to="a@b.example>\nid=8 to=<x",
        status=Status.BOUNCED,
        delay=timedelta(0),
        reply="550 no\r\nid=9\x1b[31m\x85\u2028 status=sent",
    )
    assert line.splitlines() == [line]
    assert "\x1b" not in line


def test_a_record_is_one_line_with_the_moment_in_utc(logged: io.StringIO) -> None:
    logging.getLogger("outbox.runner").info("hello %s", "wor\nld\x1b[0m")
    line = logged.getvalue()
    assert line.endswith("Z INFO outbox.runner: hello wor ld [0m\n")
    assert len(line.split(" ", 1)[0]) == 24


def test_a_traceback_follows_on_lines_of_its_own(logged: io.StringIO) -> None:
    try:
        raise ZeroDivisionError("oh")
    except ZeroDivisionError:
        logging.getLogger("outbox").exception("it broke")
    assert "ERROR outbox: it broke\nTraceback" in logged.getvalue()


def test_parameters_of_statements_are_never_logged_however_verbose(logged: io.StringIO) -> None:
    logging.getLogger("outbox").debug("ours")
    logging.getLogger("peewee").debug(("INSERT", ["canary-token"]))
    logging.getLogger("apscheduler.scheduler").info("canary-wakeup")
    logging.getLogger("somebody.else").debug("canary-other")
    assert "ours" in logged.getvalue()
    assert "canary" not in logged.getvalue()
