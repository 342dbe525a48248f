"""What operators do to messages: retry, hold, release, cancel, resolve, reschedule. In Postfix this is `postsuper`.

    retry       failed, expired, held → queued, due now, its counters at zero, its history kept
                queued for later → due now, and nothing else
    hold        queued → held       release   held → queued       cancel   queued, held → cancelled
    resolve     held in doubt → sent (or failed, where others were refused), or → queued for a second copy
    reschedule  queued, held → the same, due at another time

A call takes ids or a Filter and answers for every message: what became of it, or why it was left alone. A refusal is an
answer, not an exception. Nothing is half done: rows are locked, judged and changed in one transaction, with the state
they were judged by in the WHERE, and a row of the journal says who did what to how many. More than CHUNK messages are
several such transactions, so that on SQLite no application waits long for its lock; the journal counts what has been
committed.

`who` is a person: the OS user. DatabaseError is raised when the database stays locked or keeps failing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from threading import Event
from typing import Any

from peewee import Database, OperationalError, SqliteDatabase, fn

from outbox.clock import Clock
from outbox.core.lifecycle import ALLOWED_FROM, DEAD, State, Verb
from outbox.core.settlement import DOUBT_HELD, Fate
from outbox.errors import DatabaseError
from outbox.store import audit, changes
from outbox.store.changes import Row
from outbox.store.events import EVERYTHING, Recording
from outbox.store.filters import DEFERRED, SCHEDULED, Filter, among, written
from outbox.store.tables import Delivery, Journal, Outbox, Recipient

CHUNK = 100
"""Messages per transaction: a few milliseconds of SQLite's write lock."""

_WAKE = "SELECT pg_notify('outbox', '') WHERE EXISTS (SELECT FROM outbox_runner WHERE asleep AND dead_at IS NULL)"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one message. `words` complete the sentence "message 42 …": "is queued", "is sent: only …"."""

    message_id: int
    done: bool
    words: str


def retry(db: Database, which: Filter | Iterable[int], *, who: str) -> list[Answer]:
    """Send again, now, what failed, expired or is held. A Filter without states means what failed or expired.

    What is queued for later (scheduled or deferred) becomes due now; its age, its failures and its claim number stay.

    Bounced recipients become pending again by a row of their own at the next claim number; accepted ones never do. The
    message's age starts again (`first_attempt_at`), or what expired would expire once more at its next deferral; for
    the same reason an `expires_at` that has passed is dropped. `doubts` stays: it counts possible copies, not tries.
    """
    return _act(db, _Action(Verb.RETRY, "retried", changes.retry, _judge_retry), which, who)


def hold(db: Database, which: Filter | Iterable[int], *, who: str, reason: str = "") -> list[Answer]:
    """Keep queued messages back until they are released."""
    change = partial(changes.hold, reason or f"held by {who}")
    return _act(db, _Action(Verb.HOLD, "held", change), which, who, detail=reason)


def release(db: Database, which: Filter | Iterable[int], *, who: str) -> list[Answer]:
    """Let held messages go, at their own due time. What is held in doubt needs an answer instead: see `resolve`."""
    return _act(db, _Action(Verb.RELEASE, "released", changes.release, _judge_release), which, who)


def cancel(db: Database, which: Filter | Iterable[int], *, who: str) -> list[Answer]:
    """Withdraw what waits. It cannot be undone, and does not reach recipients who have their copy already."""
    return _act(db, _Action(Verb.CANCEL, "cancelled", changes.cancel), which, who)


def resolve(
    db: Database, which: Filter | Iterable[int], *, sent: bool, who: str, recording: Recording = EVERYTHING
) -> list[Answer]:
    """Say what became of messages that are held in doubt.

    sent: the relay has them. Recipients in doubt become accepted, by rows at the next claim number; then the message is
    sent, or failed where others were refused, or queued where others have not been tried yet.
    That is an event, as `recording` says.
    not sent: it goes out again, now. If the relay had it after all, this is the second copy that `doubts` announced.
    """
    if sent:
        change = partial(changes.accept_doubts, f"resolved by {who}", recording)
        return _act(db, _Action(Verb.RESOLVE_SENT, "resolved", change, _judge_doubt), which, who)
    return _act(db, _Action(Verb.RESOLVE_RESEND, "resolved", changes.resend, _judge_doubt), which, who)


def reschedule(db: Database, which: Filter | Iterable[int], due_at: datetime, *, who: str) -> list[Answer]:
    """Give messages that wait another due time. A moment that has passed means now."""
    action = _Action(_RESCHEDULE, "rescheduled", partial(changes.reschedule, due_at))
    return _act(db, action, which, who, detail=f"due_at={written(due_at)}")


def matching(db: Database, verb: Verb, which: Filter) -> list[int]:
    """The messages that a call for `verb` would change if it came now: for a person to confirm their number."""
    return _matching(db, verb, which)


def in_doubt(db: Database, ids: Sequence[int]) -> int:
    """How many of these messages have a recipient of whom nobody knows whether they got it."""
    return sum(
        audit.latest_fates(ids[start : start + CHUNK], Recipient.message_id)
        .where(Recipient.fate == str(Fate.DOUBT))
        .distinct()
        .count(db)
        for start in range(0, len(ids), CHUNK)
    )


# -- a call, chunk by chunk


_Change = Callable[[Database, Sequence[Row], datetime], dict[int, str]]


@dataclass(frozen=True, slots=True)
class _Action:
    """A verb. `judge` says why not, or ""; `change` runs its statements and says what became of each message."""

    verb: str
    past: str
    change: _Change
    judge: Callable[[Row], str] = lambda row: ""

    @property
    def allowed(self) -> frozenset[State]:
        return _ALLOWED[self.verb]


_RESCHEDULE = "reschedule"
_ALLOWED: dict[str, frozenset[State]] = {
    **{str(verb): states for verb, states in ALLOWED_FROM.items()},
    _RESCHEDULE: frozenset({State.QUEUED, State.HELD}),
}


def _act(db: Database, action: _Action, which: Filter | Iterable[int], who: str, *, detail: str = "") -> list[Answer]:
    if isinstance(which, Filter):
        ids, text = _matching(db, action.verb, which), which.text()
    else:
        ids = list(dict.fromkeys(which))
        text = "id=" + runs(ids)
    entry = {"who": who, "verb": action.verb, "matching": text, "detail": detail or None}
    answers: list[Answer] = []
    journal: int | None = None
    clock = Clock()
    for start in range(0, max(len(ids), 1), CHUNK):
        begun = clock.monotonic()
        step = partial(_step, db, action, ids[start : start + CHUNK], entry, journal)
        part, journal = _transaction(db, step)
        answers += part
        if start + CHUNK < len(ids) and isinstance(db, SqliteDatabase):
            # SQLite has no queue for its lock: who waits for it looks now and then. Half of the time it is free.
            _rest(clock.monotonic() - begun)
    return answers


def _matching(db: Database, verb: str, which: Filter) -> list[int]:
    allowed = {str(state) for state in _ALLOWED[verb]}
    if State.QUEUED in allowed:
        allowed |= {SCHEDULED, DEFERRED}
    # A mass retry must not resend what somebody holds, unless that state is named.
    default = DEAD if verb == Verb.RETRY else _ALLOWED[verb]
    words = tuple(each for each in which.states or sorted(map(str, default)) if each in allowed)
    if not words:
        return []
    conditions = []
    if verb == Verb.RETRY and {State.QUEUED, SCHEDULED, DEFERRED}.intersection(words):
        conditions.append((Delivery.state != str(State.QUEUED)) | (Delivery.due_at > audit.now(db)))
    return replace(which, states=words).all(db, *conditions)


def _step(
    db: Database, action: _Action, ids: Sequence[int], entry: dict[str, Any], journal: int | None
) -> tuple[list[Answer], int]:
    """Judge and change one chunk in the open transaction, and count it in the journal."""
    now = audit.now(db)
    rows = _locked(db, ids, now)
    refused = {each: "does not exist" for each in ids if each not in rows}
    refused |= {each: words for each, row in rows.items() if (words := _judge(action, row))}
    allowed = [row for each, row in rows.items() if each not in refused]
    changed = action.change(db, allowed, now) if allowed else {}
    if changed and not isinstance(db, SqliteDatabase):
        db.execute_sql(_WAKE)
    if journal is None:
        journal = int(Journal.insert(at=now, count=len(changed), **entry).execute(db))
    else:
        Journal.update(count=Journal.count + len(changed)).where(Journal.id == journal).execute(db)
    return [Answer(each, each in changed, changed.get(each) or refused[each]) for each in ids], journal


def _locked(db: Database, ids: Sequence[int], now: datetime) -> dict[int, Row]:
    """The rows of these messages, locked until the end of the transaction (on SQLite all of them are, since BEGIN)."""
    query = (
        Delivery.select(*_JUDGED, Outbox.erased_at.is_null(False).alias("erased"))
        .join(Outbox, on=(Outbox.id == Delivery.message_id))
        .where(Delivery.message_id.in_(among(each for each in ids if 0 < each < 2**63)))
        .order_by(Delivery.message_id)  # one order for everybody who locks, or two of them wait for each other
    )
    if not isinstance(db, SqliteDatabase):
        query = query.for_update(of=Delivery)
    rows = {row["message_id"]: _row(row, now) for row in query.dicts().execute(db)}
    counted = audit.latest_fates(list(rows), Recipient.message_id, Recipient.fate, fn.COUNT(Recipient.position))
    for message_id, fate, count in counted.group_by(Recipient.message_id, Recipient.fate).tuples().execute(db):
        rows[message_id].fates[fate] = count
    return rows


_JUDGED = (
    Delivery.message_id,
    Delivery.state,
    Delivery.sender,
    Delivery.claim_no,
    Delivery.due_at,
    Delivery.hold_reason,
    Delivery.failures,
    Delivery.doubts,
    Delivery.first_attempt_at,
    Delivery.last_reply,
)


def _row(row: dict[str, Any], now: datetime) -> Row:
    return Row(
        row["message_id"],
        State(row["state"]),
        audit.standing(row, now),
        row["sender"],
        row["claim_no"],
        row["due_at"],
        row["hold_reason"] or "",
        bool(row["erased"]),
    )


def _transaction(db: Database, body: Callable[[], tuple[list[Answer], int]]) -> tuple[list[Answer], int]:
    """Run `body` in a transaction; again when a race was lost. On PostgreSQL an update that meets a row on its way to
    another partition gets 40001; on SQLite the lock was not free for as long as the connection waits.
    """
    for patience in (0.01, 0.05, 0.2, 0.5, None):
        try:
            with db.atomic():
                return body()
        except OperationalError as error:
            cause = error.__cause__ or error.__context__
            locked = "locked" in str(error)
            if patience is None or not (locked or getattr(cause, "sqlstate", None) in ("40001", "40P01")):
                hint = "another program holds the lock; end that program's transaction" if locked else ""
                raise DatabaseError(f"nothing more was changed: {' '.join(str(error).split())}", hint=hint) from error
            _rest(patience)
    raise AssertionError("unreachable")


def _rest(seconds: float) -> None:
    Event().wait(seconds)


# -- judging: "", or why not


def _judge(action: _Action, row: Row) -> str:
    if row.state in action.allowed:
        return action.judge(row)
    if row.state is State.SENDING:
        return "is being sent right now: try again in a moment"
    states = [str(state) for state in State if state in action.allowed]
    listed = " or ".join(filter(None, (", ".join(states[:-1]), states[-1])))
    return f"is {row.standing}: only {listed} messages can be {action.past}"


def _judge_retry(row: Row) -> str:
    if row.standing == State.QUEUED:
        return "is queued and due already: a runner takes it as soon as it may"
    return "has been erased: there is nothing left to send" if row.erased else ""


def _judge_release(row: Row) -> str:
    if row.hold_reason != DOUBT_HELD:
        return ""
    how = f"`outbox resolve {row.message_id} --sent` or `--resend`"
    return f"is held in doubt, the relay may have accepted it: say which with {how}"


def _judge_doubt(row: Row) -> str:
    return "" if row.fates[Fate.DOUBT] else "is held, but nothing is in doubt: use release, retry or cancel"


# -- words


def runs(ids: Sequence[int]) -> str:
    """``1-3,7`` for 1, 2, 3, 7; cut after about 200 characters, so that a journal row stays a line."""
    parts: list[list[int]] = []
    for each in sorted(ids):
        if parts and each == parts[-1][1] + 1:
            parts[-1][1] = each
        else:
            parts.append([each, each])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
    return text if len(text) <= 200 else text[:200].rpartition(",")[0] + ",…"
