"""The protocol's verbs as constant SQL, shared by both dialects (DESIGN §3.2–3.7).

Constant statements because these run for every mail: peewee builds a statement in 90–260 µs, a constant runs in 4–9.
What differs between the dialects (the claim, the mark, how many round trips a batch takes) is in sqlite.py and
postgres.py; everything here is written with `?` and translated once.

Every write that ends or marks an attempt is fenced by `claim_no`, which only ever grows: a runner that lost its claim
matches no row, and can never overwrite a newer result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import peewee

from outbox.core.lifecycle import FINAL, State
from outbox.core.message import Attachment, Message, recipients_of
from outbox.core.settlement import DOUBT_HELD, Claim, Fate, Result, Settlement
from outbox.errors import InvalidMessage
from outbox.store import Content, DeclaredDeadError, Mark, Pick, Reclaimed, Settled, TransientError, Waiting, faults
from outbox.store.journal import Act
from outbox.store.rows import (
    as_bytes,
    as_message,
    as_sender,
    attempt_row,
    moment,
    moment_of,
    parse_moment,
    recipient_row,
    reply_columns,
    settle_row,
)

_OPEN_ATTEMPT = "INSERT INTO outbox_attempt (message_id, claim_no, runner_id, started_at) VALUES (?, ?, ?, ?)"

_SETTLE = """
UPDATE outbox_delivery SET
  state = ?, due_at = COALESCE(?, due_at), failures = ?, doubts = doubts + ?, crashes = 0, lease_owner = NULL,
  final_at = ?, first_attempt_at = COALESCE(first_attempt_at, ?), hold_reason = ?,
  last_code = ?, last_status = ?, last_reply = ?
WHERE message_id = ? AND claim_no = ? AND state = 'sending'
RETURNING message_id"""

# Untried: nothing was learnt, so what the last attempt said stays, and so does a suspicion of crashing the runner.
_GIVE_BACK = """
UPDATE outbox_delivery SET state = ?, final_at = ?, lease_owner = NULL
WHERE message_id = ? AND claim_no = ? AND state = 'sending'
RETURNING message_id"""

_CLOSE_ATTEMPT = """
UPDATE outbox_attempt SET dot_at = ?, ended_at = ?, outcome = ?, stage = ?, code = ?, status = ?, reply = ?,
  relay = ?, tls = ?, account = ?, sha256 = ?
WHERE message_id = ? AND claim_no = ? AND ended_at IS NULL"""

# A group whose COMMIT was not acknowledged is written again: its rows are there already.
_RECIPIENT = """
INSERT INTO outbox_recipient (message_id, position, claim_no, address, kind, fate, code, status, reply, at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (message_id, position, claim_no) DO NOTHING"""

# A late 2xx: the claim was lost, but nobody has claimed the message since. claim_no moves on, so that the recipients'
# new fates are newer rows than the doubt which the reclaim wrote. The state is a final one, or NULL.
_LATE_ACCEPT = """
UPDATE outbox_delivery SET claim_no = claim_no + 1, state = COALESCE(?, state), final_at = COALESCE(?, final_at),
  hold_reason = CASE WHEN CAST(? AS TEXT) IS NULL THEN hold_reason END,
  last_code = ?, last_status = ?, last_reply = ?
WHERE message_id = ? AND claim_no = ? AND state IN ('queued', 'held')
RETURNING claim_no"""

_LATE_NOTE = (
    "UPDATE outbox_attempt SET late_outcome = ?, late_reply = ?, late_at = ? WHERE message_id = ? AND claim_no = ?"
)

# Read-then-write was refuted by a model checker; one conditional UPDATE was not (DESIGN §3.7).
_RECLAIM = """
UPDATE outbox_delivery SET
  state = CASE WHEN dot_at IS NOT NULL AND (on_doubt = 'hold' OR doubts >= ?) THEN 'held'
               WHEN crashes >= ? THEN 'held' ELSE 'queued' END,
  hold_reason = CASE WHEN dot_at IS NOT NULL AND (on_doubt = 'hold' OR doubts >= ?) THEN ?
                     WHEN crashes >= ? THEN ? END,
  doubts = doubts + CASE WHEN dot_at IS NOT NULL THEN 1 ELSE 0 END, crashes = crashes + 1, lease_owner = NULL,
  first_attempt_at = COALESCE(first_attempt_at, ?)
WHERE state = 'sending' AND {whose}
RETURNING message_id, claim_no, dot_at, dot_through, state"""

# The owner is a condition of the row itself: PostgreSQL looks at it again when another transaction was faster, and then
# it may be a new claim of a runner that lives. {skip}: a row that somebody has locked must not hold up all the others.
_OF_THE_DEAD = """lease_owner IN (SELECT id FROM outbox_runner WHERE dead_at IS NOT NULL)
AND message_id IN (SELECT d.message_id FROM outbox_delivery d JOIN outbox_runner r ON r.id = d.lease_owner
  WHERE d.state = 'sending' AND r.dead_at IS NOT NULL LIMIT ? {skip})"""
_STRAY = "message_id = ? AND claim_no = ?"

_CLOSE_LOST = """
UPDATE outbox_attempt SET dot_at = ?, ended_at = ?, outcome = ?
WHERE message_id = ? AND claim_no = ? AND ended_at IS NULL"""

_EXPIRE = """
UPDATE outbox_delivery SET state = 'expired', final_at = ?
WHERE message_id IN (SELECT message_id FROM outbox_delivery
  WHERE state = 'queued' AND expires_at IS NOT NULL AND expires_at <= ? ORDER BY expires_at LIMIT ? {skip})
AND state = 'queued' AND expires_at <= ? RETURNING message_id"""

_EXPIRABLE = """
SELECT 1 FROM outbox_delivery WHERE state = 'queued' AND expires_at IS NOT NULL AND expires_at <= ? LIMIT 1"""

_WAITING = """
SELECT {sender}, count(*), min(due_at) FROM outbox_delivery WHERE state = 'queued' GROUP BY sender ORDER BY sender"""

_SETTLED_POSITIONS = """
SELECT position FROM outbox_fate WHERE message_id = ? AND (fate IN ('accepted', 'bounced') OR claim_no = ?)"""

_CONTENT = """
SELECT id, token, {created_at}, sender, sender_name, recipients, cc, bcc, reply_to, subject, {headers}, return_path,
  text_body, html_body, raw, erased_at
FROM outbox WHERE id = ?"""

# Who a message is for, without its bodies; a raw one only where nothing else says it.
_ENVELOPE = """
SELECT id, token, {created_at}, sender, NULL, recipients, cc, bcc, NULL, NULL, NULL, NULL, NULL, NULL,
  CASE WHEN COALESCE(recipients, '') = '' AND COALESCE(cc, '') = '' AND COALESCE(bcc, '') = '' THEN raw END, erased_at
FROM outbox WHERE id = ?"""

_ATTACHMENTS = """
SELECT filename, content, content_type, content_id FROM outbox_attachment WHERE message_id = ? ORDER BY position"""

_FATES = """
SELECT position, fate FROM outbox_recipient WHERE message_id = ? ORDER BY claim_no"""

CRASHES_HELD = "its last three attempts were lost: perhaps it ends its runner; `outbox release ID` tries it again"
CRASHES_BEFORE_HELD = 2
_DIED = "the runner died after it had asked to write the dot"
RECLAIM_BATCH = 200
EXPIRE_BATCH = 200
SUSPECTS = 8


class SqlStore(ABC):
    """What both dialects share. A subclass says how to connect, how to claim and mark, and what its errors mean."""

    created_column = "created_at"
    headers_column = "headers"
    sender_column = "sender"
    skip_locked_of: Callable[[str], str] = staticmethod(lambda table: "")
    translate: Callable[[str], str] = staticmethod(lambda sql: sql)

    db: peewee.Database

    def __init__(self, url: str) -> None:
        self.url = url
        self.who = "runner"
        self._reclaim_dead = self.translate(_RECLAIM.format(whose=_OF_THE_DEAD.format(skip=self.skip_locked_of("d"))))
        self._reclaim_stray = self.translate(_RECLAIM.format(whose=_STRAY))
        self._content = self.translate(_CONTENT.format(created_at=self.created_column, headers=self.headers_column))
        self._envelope = self.translate(_ENVELOPE.format(created_at=self.created_column))

    @property
    def is_open(self) -> bool:
        return hasattr(self, "db") and not self.db.is_closed()

    # -- how statements run; postgres.py overrides the two for batches with pipelines

    def _cursor(self) -> Any:
        if not self.is_open:  # peewee would open it again by itself: a new, empty file, where the old one is gone
            raise TransientError("not connected", reconnect=True)
        return self.db.connection().cursor()

    def _all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        cursor = self._cursor()
        cursor.execute(self.translate(sql), parameters)
        rows: list[Any] = cursor.fetchall()
        return rows

    def _many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """One statement for many rows, whose results nobody needs."""
        if rows:
            self._cursor().executemany(self.translate(sql), rows)

    def _matched(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[bool]:
        """One fenced UPDATE … RETURNING per row: which of them matched."""
        statement = self.translate(sql)
        cursor = self._cursor()
        return [cursor.execute(statement, row).fetchone() is not None for row in rows]

    # -- reading

    def content(self, claim: Claim) -> Content:
        """Read what a claimed message says. A row that cannot be read (invalid UTF-8, gone) is an InvalidMessage."""
        try:
            message, size = self._message(claim.message_id)
        except InvalidMessage as invalid:
            return Content(invalid, {}, 0)
        fates = self._fates(claim.message_id) if claim.claim_no > 1 else {}
        return Content(message, fates, size)

    def _fates(self, message_id: int) -> dict[int, Fate]:
        return {position: Fate(fate) for position, fate in self._all(_FATES, (message_id,))}

    def _message(self, message_id: int) -> tuple[Message, int]:
        columns = self._columns(self._content, message_id)
        files = tuple(
            Attachment(filename or "", as_bytes(content), content_type or "application/octet-stream", content_id or "")
            for filename, content, content_type, content_id in self._rows_of_one_message(_ATTACHMENTS, message_id)
        )
        message = as_message(columns, files)
        size = sum(len(each.content) for each in files) + sum(
            len(part) for part in (message.text_body, message.html_body, message.raw, message.recipients) if part
        )
        return message, size

    def _columns(self, sql: str, message_id: int) -> list[Any]:
        """The row of a message, for `as_message`. Raises InvalidMessage when it says nothing any more."""
        rows = self._rows_of_one_message(sql, message_id)
        if not rows:
            raise InvalidMessage("5.6.0", "the message has been deleted")
        columns: list[Any]
        *columns, erased_at = rows[0]
        if erased_at is not None:
            raise InvalidMessage("5.6.0", "the content of the message has been erased")
        return columns

    def _rows_of_one_message(self, sql: str, message_id: int) -> list[Any]:
        return self._all(sql, (message_id,))

    def sending(self) -> int:
        """How many messages are being sent, by any runner."""
        return int(self._all("SELECT count(*) FROM outbox_delivery WHERE state = 'sending'")[0][0])

    def waiting(self) -> list[Waiting]:
        rows = self._all(_WAITING.format(sender=self.sender_column))
        return [Waiting(as_sender(sender), count, moment_of(due_at)) for sender, count, due_at in rows]

    def held(self) -> int:
        return int(self._all("SELECT count(*) FROM outbox_delivery WHERE state = 'held'")[0][0])

    def my_claims(self, runner: str) -> list[tuple[int, int]]:
        rows = self._all(
            "SELECT message_id, claim_no FROM outbox_delivery WHERE state = 'sending' AND lease_owner = ?", (runner,)
        )
        return [(message_id, claim_no) for message_id, claim_no in rows]

    # -- settling

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> list[Settled]:
        """Write what became of claimed messages: delivery, attempt, recipients, and the pause. In order, each WRITTEN
        or LATE.
        """
        at = moment(now)
        for each in settlements:
            if each.pause is not None:
                faults.record(self.db, each, Act(self.who, now))
        learnt = [each.reply is not None for each in settlements]
        tried = self._matched(_SETTLE, [settle_row(each, at) for each in settlements if each.reply is not None])
        untried = [
            (each.state, at if each.state in FINAL else None, each.message_id, each.claim_no)
            for each in settlements
            if each.reply is None
        ]
        of_the_tried, of_the_others = iter(tried), iter(self._matched(_GIVE_BACK, untried))
        matched = [next(of_the_tried if each else of_the_others) for each in learnt]
        written = [each for each, ok in zip(settlements, matched, strict=True) if ok]
        self._many(_CLOSE_ATTEMPT, [attempt_row(each, at) for each in written])
        self._many(_RECIPIENT, [recipient_row(s.message_id, s.claim_no, fate, at) for s in written for fate in s.fates])
        pairs = zip(settlements, matched, strict=True)
        return [Settled.WRITTEN if ok else self._settle_late(each, now) for each, ok in pairs]

    def _settle_late(self, settlement: Settlement, now: datetime) -> Settled:
        """The claim was not found in `sending`: either this was written before and only the acknowledgement got lost,
        or the claim was lost. What is true all the same is kept: a 2xx settles, the rest is noted on the attempt.
        """
        key = (settlement.message_id, settlement.claim_no)
        attempt = self._all("SELECT outcome FROM outbox_attempt WHERE message_id = ? AND claim_no = ?", key)
        if attempt and attempt[0][0] == settlement.result and settlement.result is not Result.DOUBT:
            return Settled.WRITTEN
        if settlement.result is Result.RELINQUISHED:
            return Settled.LATE
        at, reply = moment(now), settlement.reply
        self._all(_LATE_NOTE + " RETURNING 1", (settlement.result, str(reply or ""), at, *key))
        accepted = [each for each in settlement.fates if each.fate is Fate.ACCEPTED]
        if accepted:
            final = settlement.state in FINAL
            state, final_at = (settlement.state, at) if final else (None, None)
            moved = self._all(_LATE_ACCEPT, (state, final_at, state, *reply_columns(settlement), *key))
            fates = settlement.fates if final else accepted
            for (claim_no,) in moved:
                self._many(_RECIPIENT, [recipient_row(key[0], claim_no, each, at) for each in fates])
        return Settled.LATE

    def _record_marked(self, marks: Iterable[Mark], now: datetime) -> None:
        """The fates of the transactions that came before the marked one, in the same attempt."""
        at = moment(now)
        self._many(_RECIPIENT, [recipient_row(m.message_id, m.claim_no, fate, at) for m in marks for fate in m.fates])

    # -- taking back

    def reclaim(self, max_doubts: int, now: datetime) -> list[Reclaimed]:
        """Take back what runners declared dead were sending; at most RECLAIM_BATCH at a time."""
        return self._reclaim(self._reclaim_dead, (RECLAIM_BATCH,), max_doubts, now)

    def reclaim_stray(self, message_id: int, claim_no: int, max_doubts: int, now: datetime) -> list[Reclaimed]:
        """Take back one claim that its own runner knows nothing of (a COMMIT whose acknowledgement was lost)."""
        return self._reclaim(self._reclaim_stray, (message_id, claim_no), max_doubts, now)

    def _reclaim(self, sql: str, whose: tuple[int, ...], max_doubts: int, now: datetime) -> list[Reclaimed]:
        at = moment(now)
        limits = (max_doubts, CRASHES_BEFORE_HELD, max_doubts, DOUBT_HELD, CRASHES_BEFORE_HELD, CRASHES_HELD, at)
        rows = self._all(sql, (*limits, *whose))
        self._many(
            _CLOSE_LOST,
            [
                (moment(parse_moment(dot_at)), at, Result.DOUBT if dot_at else Result.LOST, message_id, claim_no)
                for message_id, claim_no, dot_at, _, _ in rows
            ],
        )
        for message_id, claim_no, dot_at, through, _ in rows:
            if dot_at is not None:
                self._record_doubt(message_id, claim_no, through, at)
        return [Reclaimed(row[0], row[1], row[2] is not None, row[4] == State.HELD) for row in rows]

    def _record_doubt(self, message_id: int, claim_no: int, through: int | None, at: str | None) -> None:
        """One row for every recipient that the dead runner's last dot covered."""
        try:
            recipients = recipients_of(as_message(self._columns(self._envelope, message_id), ()))
        except InvalidMessage:
            return
        settled = {position for (position,) in self._all(_SETTLED_POSITIONS, (message_id, claim_no))}
        self._many(
            _RECIPIENT,
            [
                (message_id, each.position, claim_no, each.address, each.kind, Fate.DOUBT, None, None, _DIED, at)
                for each in recipients
                if each.position not in settled and (through is None or each.position <= through)
            ],
        )

    def expire(self, now: datetime) -> int:
        """End what waits past its `expires_at`; at most EXPIRE_BATCH at a time. How many."""
        at = moment(now)
        return len(self._all(_EXPIRE.format(skip=self.skip_locked_of("outbox_delivery")), (at, at, EXPIRE_BATCH, at)))

    def expirable(self, now: datetime) -> bool:
        """The read probe for `expire`: an UPDATE of no rows would take the write lock."""
        return bool(self._all(_EXPIRABLE, (moment(now),)))

    # -- claiming

    def claim(self, runner: str, picks: Sequence[Pick], now: datetime) -> list[Claim]:
        """Tier by tier: the picks of one sender share a count, so what its urgent lane took, the next one cannot."""
        self._must_live(runner)
        left = {pick.sender: pick.count for pick in picks}
        claims: list[Claim] = []
        for tier in _tiers(picks):
            wanted = [replace(pick, count=left[pick.sender]) for pick in tier if left[pick.sender] > 0]
            for claim in self._claim_tier(runner, wanted, now) if wanted else ():
                left[claim.sender] -= 1
                claims.append(claim)
        self._open_attempts(runner, claims, now)
        return claims

    def claim_one(self, runner: str, message_id: int, now: datetime) -> list[Claim]:
        self._must_live(runner)
        claims = self._claim_single(runner, message_id, now)
        self._open_attempts(runner, claims, now)
        return claims

    def _must_live(self, runner: str) -> None:
        if not self._all("SELECT 1 FROM outbox_runner WHERE id = ? AND dead_at IS NULL", (runner,)):
            raise DeclaredDeadError(runner)

    @abstractmethod
    def _claim_tier(self, runner: str, picks: Sequence[Pick], now: datetime) -> list[Claim]:
        """Take due messages, at most one lane of each sender."""

    @abstractmethod
    def _claim_single(self, runner: str, message_id: int, now: datetime) -> list[Claim]:
        """Take this message, if it is due."""

    def _open_attempts(self, runner: str, claims: Sequence[Claim], now: datetime) -> None:
        at = moment(now)
        self._many(_OPEN_ATTEMPT, [(each.message_id, each.claim_no, runner, at) for each in claims])


def _tiers(picks: Sequence[Pick]) -> list[list[Pick]]:
    """The first lane of every sender, then the second of those that have one, and so on."""
    tiers: list[list[Pick]] = []
    seen: dict[str, int] = {}
    for pick in picks:
        tier = seen.get(pick.sender, 0)
        seen[pick.sender] = tier + 1
        if tier == len(tiers):
            tiers.append([])
        tiers[tier].append(pick)
    return tiers


def origin_of(error: BaseException) -> BaseException:
    """The driver's own error, which has the code; peewee wraps it."""
    while isinstance(error, peewee.PeeweeException) and (inner := error.__cause__ or error.__context__):
        error = inner
    return error
