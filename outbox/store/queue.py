"""The protocol's verbs as constant SQL, shared by both dialects (DESIGN §3.2–3.7).

Constant statements because these run for every mail: peewee builds a statement in 90–260 µs, a constant runs in 4–9.
What differs between the dialects (the claim, the mark, how many round trips a batch takes) is in sqlite.py and
postgres.py; how statements run is in statements.py, what the dead had claimed in reclaim.py.

Every write that ends or marks an attempt is fenced by `claim_no`, which only ever grows: a runner that lost its claim
matches no row, and can never overwrite a newer result.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime

from outbox.core.lifecycle import FINAL
from outbox.core.message import Attachment
from outbox.core.settlement import Claim, Fate, Result, Settlement
from outbox.errors import InvalidMessage
from outbox.store import Content, DeclaredDeadError, Lane, Mark, Pick, Settled, Waiting, faults
from outbox.store.journal import Act
from outbox.store.reclaim import Reclaiming
from outbox.store.rows import (
    as_bytes,
    as_sender,
    attempt_row,
    content_of,
    moment,
    moment_of,
    recipient_row,
    reply_columns,
    settle_row,
)
from outbox.store.statements import RECORD_RECIPIENT

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
UPDATE outbox_delivery SET state = ?, due_at = COALESCE(?, due_at), final_at = ?, lease_owner = NULL
WHERE message_id = ? AND claim_no = ? AND state = 'sending'
RETURNING message_id"""

_CLOSE_ATTEMPT = """
UPDATE outbox_attempt SET dot_at = ?, ended_at = ?, outcome = ?, stage = ?, code = ?, status = ?, reply = ?,
  relay = ?, tls = ?, account = ?, sha256 = ?, rule = ?
WHERE message_id = ? AND claim_no = ? AND ended_at IS NULL"""

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

_WAITING = """
SELECT {sender}, count(*), min(due_at) FROM outbox_delivery WHERE state = 'queued' GROUP BY sender ORDER BY sender"""

_CONTENT = """
SELECT id, token, {created_at}, sender, sender_name, recipients, cc, bcc, reply_to, subject, {headers}, return_path,
  dsn_notify, dsn_ret, dsn_envid, {bodies}, erased_at
FROM outbox WHERE id {which}"""

BODIES = ("text_body", "html_body", "raw")

_ATTACHMENTS = """
SELECT filename, content, content_type, content_id FROM outbox_attachment WHERE message_id = ? ORDER BY position"""

_FATES = """
SELECT position, fate FROM outbox_recipient WHERE message_id = ? ORDER BY claim_no"""

SUSPECTS = 8


class SqlStore(Reclaiming):
    """What both dialects share. A subclass says how to connect, how to claim and mark, and what its errors mean."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._content = self.translate(self._content_where("= ?"))

    # -- reading

    def look(self, after: str, limit: int, suspect: int, now: datetime) -> tuple[list[Lane], list[Claim]]:
        return self.lanes(after, limit), self.suspects(suspect, now)

    def _content_where(self, which: str, bodies: str = ", ".join(BODIES)) -> str:
        created_at, headers = self.created_column, self.headers_column
        return _CONTENT.format(created_at=created_at, headers=headers, bodies=bodies, which=which)

    def content(self, claim: Claim) -> Content:
        """Read what a claimed message says. A row that cannot be read (invalid UTF-8, gone) is an InvalidMessage."""
        try:
            columns = self._columns(self._content, claim.message_id)
            files = self._files(claim.message_id)
        except InvalidMessage as invalid:
            return Content(invalid, {}, 0)
        return content_of(columns, files, self._fates(claim.message_id) if claim.claim_no > 1 else {})

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """See `outbox.store.Store`."""

    @abstractmethod
    def single(self, *, durable: bool = True) -> AbstractContextManager[None]:
        """See `outbox.store.Store`."""

    @abstractmethod
    def lanes(self, after: str, limit: int) -> list[Lane]:
        """See `outbox.store.Store`."""

    @abstractmethod
    def suspects(self, after: int, now: datetime) -> list[Claim]:
        """See `outbox.store.Store`."""

    @abstractmethod
    def contents(self, claims: Sequence[Claim]) -> Iterator[tuple[Claim, Content | int]]:
        """See `Store.contents`."""

    def _fates(self, message_id: int) -> dict[int, Fate]:
        return {position: Fate(fate) for position, fate in self._all(_FATES, (message_id,))}

    def _files(self, message_id: int) -> tuple[Attachment, ...]:
        return tuple(
            Attachment(filename or "", as_bytes(content), content_type or "application/octet-stream", content_id or "")
            for filename, content, content_type, content_id in self._rows_of_one_message(_ATTACHMENTS, message_id)
        )

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
        faulty = [each for each in settlements if each.pause is not None or each.probed is not None]
        if faulty:
            faults.lock(self.db, faulty)
            for each in faulty:
                faults.record(self.db, each, Act(self.who, now, self.recording))
        learnt = [each.reply is not None and each.result is not Result.RELINQUISHED for each in settlements]
        tried = self._matched(_SETTLE, [settle_row(s, at) for s, told in zip(settlements, learnt, strict=True) if told])
        untried = [
            (str(s.state), moment(s.due_at), at if s.state in FINAL else None, s.message_id, s.claim_no)
            for s, told in zip(settlements, learnt, strict=True)
            if not told
        ]
        of_the_tried, of_the_others = iter(tried), iter(self._matched(_GIVE_BACK, untried))
        matched = [next(of_the_tried if each else of_the_others) for each in learnt]
        written = [each for each, ok in zip(settlements, matched, strict=True) if ok]
        self._many(_CLOSE_ATTEMPT, [attempt_row(each, at) for each in written])
        self._many(
            RECORD_RECIPIENT, [recipient_row(s.message_id, s.claim_no, fate, at) for s in written for fate in s.fates]
        )
        self._tell_settled(written, now)
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
                self._many(RECORD_RECIPIENT, [recipient_row(key[0], claim_no, each, at) for each in fates])
                if final:
                    self._tell_settled([replace(settlement, claim_no=claim_no)], now)
        return Settled.LATE

    def _record_marked(self, marks: Iterable[Mark], now: datetime) -> None:
        """The fates of the transactions that came before the marked one, in the same attempt."""
        at = moment(now)
        self._many(
            RECORD_RECIPIENT, [recipient_row(m.message_id, m.claim_no, fate, at) for m in marks for fate in m.fates]
        )

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
