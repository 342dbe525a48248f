"""What operators ask about messages: one of them (`show`), many of them (`listing`). Counting is in `statistics`.

Reading takes no lock, sees one moment, and never fails for what an application wrote: bytes that are not UTF-8 (SQLite
stores anything) are shown as replacement characters. Moments in records are aware, UTC; what is missing is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, cast

from peewee import Database, ModelSelect, PeeweeException, SqliteDatabase, fn

from outbox.core import message as core
from outbox.core.account import Registry
from outbox.core.address import parse_address_list
from outbox.core.lifecycle import State
from outbox.core.render import message_id as message_id_of
from outbox.core.settlement import Fate
from outbox.errors import InvalidMessage, Refused
from outbox.store import accounts, tables
from outbox.store.engine import sqlite3
from outbox.store.fields import UtcDateTimeField
from outbox.store.filters import Filter, among, as_moment
from outbox.store.rows import as_message
from outbox.store.tables import Attempt, Delivery, Outbox, Recipient


@dataclass(frozen=True, slots=True)
class Line:
    """One message of a list.

    standing    the state as people say it: what is queued for later is *scheduled*, or *deferred* once it was tried
    recipients  bare addresses of To, Cc and Bcc, as far as they can be read
    last_…      of the last reply, the relay's or ours
    paused      why nothing of its sender may leave now, while it waits
    """

    id: int
    state: State
    standing: str
    sender: str
    recipients: tuple[str, ...]
    subject: str | None
    created_at: datetime
    due_at: datetime
    final_at: datetime | None
    claim_no: int
    failures: int
    doubts: int
    last_code: int | None
    last_status: str | None
    last_reply: str | None
    hold_reason: str | None
    paused: str | None
    tag: str | None
    dedup_key: str | None


@dataclass(frozen=True, slots=True)
class RecipientLine:
    """The latest that is known of one recipient; *pending* while they have not been tried."""

    address: str
    kind: str
    fate: Fate
    code: int | None = None
    status: str | None = None
    reply: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AttemptLine:
    """One attempt. The `late_…` are what a stale runner reported after its claim was lost."""

    claim_no: int
    started_at: datetime
    dot_at: datetime | None
    ended_at: datetime | None
    outcome: str | None
    stage: str | None
    code: int | None
    status: str | None
    reply: str | None
    relay: str | None
    tls: str | None
    runner: str
    account: str | None
    sha256: str | None
    late_outcome: str | None
    late_reply: str | None
    late_at: datetime | None


@dataclass(frozen=True, slots=True)
class Record:
    """Everything about one message but its content. `message_id` is the header; `paused` says why nothing of its sender
    may leave now.
    """

    id: int
    state: State
    sender: str
    subject: str | None
    message_id: str | None
    created_at: datetime
    due_at: datetime
    final_at: datetime | None
    doubts: int
    failures: int
    recipients: tuple[RecipientLine, ...]
    attempts: tuple[AttemptLine, ...]
    standing: str
    hold_reason: str | None
    paused: str | None
    last_code: int | None
    last_status: str | None
    last_reply: str | None
    expires_at: datetime | None
    erased_at: datetime | None
    priority: int
    on_doubt: str
    claim_no: int
    crashes: int
    first_attempt_at: datetime | None
    dot_at: datetime | None
    tag: str | None
    dedup_key: str | None
    source: str


def now(db: Database) -> datetime:
    """The database's clock, so that hosts whose clocks differ agree; SQLite has its host's."""
    sqlite = "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
    row = db.execute_sql(sqlite if isinstance(db, SqliteDatabase) else "SELECT clock_timestamp()").fetchone()
    moment = UtcDateTimeField().python_value(row[0])
    assert moment is not None
    return moment


@contextmanager
def snapshot(db: Database) -> Iterator[None]:
    """All that is read within is of one moment, and readable."""
    if isinstance(db, SqliteDatabase):
        connection = db.connection()
        strict, connection.text_factory = connection.text_factory, lambda raw: raw.decode("utf-8", "replace")
        try:
            with db.atomic("DEFERRED"):
                yield
        finally:
            connection.text_factory = strict
    else:
        with db.atomic("REPEATABLE READ"):
            yield


def listing(db: Database, which: Filter, *, limit: int = 50, before: int | None = None) -> list[Line]:
    """The newest `limit` messages that match, newest first; with `before`, of those with a smaller id."""
    with snapshot(db):
        moment = now(db)
        query = _joined(db, _LINE).where(Delivery.message_id.in_(among(which.newest(db, limit, before=before))))
        rows = list(query.order_by(Delivery.message_id.desc()).dicts().execute(db))
        opaque = [row["id"] for row in rows if not (row["recipients"] or row["cc"] or row["bcc"])]
        tried = _tried(db, opaque) if opaque else {}
        registry = accounts.registry(db)
        return [_line(row, tried.get(row["id"], ()), registry, moment) for row in rows]


COUNTED = 10_000
"""Messages of a filter that are counted; whether there are more is known, and not how many."""


def counts(db: Database, which: Filter) -> dict[State, int]:
    """How many messages match, by state; states without any are left out. Where the sum is more than COUNTED, so are
    they, and the numbers are of some of them.
    """
    with snapshot(db):
        found = which.counts(db, COUNTED)
    return {state: found[state] for state in State if found[state]}


def show(db: Database, message_id: int) -> Record:
    """Everything about one message. Raises Refused when there is none of that id."""
    with snapshot(db):
        moment = now(db)
        row = _the_row(db, _RECORD, message_id)
        message = _message(row)
        record: Record = _named(
            Record,
            row,
            state=State(row["state"]),
            standing=standing(row, moment),
            message_id=_message_id(message),
            paused=_paused(accounts.registry(db), row, moment),
            recipients=_recipients(db, message),
            attempts=_attempts(db, message_id),
        )
        return record


def message(db: Database, message_id: int) -> core.Message:
    """What a message says, as the runner reads it. Raises Refused when there is no such message, InvalidMessage when
    its content has been erased or is not text.
    """
    try:
        row = _the_row(db, (*_CONTENT, *_BODIES, Outbox.raw), message_id)
        query = tables.Attachment.select().where(tables.Attachment.message_id == message_id)
        files = list(query.order_by(tables.Attachment.position).execute(db))
    except (PeeweeException, sqlite3.OperationalError) as error:  # the latter while rows are fetched
        if "decode" not in str(error):
            raise
        raise InvalidMessage("5.6.0", "a text column holds bytes that are not UTF-8") from None
    if row["erased_at"] is not None:
        raise InvalidMessage("5.6.0", "the content of the message has been erased")
    return _message(row, tuple(_file(each) for each in files))


def by_key(db: Database, dedup_key: str) -> int:
    """The message that has this dedup_key. Raises Refused when there is none."""
    row = Outbox.select(Outbox.id).where(Outbox.dedup_key == dedup_key).tuples().first(db)
    if row is None:
        raise Refused(f"there is no message with the key {dedup_key}")
    return int(row[0])


def latest_fates(ids: Sequence[int], *columns: Any) -> ModelSelect[Recipient]:
    """A query of the latest row of every recipient of these messages who has been tried."""
    newer = Recipient.alias("newer")
    superseded = newer.select(newer.message_id).where(
        newer.message_id == Recipient.message_id,
        newer.position == Recipient.position,
        newer.claim_no > Recipient.claim_no,
    )
    return Recipient.select(*columns).where(Recipient.message_id.in_(among(ids)), ~fn.EXISTS(superseded))


def standing(row: Mapping[str, Any], moment: datetime) -> str:
    """The state as people say it, and as the view outbox_status says it. `row` has the columns of a delivery."""
    if row["state"] != State.QUEUED or row["due_at"] <= moment:
        return str(row["state"])
    tried = row["failures"] or row["doubts"] or row["first_attempt_at"] or row["last_reply"]
    return "deferred" if tried else "scheduled"


# -- rows and records


_DELIVERY = (
    Delivery.state,
    Delivery.due_at,
    Delivery.final_at,
    Delivery.first_attempt_at,
    Delivery.claim_no,
    Delivery.failures,
    Delivery.doubts,
    Delivery.last_code,
    Delivery.last_status,
    Delivery.last_reply,
    Delivery.hold_reason,
)
_LINE = (
    *_DELIVERY,
    Outbox.id,
    Outbox.sender,
    Outbox.recipients,
    Outbox.cc,
    Outbox.bcc,
    Outbox.subject,
    Outbox.tag,
    Outbox.dedup_key,
)
# In the order of `as_message`, but for created_at.
_CONTENT = (
    Outbox.id,
    Outbox.token,
    Outbox.sender,
    Outbox.sender_name,
    Outbox.recipients,
    Outbox.cc,
    Outbox.bcc,
    Outbox.reply_to,
    Outbox.subject,
    Outbox.headers,
    Outbox.return_path,
    Outbox.dsn_notify,
    Outbox.dsn_ret,
    Outbox.dsn_envid,
)
_BODIES = (Outbox.text_body, Outbox.html_body)
_RECORD = (
    *_DELIVERY,
    *_CONTENT,
    Outbox.raw,
    Delivery.expires_at,
    Delivery.crashes,
    Delivery.dot_at,
    Delivery.priority,
    Delivery.on_doubt,
    Outbox.tag,
    Outbox.dedup_key,
    Outbox.source,
)


def _joined(db: Database, columns: Sequence[Any]) -> ModelSelect[Delivery]:
    spelled = [as_moment(db, column).alias(column.name) for column in (Outbox.created_at, Outbox.erased_at)]
    query = Delivery.select(*columns, *spelled)
    return query.join(Outbox, on=(Outbox.id == Delivery.message_id))


def _named(record: type[Any], row: dict[str, Any], **computed: Any) -> Any:
    """A record of what was computed, and of the row's columns for the fields of the same name."""
    return record(**computed, **{each.name: row[each.name] for each in fields(record) if each.name not in computed})


def _the_row(db: Database, columns: Sequence[Any], message_id: int) -> dict[str, Any]:
    condition = Delivery.message_id == message_id
    row: dict[str, Any] | None = None
    if 0 < message_id < 2**63:  # what an id column takes
        row = _joined(db, columns).where(condition).dicts().first(db)
    if row is None:
        raise Refused(f"there is no message {message_id}", hint="`outbox list` shows the newest")
    return row


def _file(row: tables.Attachment) -> core.Attachment:
    content_type = row.content_type or "application/octet-stream"
    return core.Attachment(row.filename or "", row.content, content_type, row.content_id or "")


def _message(row: dict[str, Any], files: tuple[core.Attachment, ...] = ()) -> core.Message:
    names = [column.name for column in (*_CONTENT, *_BODIES, Outbox.raw)]
    names.insert(2, "created_at")
    return as_message([row.get(name) for name in names], files)


def _line(row: dict[str, Any], tried: Sequence[str], registry: Registry, moment: datetime) -> Line:
    columns = [row[name] for name in ("recipients", "cc", "bcc") if row[name]]
    recipients = [address for text in columns for address in _addresses(text)]
    return cast(
        Line,
        _named(
            Line,
            row,
            state=State(row["state"]),
            standing=standing(row, moment),
            recipients=tuple(dict.fromkeys(recipients or tried)),
            paused=_paused(registry, row, moment),
        ),
    )


def _addresses(text: str) -> list[str]:
    """The bare addresses of a column; the pieces between its commas where it cannot be read."""
    try:
        return [each.email for each in parse_address_list(text)]
    except ValueError:
        return [piece.strip() for piece in text.split(",") if piece.strip()]


def _tried(db: Database, ids: Sequence[int]) -> dict[int, list[str]]:
    """Whom raw messages went to, as far as they have been tried: their rows name nobody."""
    found: dict[int, list[str]] = {}
    query = latest_fates(ids, Recipient.message_id, Recipient.address).order_by(Recipient.position)
    for message_id, address in query.tuples().execute(db):
        found.setdefault(message_id, []).append(address)
    return found


def _recipients(db: Database, message: core.Message) -> tuple[RecipientLine, ...]:
    """Everybody the message is for, with the latest that is known of them; where its addresses cannot be read any more
    (erased, or bad), those who were tried.
    """
    query = latest_fates([message.id], Recipient).order_by(Recipient.position).dicts()
    found = {row["position"]: row for row in query.execute(db)}
    tried = {position: _named(RecipientLine, row, fate=Fate(row["fate"])) for position, row in found.items()}
    try:
        everybody = core.recipients_of(message)
    except InvalidMessage:
        return tuple(tried.values())
    return tuple(tried.get(each.position) or RecipientLine(each.address, each.kind, Fate.PENDING) for each in everybody)


def _attempts(db: Database, message_id: int) -> tuple[AttemptLine, ...]:
    query = Attempt.select().where(Attempt.message_id == message_id).order_by(Attempt.claim_no)
    return tuple(_named(AttemptLine, row, runner=row["runner_id"]) for row in query.dicts().execute(db))


def _message_id(message: core.Message) -> str | None:
    try:
        return message_id_of(message)
    except InvalidMessage:
        return None


def _paused(registry: Registry, row: dict[str, Any], moment: datetime) -> str | None:
    """Why nothing of a waiting message's sender may leave now."""
    if row["state"] not in (State.QUEUED, State.HELD):
        return None
    route = registry.resolve(row["sender"])
    if route is None:
        return f"sender {row['sender']} is not registered"
    return route.blocked(moment) or None
