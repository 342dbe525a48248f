"""Rows as records, and records as rows: the same for both dialects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

from outbox.core.dsn import NO_DSN, Dsn
from outbox.core.lifecycle import FINAL
from outbox.core.message import Attachment, Message
from outbox.core.settlement import Claim, Fate, RecipientFate, Result, Settlement
from outbox.errors import InvalidMessage
from outbox.store import Content, Lane

CLAIMED = (
    "message_id, claim_no, sender, priority, failures, doubts, crashes, on_doubt, expires_at, first_attempt_at, due_at"
)
"""The columns of `as_claim`."""


T = TypeVar("T")

_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)

ROWS_AT_ONCE = 1000
"""Of one INSERT: SQLite takes 32,766 parameters a statement."""


def in_parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items`, so many at a time: a statement takes only so many parameters, and a lock is not held for long."""
    return (items[start : start + size] for start in range(0, len(items), size))


@lru_cache(maxsize=64)  # most of those of a transaction are its own
def moment(value: datetime | None) -> str | None:
    """A moment as both dialects read it: 24 characters, UTC, whole milliseconds."""
    if value is None:
        return None
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    return value.isoformat(timespec="milliseconds")[:23] + "Z"


def parse_moment(value: Any) -> datetime | None:
    """A stored moment: SQLite's 24 characters, or what psycopg has made of a timestamptz."""
    if value is None or isinstance(value, datetime):
        return value
    return datetime.fromisoformat(value)


def _sorted_moment(value: Any) -> datetime | None:
    """The same for what an application's `due_at` and `expires_at` were made into. Who gets around the CHECKs of the
    schema may put any text there, which must stop no other lane: it is as early, or as late, as it sorts.
    """
    try:
        return parse_moment(value)
    except (ValueError, TypeError):
        return _EARLIEST if str(value) < "1970" else _LATEST


def as_claim(row: Sequence[Any]) -> tuple[Any, int, Claim]:
    """A row of CLAIMED, with its sort key in front: RETURNING has no order."""
    message_id, claim_no, sender, priority, failures, doubts, crashes, on_doubt, expires_at, first, due_at = row
    claim = Claim(
        message_id,
        claim_no,
        as_sender(sender),
        priority,
        failures,
        doubts,
        crashes,
        on_doubt,
        _sorted_moment(expires_at),
        parse_moment(first),
    )
    return due_at, message_id, claim


def as_lane(row: Sequence[Any]) -> Lane:
    due_at = _sorted_moment(row[2])
    assert due_at is not None
    return Lane(as_sender(row[0]), row[1], due_at)


def as_sender(value: str | bytes) -> str:
    """A lane's name. On SQLite it may hold any bytes, which must stop no other lane: they become lone surrogates."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def sender_value(sender: str) -> str | bytes:
    """The reverse, for a statement that says ``CAST(? AS TEXT)``."""
    return sender if sender.isascii() else sender.encode("utf-8", "surrogateescape")


def moment_of(value: Any) -> datetime:
    """A moment that the schema says is not NULL."""
    found = parse_moment(value)
    assert found is not None
    return found if found.tzinfo is UTC else found.astimezone(UTC)


def as_bytes(value: bytes | memoryview | str | None) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return b"" if value is None else bytes(value)


def as_message(columns: Sequence[Any], files: tuple[Attachment, ...]) -> Message:
    message_id, token, created_at, *texts, raw = columns
    texts = [each if type(each) is str else _text(each, place) for place, each in enumerate(texts)]
    sender, name, to, cc, bcc, reply_to, subject, custom, return_path, notify, ret, envid, text, html = texts
    return Message(
        message_id,
        token,
        _created(created_at),
        sender,
        name,
        to,
        cc,
        bcc,
        reply_to,
        subject,
        custom,
        return_path,
        _dsn(message_id, notify, ret, envid),
        text or None,
        html or None,
        as_bytes(raw) or None,
        files,
    )


def content_of(
    columns: Sequence[Any], files: tuple[Attachment, ...] = (), fates: dict[int, Fate] | None = None
) -> Content:
    """What a message says, from its columns for `as_message`, and what belongs to it."""
    try:
        message = as_message(columns, files)
        if message.dsn and (flaw := message.dsn.flaw()):  # somebody got around the CHECKs of the schema
            raise InvalidMessage("5.5.4", flaw)
    except InvalidMessage as invalid:
        return Content(invalid, {}, 0)
    size = sum([len(each.content) for each in files])
    for part in (message.text_body, message.html_body, message.raw, message.recipients):
        if part:
            size += len(part)
    return Content(message, fates or {}, size)


def _dsn(message_id: int, notify: str, ret: str, envid: str) -> Dsn:
    """What the columns ask of notifications. Whoever asks for any finds the mail again by its id, or by a name of their
    own.
    """
    return Dsn(notify, ret, envid or str(message_id)) if notify or ret or envid else NO_DSN


_TEXTS = "sender sender_name recipients cc bcc reply_to subject headers return_path dsn_notify dsn_ret dsn_envid"
_TEXT_COLUMNS = (*_TEXTS.split(), "text_body", "html_body")
"""In the order of `as_message`."""


def _created(value: Any) -> datetime:
    try:
        return moment_of(value)
    except (ValueError, TypeError, AssertionError):
        raise InvalidMessage("5.6.0", "column created_at holds what is no date") from None


def _text(value: Any, place: int) -> str:
    """SQLite columns hold what was put in, whatever their type says."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            words = f"column {_TEXT_COLUMNS[place]} holds bytes that are not UTF-8"
            raise InvalidMessage("5.6.0", words) from None
    return value if isinstance(value, str) else str(value)


def reply_columns(settlement: Settlement) -> tuple[int | None, str | None, str | None]:
    reply = settlement.reply
    return (None, None, None) if reply is None else (reply.code or None, reply.status or None, reply.text or None)


def settle_row(settlement: Settlement, at: str | None) -> tuple[Any, ...]:
    # The age that makes a message expire begins with the first attempt of its own: an outage is not its fault.
    ages = settlement.result is not Result.PAUSED or (settlement.pause is not None and settlement.pause.ages)
    tried_at = at if ages else None
    return (
        str(settlement.state),
        moment(settlement.due_at),
        settlement.failures,
        int(settlement.doubted),
        at if settlement.state in FINAL else None,
        tried_at,
        settlement.hold_reason or None,
        *reply_columns(settlement),
        settlement.message_id,
        settlement.claim_no,
    )


def attempt_row(settlement: Settlement, at: str | None) -> tuple[Any, ...]:
    return (
        moment(settlement.dot_at),
        at,
        str(settlement.result),
        None if settlement.stage is None else str(settlement.stage),
        *reply_columns(settlement),
        settlement.relay or None,
        settlement.tls or None,
        settlement.account or None,
        settlement.sha256 or None,
        settlement.rule or None,
        settlement.message_id,
        settlement.claim_no,
    )


def recipient_row(message_id: int, claim_no: int, fate: RecipientFate, at: str | None) -> tuple[Any, ...]:
    recipient, reply = fate.recipient, fate.reply
    words = (None, None, None) if reply is None else (reply.code or None, reply.status or None, reply.text or None)
    return (message_id, recipient.position, claim_no, recipient.address, recipient.kind, str(fate.fate), *words, at)
