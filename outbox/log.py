"""What the runner and the command line say while they work: one line each, to stderr, for people and for `grep`.

Never in a line: content of a mail, a subject, a password, a Fernet token, the bound parameters of a statement.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TextIO

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Status(StrEnum):
    """What a delivery line reports of a recipient."""

    SENT = "sent"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    DOUBT = "doubt"
    EXPIRED = "expired"
    HELD = "held"


class LineFormatter(logging.Formatter):
    """``2026-11-24T03:37:48.123Z INFO outbox.runner: words``. Control characters become one space, so a record is one
    line whatever a relay or a row put into it; a traceback, where one is asked for, follows on lines of its own.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 -- logging's name
        moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        return moment.isoformat(timespec="milliseconds") + "Z"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- the name is logging's
        record.message = one_line(record.message)
        return super().formatMessage(record)


def one_line(text: str) -> str:
    """`text` with every run of control characters and line separators replaced by a space."""
    return _CONTROL.sub(" ", text)


def set_up(verbosity: int = 0, stream: TextIO | None = None) -> None:
    """Log to `stream` (stderr). `verbosity`: 0 shows what happened to mails and warnings, −1 warnings only, 1 and
    more our DEBUG lines.

    Other people's libraries stay at WARNING at any verbosity. For two of them that is a matter of safety and of peace:
    peewee's DEBUG lines print every bound parameter, sealed secrets and bodies among them; APScheduler's INFO lines are
    two per wake-up.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    ours = logging.DEBUG if verbosity > 0 else logging.INFO if verbosity == 0 else logging.WARNING
    logging.getLogger("outbox").setLevel(ours)
    for quiet in ("peewee", "apscheduler", "asyncio"):
        logging.getLogger(quiet).setLevel(logging.WARNING)


def delivery_line(
    *,
    message_id: int,
    to: str,
    status: Status,
    delay: timedelta,
    relay: str = "",
    dsn: str = "",
    reply: str = "",
) -> str:
    """One recipient's outcome, in the form people know from Postfix:

    ``id=7 to=<ann@example.net> relay=mx[192.0.2.1]:25 delay=3.1 dsn=2.0.0 status=sent (250 2.0.0 queued as 4X)``

    `delay` is the age of the message, written in seconds; `dsn` the status (RFC 3463) and `relay` the peer, where there
    was one; `reply` the relay's words or ours.
    """
    words = [f"id={message_id}", f"to=<{to}>", f"relay={relay or 'none'}", f"delay={delay.total_seconds():.1f}"]
    if dsn:
        words.append(f"dsn={dsn}")
    words.append(f"status={status}")
    if reply:
        words.append(f"({reply})")
    return one_line(" ".join(words))
