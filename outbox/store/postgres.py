"""The store on PostgreSQL: many hosts, many runners, no leader. They meet only in the rows they lock.

Batches are one round trip: arrays for the claim and the mark, psycopg's pipeline for the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import peewee
import psycopg

from outbox.core.settlement import Claim
from outbox.store import Lane, Mark, Pick
from outbox.store.database import connect
from outbox.store.events import ANNOUNCE
from outbox.store.listener import advisory_key, translated
from outbox.store.queue import SUSPECTS, SqlStore
from outbox.store.rows import CLAIMED, as_claim, as_lane, moment

# A loose index scan: one seek a lane, in one round trip.
_LANES = """
WITH RECURSIVE lane AS (
  (SELECT sender, priority, due_at, 1 AS n FROM outbox_delivery
   WHERE state = 'queued' AND (sender, priority) > (%s, %s) ORDER BY sender, priority, due_at, message_id LIMIT 1)
  UNION ALL
  SELECT next.sender, next.priority, next.due_at, lane.n + 1 FROM lane CROSS JOIN LATERAL (
    SELECT sender, priority, due_at FROM outbox_delivery
    WHERE state = 'queued' AND (sender, priority) > (lane.sender, lane.priority)
    ORDER BY sender, priority, due_at, message_id LIMIT 1) AS next
  WHERE lane.n < %s
)
SELECT sender, priority, due_at FROM lane"""

# MATERIALIZED is an optimisation fence: a plain `IN (SELECT … LIMIT n)` may be run again and claim too many.
_CLAIM = f"""
WITH pick AS MATERIALIZED (
  SELECT due.message_id FROM unnest(%s::text[], %s::int[], %s::int[]) AS lane (sender, priority, count)
  CROSS JOIN LATERAL (
    SELECT message_id FROM outbox_delivery
    WHERE state = 'queued' AND sender = lane.sender AND priority = lane.priority AND due_at <= %s AND crashes = 0
    ORDER BY due_at, message_id LIMIT lane.count FOR UPDATE SKIP LOCKED) AS due
)
UPDATE outbox_delivery SET state = 'sending', claim_no = claim_no + 1, lease_owner = %s,
  dot_at = NULL, dot_through = NULL
WHERE state = 'queued' AND message_id IN (SELECT message_id FROM pick)
RETURNING {CLAIMED}"""

_CLAIM_ONE = f"""
WITH pick AS MATERIALIZED (
  SELECT message_id FROM outbox_delivery WHERE state = 'queued' AND message_id = %s AND due_at <= %s
  FOR UPDATE SKIP LOCKED
)
UPDATE outbox_delivery SET state = 'sending', claim_no = claim_no + 1, lease_owner = %s,
  dot_at = NULL, dot_through = NULL
WHERE state = 'queued' AND message_id IN (SELECT message_id FROM pick)
RETURNING {CLAIMED}"""

_SUSPECTS = f"""
SELECT {CLAIMED} FROM outbox_delivery
WHERE state = 'queued' AND crashes > 0 AND due_at <= %s AND message_id > %s
ORDER BY message_id LIMIT %s"""

_MARK = """
UPDATE outbox_delivery AS d SET dot_at = %s, dot_through = m.through
FROM unnest(%s::bigint[], %s::int[], %s::int[]) AS m (message_id, claim_no, through)
WHERE d.message_id = m.message_id AND d.claim_no = m.claim_no AND d.state = 'sending' RETURNING d.message_id"""


# Listeners look every half second whether the server is back.
_JUST_STARTED = "SELECT clock_timestamp() < pg_postmaster_start_time() + interval '2 s'"

# A host that goes away in the middle of a transaction keeps its rows locked until the server notices: by the system's
# defaults after two hours. (idle_in_transaction_session_timeout does not count after a pipeline.)
_NOTICE = "SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"


class PostgresStore(SqlStore):
    """See `outbox.store.Store`."""

    headers_column = "headers::text"
    skip_locked_of = staticmethod(lambda table: f"FOR UPDATE OF {table} SKIP LOCKED")
    translate = staticmethod(lambda sql: sql.replace("?", "%s"))

    def open(self) -> None:
        if self.is_open and self.db.is_connection_usable():
            return
        self.close()
        with translated():
            self.db = connect(self.url, application_name="outbox runner")
            self.db.execute_sql(_NOTICE)

    def close(self) -> None:
        if self.is_open:
            with suppress(peewee.PeeweeException, psycopg.Error):
                self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with translated(), self._cursor().connection.transaction():
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        with translated():
            yield

    def now(self) -> datetime:
        """The server's clock: the hosts' clocks differ."""
        now: datetime = self._all("SELECT clock_timestamp()")[0][0]
        return now.astimezone(UTC)

    def changes(self) -> int | None:
        return None

    def _announce(self) -> None:
        self._cursor().execute(ANNOUNCE)

    def _matched(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[bool]:
        if not rows:
            return []
        cursor = self._cursor()
        cursor.executemany(self.translate(sql), rows, returning=True)
        matched = []
        while True:
            matched.append(cursor.fetchone() is not None)
            if not cursor.nextset():
                return matched

    def lanes(self, after: str, limit: int) -> list[Lane]:
        return [as_lane(row) for row in self._all(_LANES, (after, 10, limit))]

    def suspects(self, after: int, now: datetime) -> list[Claim]:
        return [as_claim(row)[2] for row in self._all(_SUSPECTS, (moment(now), after, SUSPECTS))]

    def _claim_tier(self, runner: str, picks: Sequence[Pick], now: datetime) -> list[Claim]:
        senders, priorities = [each.sender for each in picks], [each.priority for each in picks]
        rows = self._all(_CLAIM, (senders, priorities, [each.count for each in picks], moment(now), runner))
        order = {each.sender: place for place, each in enumerate(picks)}
        ready = sorted(map(as_claim, rows), key=lambda row: (order[row[2].sender], row[0], row[1]))
        return [claim for _, _, claim in ready]

    def _claim_single(self, runner: str, message_id: int, now: datetime) -> list[Claim]:
        return [as_claim(row)[2] for row in self._all(_CLAIM_ONE, (message_id, moment(now), runner))]

    absent_for = 0.5

    def absent(self, runners: Sequence[str]) -> list[str]:
        """The advisory lock is free: dead, or on its way back after its connection broke. So look twice.

        Just after a start of the server every lock is free, and the runners are on their way back: they would all
        declare each other dead. Then the lock proves nothing.
        """
        if self._all(_JUST_STARTED)[0][0]:
            return []
        sql = "SELECT pg_try_advisory_xact_lock(?)"
        return [runner for runner in runners if self._all(sql, (advisory_key(runner),))[0][0]]

    def mark(self, marks: Sequence[Mark], now: datetime) -> list[bool]:
        ids, numbers = [each.message_id for each in marks], [each.claim_no for each in marks]
        rows = self._all(_MARK, (moment(now), ids, numbers, [each.through for each in marks]))
        marked = {row[0] for row in rows}
        self._record_marked((each for each in marks if each.message_id in marked), now)
        return [each.message_id in marked for each in marks]
