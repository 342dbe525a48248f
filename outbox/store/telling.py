"""The runner's events, as constant SQL in the settlement's own transaction: they run for every mail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from outbox.core.lifecycle import State
from outbox.core.settlement import Settlement
from outbox.store import Lane, Place
from outbox.store.events import EVERYTHING, RECORD, Kind, Words
from outbox.store.rows import moment, reply_columns
from outbox.store.statements import Statements

# Once a message, and not by the age of an earlier life: what an operator retries begins anew. An outage or a pause
# begins no age of the message's own, but whoever waits for the mail wants to know: then its first such attempt counts.
_DELAYED = """
SELECT message_id FROM outbox_delivery AS d WHERE message_id IN ({ids})
AND COALESCE(first_attempt_at, (SELECT min(started_at) FROM outbox_attempt AS a
  WHERE a.message_id = d.message_id AND a.outcome = 'paused')) <= ?
AND NOT EXISTS (SELECT 1 FROM outbox_event AS e WHERE e.message_id = d.message_id AND e.kind = 'delayed')"""

# What waits behind a pause and is not tried has no settlement that could tell of it.
_OVERDUE = """
SELECT due_at, message_id FROM outbox_delivery
WHERE state = 'queued' AND sender = CAST(? AS TEXT) AND priority = ? AND (due_at, message_id) > (?, ?) AND due_at <= ?
ORDER BY due_at, message_id LIMIT ?"""

_STILL_WAITING = """
SELECT message_id, claim_no FROM outbox_delivery AS d WHERE message_id IN ({ids}) AND state = 'queued'
AND NOT EXISTS (SELECT 1 FROM outbox_event AS e WHERE e.message_id = d.message_id AND e.kind = 'delayed')
ORDER BY message_id {skip}"""

_LAST_WORDS = "SELECT last_code, last_status, last_reply FROM outbox_delivery WHERE message_id = ?"

_ENDS = {State.SENT: Kind.ACCEPTED, State.FAILED: Kind.BOUNCED, State.EXPIRED: Kind.EXPIRED}

Told = tuple[int, int, Words]
"""Message, claim, and the words of the event."""

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Telling(Statements):
    """Writes events for what the other verbs have done. `recording` says which."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.recording = EVERYTHING

    def overdue(self, lane: Lane, after: Place | None, until: datetime, limit: int) -> list[Place]:
        """The next of a lane's messages that have been due since `until` or before, by their due times."""
        due_at, message_id = after or (moment(_LONG_AGO), 0)
        key = (self._lane_value(lane.sender), lane.priority)
        rows = self._all(_OVERDUE, (*key, due_at, message_id, moment(until), limit))
        return [(due_at, message_id) for due_at, message_id in rows]

    def tell_delayed(self, messages: Iterable[int], reason: str, now: datetime) -> None:
        """Those of these messages that still wait are delayed, unless that was told before."""
        sql = _STILL_WAITING.format(ids=",".join(map(str, messages)), skip=self.skip_locked_of("d"))
        self._tell(Kind.DELAYED, [(*row, (None, None, reason)) for row in self._all(sql)], moment(now))

    def _lane_value(self, sender: str) -> str | bytes:
        return sender

    def _tell(self, kind: Kind, told: Iterable[Told], at: str | None) -> None:
        """An event of this kind for each of these messages."""
        if self.recording.wants(kind):
            self._record([self.recording.row(kind, at, *each) for each in told])

    def _tell_settled(self, written: Sequence[Settlement], now: datetime) -> None:
        """What came of these settlements, in their order."""
        recording, at = self.recording, moment(now)
        wanted = {state: kind for state, kind in _ENDS.items() if recording.wants(kind)}
        doubt = Kind.DOUBT if recording.wants(Kind.DOUBT) else None
        rows = []
        for each in written:
            kind = doubt if each.doubted else wanted.get(each.state)
            if kind is not None:
                words = self._last_words(each) if each.reply is None else reply_columns(each)
                rows.append(recording.row(kind, at, each.message_id, each.claim_no, words))
        if recording.wants(Kind.DELAYED):
            rows += self._delayed([each for each in written if each.state is State.QUEUED and not each.doubted], now)
        self._record(rows)

    def _delayed(self, waiting: Sequence[Settlement], now: datetime) -> list[tuple[Any, ...]]:
        tried = {each.message_id: each for each in waiting if each.reply is not None}
        if not tried:
            return []
        sql = _DELAYED.format(ids=",".join(map(str, tried)))
        late = [tried[message_id] for (message_id,) in self._all(sql, (moment(now - self.recording.delayed_after),))]
        row, at = self.recording.row, moment(now)
        return [row(Kind.DELAYED, at, each.message_id, each.claim_no, reply_columns(each)) for each in late]

    def _last_words(self, settlement: Settlement) -> Words:
        """Of a message that ended untried: what the last attempt was told."""
        (words,) = self._all(_LAST_WORDS, (settlement.message_id,))
        code, status, reply = words
        return code, status, reply

    def _record(self, rows: Sequence[Sequence[object]]) -> None:
        if rows:
            self._many(RECORD, rows)
            self._announce()

    def _announce(self) -> None:
        """Say that there are events, where the database can."""
