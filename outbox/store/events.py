"""What an application may want to hear of: rows of `outbox_event`, written in the transaction of what happened.

    Recording                   which kinds are recorded, and who is to hear of which
    record                      one event, by an operator's verb or a pause; the runner's own go through `telling.py`
    listing, due, heard         reading them in order, and for the webhook and the notices what is still to be told
    erase, forget               the words of erased mail, and what is too old

An event is not the truth but news of it: the state of a message is in `outbox_delivery`, and events are forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from peewee import SQL, Database, ModelSelect, SqliteDatabase, fn

from outbox.store.filters import among
from outbox.store.rows import ROWS_AT_ONCE, in_parts
from outbox.store.tables import Event as Row


class Kind(StrEnum):
    """What happened.

    ACCEPTED  the message is sent: for every recipient a 2xx reply to the end of the data was read
    DELAYED   it has been tried, or kept back by a pause, for `Recording.delayed_after`, and still waits; once a message
    BOUNCED   it failed: somebody was refused for good, or it could not be sent at all
    EXPIRED   it was given up
    DOUBT     the relay may have accepted it; it is held, or will be tried again
    PAUSED    an account or a sender was paused, which `subject` names
    """

    ACCEPTED = "accepted"
    DELAYED = "delayed"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    DOUBT = "doubt"
    PAUSED = "paused"


KINDS = frozenset(str(kind) for kind in Kind)


class Channel(StrEnum):
    """Who is told of an event besides whoever reads the table."""

    WEBHOOK = "webhook"
    NOTICES = "notices"


Words = tuple[int | None, str | None, str | None]
"""Code, status and text of a reply."""

NO_WORDS: Words = (None, None, None)


@dataclass(frozen=True, slots=True)
class Recording:
    """Which kinds of events are recorded. What the webhook or the notices want to tell is recorded anyhow.

    delayed_after   the age at which a message that is still deferred is DELAYED
    """

    record: Collection[str] = KINDS
    webhook: Collection[str] = ()
    notices: Collection[str] = ()
    delayed_after: timedelta = timedelta(hours=4)

    def wants(self, kind: Kind) -> bool:
        return kind in self.record or kind in self.webhook or kind in self.notices

    def row(
        self,
        kind: Kind,
        at: str | datetime | None,
        message_id: int | None,
        claim_no: int | None,
        words: Words,
        subject: str | None = None,
    ) -> tuple[Any, ...]:
        """A row for RECORD."""
        code, status, reply = words
        due = (kind in self.webhook, kind in self.notices)
        return (at, str(kind), message_id, claim_no, subject, code, status, reply, *due)


EVERYTHING = Recording()
"""All kinds, told to nobody."""

RECORD = """
INSERT INTO outbox_event (at, kind, message_id, claim_no, subject, code, status, reply, webhook_due, notice_due)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

ANNOUNCE = "SELECT pg_notify('outbox_event', '')"
"""PostgreSQL: once for each transaction that recorded something."""

FORGET_BATCH = 500


@dataclass(frozen=True, slots=True)
class Event:
    """One row. `message_id` is None where `subject` (``account=main``, ``sender=a@b``) says what it is about."""

    id: int
    at: datetime
    kind: Kind
    message_id: int | None
    claim_no: int | None
    subject: str | None
    code: int | None
    status: str | None
    reply: str | None


# -- writing; in the open transaction


def record(
    db: Database,
    recording: Recording,
    kind: Kind,
    at: datetime,
    *,
    messages: Iterable[tuple[int, int]] = (),
    subject: str = "",
    words: Words = NO_WORDS,
) -> None:
    """The same event for each of these messages (id, claim_no), or one about a `subject`."""
    if not recording.wants(kind):
        return
    whose: Sequence[tuple[int | None, int | None]] = [(None, None)] if subject else list(messages)
    rows = [recording.row(kind, at, *each, words, subject or None) for each in whose]
    for part in in_parts(rows, ROWS_AT_ONCE):
        Row.insert_many(part, _COLUMNS).execute(db)
    if rows and not isinstance(db, SqliteDatabase):
        db.execute_sql(ANNOUNCE)


_COLUMNS = [
    Row.at,
    Row.kind,
    Row.message_id,
    Row.claim_no,
    Row.subject,
    Row.code,
    Row.status,
    Row.reply,
    Row.webhook_due,
    Row.notice_due,
]


def erase(db: Database, messages: Collection[int]) -> None:
    """Forget what relays said of these messages: it may quote them, or name their recipients."""
    query = Row.update(reply=None).where(Row.message_id.in_(among(messages)), Row.reply.is_null(False))
    query.execute(db)


def forget(db: Database, before: datetime, limit: int = FORGET_BATCH) -> int:
    """Delete up to `limit` events of before that moment, and say how many. The highest id stays, because SQLite would
    give it again, and whoever has read up to it would miss the next event.
    """
    old = _old(before).order_by(Row.at).limit(limit)
    return int(Row.delete().where(Row.id.in_(old)).execute(db))


def has_old(db: Database, before: datetime) -> bool:
    """The read probe for `forget`: a DELETE of no rows would take the write lock."""
    return bool(_old(before).exists(db))


def _old(before: datetime) -> ModelSelect[Row]:
    top = Row.alias("top")
    return Row.select(Row.id).where(Row.at < before, Row.id < top.select(fn.MAX(top.id)))


# -- reading


def listing(
    db: Database, *, since: int = 0, kinds: Collection[str] = (), message_id: int | None = None, limit: int = 1000
) -> list[Event]:
    """Events with an id beyond `since`, in their order."""
    query = _narrowed(_select().where(Row.id > since), kinds, message_id)
    return [_event(row) for row in query.order_by(Row.id).limit(limit).dicts().execute(db)]


def newest(
    db: Database, *, kinds: Collection[str] = (), message_id: int | None = None, limit: int = 1000
) -> list[Event]:
    """The last `limit` events, in their order."""
    query = _narrowed(_select(), kinds, message_id)
    return [_event(row) for row in query.order_by(Row.id.desc()).limit(limit).dicts().execute(db)][::-1]


def latest(db: Database) -> int:
    """The highest id, 0 when there is none."""
    return Row.select(fn.MAX(Row.id)).scalar(db) or 0


def due(db: Database, channel: Channel, limit: int) -> list[Event]:
    """What is still to be told, in its order."""
    still = f"{_flag(channel).column_name}{' = 1' if isinstance(db, SqliteDatabase) else ''}"
    query = _select().where(SQL(still)).order_by(Row.id).limit(limit)  # in the words of the partial index
    return [_event(row) for row in query.dicts().execute(db)]


def heard(db: Database, channel: Channel, ids: Collection[int]) -> None:
    """These have been told."""
    Row.update({_flag(channel): False}).where(Row.id.in_(among(ids))).execute(db)


def _flag(channel: Channel) -> Any:
    return Row.webhook_due if channel is Channel.WEBHOOK else Row.notice_due


def _select() -> ModelSelect[Row]:
    return Row.select(*_COLUMNS[:8], Row.id)


def _narrowed(query: ModelSelect[Row], kinds: Collection[str], message_id: int | None) -> ModelSelect[Row]:
    if kinds:
        query = query.where(Row.kind.in_(sorted(kinds)))
    if message_id is not None:
        query = query.where(Row.message_id == message_id)
    return query


def _event(row: dict[str, Any]) -> Event:
    return Event(**{**row, "kind": Kind(row["kind"])})
