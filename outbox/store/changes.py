"""The statements behind `operate`: what each verb writes, in the open transaction, over rows that it locked and judged.

Every function takes the rows and the database's time, changes all of them or raises, and says in words what became of
each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from peewee import Case, Database, Value

from outbox.core.account import Registry
from outbox.core.lifecycle import State
from outbox.core.message import recipients_of
from outbox.core.settlement import SETTLED_FATES, Fate
from outbox.errors import InvalidMessage
from outbox.store import accounts, audit, events
from outbox.store.events import Kind, Recording
from outbox.store.filters import among, moment, written
from outbox.store.rows import ROWS_AT_ONCE, in_parts
from outbox.store.tables import Delivery, Recipient


@dataclass(frozen=True, slots=True)
class Row:
    """A message as it stands while its row is locked. `standing`: its state as people say it (see `audit.standing`).
    `fates`: how many of the recipients tried have which.
    """

    message_id: int
    state: State
    standing: str
    sender: str
    claim_no: int
    due_at: datetime
    hold_reason: str
    erased: bool
    fates: Counter[str] = field(default_factory=Counter)


def retry(db: Database, rows: Sequence[Row], now: datetime) -> dict[int, str]:
    waiting = [row for row in rows if row.state is State.QUEUED]
    _update(db, waiting, due_at=now)  # it has its age and its failures still: it was not given up
    ended = [row for row in rows if row.state is not State.QUEUED]
    if ended:
        _begin_again(db, ended, now)
    registry = accounts.registry(db)
    return {row.message_id: "is queued, due now" + _second_copy(row) + _paused(row, registry, now) for row in rows}


def _begin_again(db: Database, rows: Sequence[Row], now: datetime) -> None:
    _update(db, rows, **_queued(now), claim_no=Delivery.claim_no + 1, failures=0)
    again = audit.latest_fates(
        _ids(rows),
        Recipient.message_id,
        Recipient.position,
        Delivery.claim_no,
        Recipient.address,
        Recipient.kind,
        Value(str(Fate.PENDING)),
        Delivery.due_at,  # which is now, and already of the right type
    )
    again = again.join(Delivery, on=(Delivery.message_id == Recipient.message_id))
    again = again.where(Recipient.fate == str(Fate.BOUNCED))
    Recipient.insert_from(again, _RECIPIENT[:7]).execute(db)


def hold(reason: str, db: Database, rows: Sequence[Row], now: datetime) -> dict[int, str]:
    _update(db, rows, state=State.HELD, hold_reason=reason)
    return {row.message_id: f"is held: {reason}" for row in rows}


def release(db: Database, rows: Sequence[Row], now: datetime) -> dict[int, str]:
    # A due time in the past becomes now: it was held, and goes to the back of those that waited.
    due = Case(None, [(Delivery.due_at < now, moment(now))], Delivery.due_at)
    _update(db, rows, state=State.QUEUED, hold_reason=None, crashes=0, due_at=due)
    return {row.message_id: f"is queued, {_due(row.due_at, now)}" for row in rows}


def cancel(db: Database, rows: Sequence[Row], now: datetime) -> dict[int, str]:
    _update(db, rows, state=State.CANCELLED, final_at=now, hold_reason=None)
    return {row.message_id: "is cancelled" + _reached(row) for row in rows}


def resend(db: Database, rows: Sequence[Row], now: datetime) -> dict[int, str]:
    # claim_no stays: if the lost runner still brings home a 2xx, that settles the message before a second copy leaves.
    _update(db, rows, **_queued(now))
    return {row.message_id: "is queued, due now" + _second_copy(row) for row in rows}


def reschedule(due_at: datetime, db: Database, rows: Sequence[Row], now: datetime) -> dict[int, str]:
    due_at = max(due_at, now)
    _update(db, rows, due_at=due_at)
    return {row.message_id: f"is {row.state}, {_due(due_at, now)}" for row in rows}


def accept_doubts(reply: str, recording: Recording, db: Database, rows: Sequence[Row], now: datetime) -> dict[int, str]:
    columns = (Recipient.message_id, Recipient.position, Recipient.address, Recipient.kind, Recipient.fate)
    tried: dict[int, list[tuple[int, str, str, str]]] = {row.message_id: [] for row in rows}
    for message_id, *recipient in audit.latest_fates(_ids(rows), *columns).tuples().execute(db):
        tried[message_id].append(tuple(recipient))
    ends = {row.message_id: _end(db, row, tried[row.message_id]) for row in rows}
    for state in set(ends.values()):
        ending = [row for row in rows if ends[row.message_id] is state]
        _update(db, ending, claim_no=Delivery.claim_no + 1, **_ended(state, reply, now))
        if state in _END_KINDS:
            told = [(row.message_id, row.claim_no + 1) for row in ending]
            events.record(db, recording, _END_KINDS[state], now, messages=told, words=(None, None, reply))
    accepted = [
        (row.message_id, position, row.claim_no + 1, address, kind, str(Fate.ACCEPTED), now, reply)
        for row in rows
        for position, address, kind, fate in tried[row.message_id]
        if fate == Fate.DOUBT
    ]
    for part in in_parts(accepted, ROWS_AT_ONCE):
        Recipient.insert_many(part, _RECIPIENT).execute(db)
    return {message_id: _END_WORDS[state] for message_id, state in ends.items()}


_END_WORDS = {
    State.SENT: "is sent",
    State.FAILED: "is failed: other recipients were refused",
    State.QUEUED: "is queued, due now, for the recipients that nobody has tried yet",
}


_END_KINDS = {State.SENT: Kind.ACCEPTED, State.FAILED: Kind.BOUNCED}


def _end(db: Database, row: Row, tried: Sequence[tuple[int, str, str, str]]) -> State:
    """Where a message goes once its doubts count as accepted."""
    settled = {position: fate for position, _, _, fate in tried if fate in SETTLED_FATES or fate == Fate.DOUBT}
    try:
        everybody = {each.position for each in recipients_of(audit.message(db, row.message_id))}
    except InvalidMessage:
        everybody = {position for position, *_ in tried}
    if everybody - settled.keys():
        return State.QUEUED
    return State.FAILED if Fate.BOUNCED in settled.values() else State.SENT


def _ended(state: State, reply: str, now: datetime) -> dict[str, Any]:
    if state is State.QUEUED:
        return _queued(now)
    words = {"last_code": None, "last_status": None, "last_reply": reply} if state is State.SENT else {}
    return {"state": state, "final_at": now, "hold_reason": None, **words}


def _queued(now: datetime) -> dict[str, Any]:
    return {
        "state": State.QUEUED,
        "due_at": now,
        "expires_at": Case(None, [(Delivery.expires_at <= now, None)], Delivery.expires_at),
        "first_attempt_at": None,
        "final_at": None,
        "hold_reason": None,
        "crashes": 0,
        "dot_at": None,
        "dot_through": None,
    }


_RECIPIENT = [
    Recipient.message_id,
    Recipient.position,
    Recipient.claim_no,
    Recipient.address,
    Recipient.kind,
    Recipient.fate,
    Recipient.at,
    Recipient.reply,
]


def _update(db: Database, rows: Sequence[Row], **columns: Any) -> None:
    """Change these rows if they are in the states they were judged by; all of them, or the transaction ends."""
    if not rows:
        return
    states = sorted({str(row.state) for row in rows})
    query = Delivery.update(**columns).where(Delivery.message_id.in_(among(_ids(rows))), Delivery.state.in_(states))
    changed = query.execute(db)
    if changed != len(rows):
        raise RuntimeError(f"{changed} of {len(rows)} locked rows were changed: nothing is committed")


def _ids(rows: Sequence[Row]) -> list[int]:
    return [row.message_id for row in rows]


# -- words


def _due(due_at: datetime, now: datetime) -> str:
    return "due now" if due_at <= now else f"due {written(due_at)}"


def _second_copy(row: Row) -> str:
    count = row.fates[Fate.DOUBT]
    return f"; {_people(count)} may get a second copy" if count else ""


def _paused(row: Row, registry: Registry, now: datetime) -> str:
    route = registry.resolve(row.sender)
    blocked = route.blocked(now) if route is not None else ""
    return f", but it waits: {blocked}" if blocked else ""


def _reached(row: Row) -> str:
    have, may = row.fates[Fate.ACCEPTED], row.fates[Fate.DOUBT]
    words = f"; {_people(have)} already {'has' if have == 1 else 'have'} it" if have else ""
    return words + (f"; {_people(may)} may have it: it was in doubt" if may else "")


def _people(count: int) -> str:
    return f"{count} recipient{'' if count == 1 else 's'}"
