"""What is told of a message besides its event, and the notices that are enqueued for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from peewee import Database, SqliteDatabase

from outbox.core.dsn import Dsn
from outbox.core.message import NULL_PATH
from outbox.store import accounts, audit
from outbox.store.events import Event
from outbox.store.filters import among
from outbox.store.tables import Outbox, Recipient

MOST_RECIPIENTS = 100
"""Of one message, in an event for the application."""


@dataclass(frozen=True, slots=True)
class RecipientFact:
    address: str
    kind: str
    fate: str
    code: int | None
    status: str | None
    reply: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the application knows a message by, and the latest fates of those who have been tried: the first
    MOST_RECIPIENTS of them. `complete`: that is all.
    """

    sender: str
    dedup_key: str | None
    tag: str | None
    recipients: tuple[RecipientFact, ...]
    complete: bool


def facts(db: Database, messages: Collection[int]) -> dict[int, Facts]:
    """Of those of these messages that are still there."""
    with audit.snapshot(db):
        return _facts(db, list(messages))


def _facts(db: Database, ids: list[int]) -> dict[int, Facts]:
    people: dict[int, list[RecipientFact]] = {}
    columns = (Recipient.address, Recipient.kind, Recipient.fate, Recipient.code, Recipient.status, Recipient.reply)
    first = audit.latest_fates(ids, Recipient.message_id, *columns).where(Recipient.position < MOST_RECIPIENTS)
    for message_id, *fate in first.order_by(Recipient.message_id, Recipient.position).tuples().execute(db):
        people.setdefault(message_id, []).append(RecipientFact(*fate))
    more = audit.latest_fates(ids, Recipient.message_id).where(Recipient.position >= MOST_RECIPIENTS).distinct()
    cut = {message_id for (message_id,) in more.tuples().execute(db)}
    named = Outbox.select(Outbox.id, Outbox.sender, Outbox.dedup_key, Outbox.tag).where(Outbox.id.in_(among(ids)))
    return {
        message_id: Facts(sender, key, tag, tuple(people.get(message_id, ())), message_id not in cut)
        for message_id, sender, key, tag in named.tuples().execute(db)
    }


# -- notices


@dataclass(frozen=True, slots=True)
class Original:
    """The message that a notice tells of, as it stands now. `return_path` is its own, else that of its sender's
    registration, else the sender; `NULL_PATH` where nobody wants to hear. `registered`: it may stand there, for it is
    registered to the account of the sender.
    """

    record: audit.Record
    return_path: str
    registered: bool
    dsn: Dsn


def original(db: Database, message_id: int) -> Original:
    """Raises Refused when the message has been deleted."""
    record = audit.show(db, message_id)
    with audit.snapshot(db):
        columns = (Outbox.return_path, Outbox.dsn_notify, Outbox.dsn_ret, Outbox.dsn_envid)
        path, *asked = Outbox.select(*columns).where(Outbox.id == message_id).tuples().first(db) or [None] * 4
        registry = accounts.registry(db)
    route = registry.resolve(record.sender)
    path = (path or "").strip() or (route.sender.return_path if route is not None else "") or record.sender
    registered = route is not None and registry.allows(route.account.name, path)
    notify, ret, envid = (each or "" for each in asked)
    return Original(record, path, registered, Dsn(notify, ret, envid))


def file_notice(db: Database, event: Event, sender: str, to: str, raw: bytes) -> None:
    """Enqueue a notice, once for its event, in the open transaction. Nobody is told what becomes of it."""
    row = (sender, to, NULL_PATH, raw, NOTICE, f"{NOTICE}:{event.id}:{event.message_id}")
    mark = "?" if isinstance(db, SqliteDatabase) else "%s"
    db.execute_sql(_FILE.format(marks=", ".join([mark] * len(row))), row)


NOTICE = "notice"
"""The `source` of notices."""

_FILE = """
INSERT INTO outbox (sender, recipients, return_path, raw, source, dedup_key) VALUES ({marks})
ON CONFLICT DO NOTHING"""
