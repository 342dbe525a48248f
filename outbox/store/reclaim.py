"""What is taken back from runners that died, and what is ended because it is too late (DESIGN §3.7)."""

from __future__ import annotations

from datetime import datetime

from outbox.core.lifecycle import State
from outbox.core.message import recipients_of
from outbox.core.settlement import DOUBT_HELD, Fate, Result
from outbox.errors import InvalidMessage
from outbox.store import Reclaimed, probes
from outbox.store.events import Kind
from outbox.store.rows import as_message, moment, moment_of, parse_moment
from outbox.store.statements import RECORD_RECIPIENT
from outbox.store.telling import Telling

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

_CLAIMED_AT = "SELECT started_at FROM outbox_attempt WHERE message_id = ? AND claim_no = ?"

_EXPIRE = """
UPDATE outbox_delivery SET state = 'expired', final_at = ?
WHERE message_id IN (SELECT message_id FROM outbox_delivery
  WHERE state = 'queued' AND expires_at IS NOT NULL AND expires_at <= ? ORDER BY expires_at LIMIT ? {skip})
AND state = 'queued' AND expires_at <= ? RETURNING message_id, claim_no, last_code, last_status, last_reply"""

_EXPIRABLE = """
SELECT 1 FROM outbox_delivery WHERE state = 'queued' AND expires_at IS NOT NULL AND expires_at <= ? LIMIT 1"""

_SETTLED_POSITIONS = """
SELECT position FROM outbox_fate WHERE message_id = ? AND (fate IN ('accepted', 'bounced') OR claim_no = ?)"""

# Who a message is for, without its bodies; a raw one only where nothing else says it.
_ENVELOPE = """
SELECT id, token, {created_at}, sender, NULL, recipients, cc, bcc, NULL, NULL, NULL, NULL,
  NULL, NULL, NULL, NULL, NULL,
  CASE WHEN COALESCE(recipients, '') = '' AND COALESCE(cc, '') = '' AND COALESCE(bcc, '') = '' THEN raw END, erased_at
FROM outbox WHERE id = ?"""

CRASHES_HELD = "its last three attempts were lost: perhaps it ends its runner; `outbox release ID` tries it again"
CRASHES_BEFORE_HELD = 2
_DIED = "the runner died after it had asked to write the dot"
RECLAIM_BATCH = 200
EXPIRE_BATCH = 200


class Reclaiming(Telling):
    """The verbs of upkeep. `reclaim` and `expire` take a batch at a time."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._reclaim_dead = self.translate(_RECLAIM.format(whose=_OF_THE_DEAD.format(skip=self.skip_locked_of("d"))))
        self._reclaim_stray = self.translate(_RECLAIM.format(whose=_STRAY))
        self._envelope = self.translate(_ENVELOPE.format(created_at=self.created_column))

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
        if rows:
            probes.abandon(self.db, [self._claimed_at(row[0], row[1]) for row in rows])
        for message_id, claim_no, dot_at, through, _ in rows:
            if dot_at is not None:
                self._record_doubt(message_id, claim_no, through, at)
        doubts = [(row[0], row[1], (None, None, _DIED)) for row in rows if row[2] is not None]
        self._tell(Kind.DOUBT, doubts, at)
        return [Reclaimed(row[0], row[1], row[2] is not None, row[4] == State.HELD) for row in rows]

    def _claimed_at(self, message_id: int, claim_no: int) -> datetime:
        [[at]] = self._all(_CLAIMED_AT, (message_id, claim_no))
        return moment_of(at)

    def _record_doubt(self, message_id: int, claim_no: int, through: int | None, at: str | None) -> None:
        """One row for every recipient that the dead runner's last dot covered."""
        try:
            recipients = recipients_of(as_message(self._columns(self._envelope, message_id), ()))
        except InvalidMessage:
            return
        settled = {position for (position,) in self._all(_SETTLED_POSITIONS, (message_id, claim_no))}
        self._many(
            RECORD_RECIPIENT,
            [
                (message_id, each.position, claim_no, each.address, each.kind, Fate.DOUBT, None, None, _DIED, at)
                for each in recipients
                if each.position not in settled and (through is None or each.position <= through)
            ],
        )

    def expire(self, now: datetime) -> int:
        """End what waits past its `expires_at`; at most EXPIRE_BATCH at a time. How many."""
        at = moment(now)
        sql = _EXPIRE.format(skip=self.skip_locked_of("outbox_delivery"))
        ended = self._all(sql, (at, at, EXPIRE_BATCH, at))
        told = [(message_id, claim_no, (*words,)) for message_id, claim_no, *words in sorted(ended)]
        self._tell(Kind.EXPIRED, told, at)
        return len(ended)

    def expirable(self, now: datetime) -> bool:
        """The read probe for `expire`: an UPDATE of no rows would take the write lock."""
        return bool(self._all(_EXPIRABLE, (moment(now),)))
