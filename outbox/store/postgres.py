"""The store on PostgreSQL: many hosts, many runners, no leader. They meet only in the rows they lock.

Batches are one round trip: the rows of a statement are arrays (arrays.py), and claiming opens the attempts, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import peewee
import psycopg

from outbox.clock import Clock
from outbox.core.lifecycle import State
from outbox.core.settlement import Claim, Fate, Settlement
from outbox.store import LARGE, Content, Lane, Mark, Pick, Settled, TransientError
from outbox.store.arrays import as_arrays, for_arrays
from outbox.store.database import connect
from outbox.store.events import ANNOUNCE
from outbox.store.floors import Floors
from outbox.store.listener import advisory_key, translated
from outbox.store.queue import BODIES, SUSPECTS, SqlStore
from outbox.store.rows import CLAIMED, as_claim, as_lane, content_of, moment

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

# A row more where there is a suspect, which is rare: then they are asked for.
_SUSPECTED = """
UNION ALL (SELECT NULL, NULL, NULL FROM outbox_delivery
  WHERE state = 'queued' AND crashes > 0 AND due_at <= %s AND message_id > %s LIMIT 1)"""

_EXPIRABLE = """
SELECT 1 FROM outbox_delivery
WHERE state = 'queued' AND expires_at IS NOT NULL AND expires_at >= %s AND expires_at <= %s LIMIT 1"""

# The same between the lanes whose floors are known, and from those floors on in these.
_LANES_WITH_FLOORS = """
SELECT lane.sender, lane.priority, lane.due_at
FROM unnest((SELECT %s::text[]), %s::int[], %s::text[], %s::int[]) AS gap (sender, priority, end_sender, end_priority)
CROSS JOIN LATERAL (
  WITH RECURSIVE lane AS (
    (SELECT sender, priority, due_at, 1 AS n FROM outbox_delivery
     WHERE state = 'queued' AND (sender, priority) > (gap.sender, gap.priority)
       AND (sender, priority) < (gap.end_sender, gap.end_priority)
     ORDER BY sender, priority, due_at, message_id LIMIT 1)
    UNION ALL
    SELECT next.sender, next.priority, next.due_at, lane.n + 1 FROM lane CROSS JOIN LATERAL (
      SELECT sender, priority, due_at FROM outbox_delivery
      WHERE state = 'queued' AND (sender, priority) > (lane.sender, lane.priority)
        AND (sender, priority) < (gap.end_sender, gap.end_priority)
      ORDER BY sender, priority, due_at, message_id LIMIT 1) AS next
    WHERE lane.n < %s
  )
  SELECT sender, priority, due_at FROM lane) AS lane
UNION ALL
SELECT lane.sender, lane.priority, head.due_at
FROM unnest((SELECT %s::text[]), %s::int[], %s::timestamptz[], %s::bigint[])
  AS lane (sender, priority, due_at, message_id)
CROSS JOIN LATERAL (
  SELECT due_at FROM outbox_delivery
  WHERE state = 'queued' AND sender = lane.sender AND priority = lane.priority
    AND (due_at, message_id) >= (lane.due_at, lane.message_id)
  ORDER BY due_at, message_id LIMIT 1) AS head"""

_WRITERS = """
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = 'outbox'::regclass AND mode = 'RowExclusiveLock'
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

# MATERIALIZED is an optimisation fence: a plain `IN (SELECT … LIMIT n)` may be run again and claim too many. What is
# locked stays where it is, so it is found again by its place. The same statement opens the attempts.
_CLAIM_PICKED = f"""
, claimed AS (
  UPDATE outbox_delivery SET state = 'sending', claim_no = claim_no + 1, lease_owner = %s,
    dot_at = NULL, dot_through = NULL
  WHERE state = 'queued' AND ctid = ANY (ARRAY(SELECT place FROM pick))
  RETURNING {CLAIMED}
), opened AS (
  INSERT INTO outbox_attempt (message_id, claim_no, runner_id, started_at)
  SELECT message_id, claim_no, %s, %s FROM claimed
)
SELECT {CLAIMED} FROM claimed"""

_CLAIM = f"""
WITH pick AS MATERIALIZED (
  SELECT due.place
  FROM unnest((SELECT %s::text[]), %s::int[], %s::int[], %s::timestamptz[], %s::bigint[])
    AS lane (sender, priority, count, due_at, message_id)
  CROSS JOIN LATERAL (
    SELECT ctid AS place FROM outbox_delivery
    WHERE state = 'queued' AND sender = lane.sender AND priority = lane.priority
      AND (due_at, message_id) >= (lane.due_at, lane.message_id) AND due_at <= %s AND crashes = 0
    ORDER BY due_at, message_id LIMIT lane.count FOR UPDATE SKIP LOCKED) AS due
  WHERE EXISTS (SELECT FROM outbox_runner WHERE id = %s AND dead_at IS NULL)
)
{_CLAIM_PICKED}"""

_CLAIM_ONE = f"""
WITH pick AS MATERIALIZED (
  SELECT ctid AS place FROM outbox_delivery WHERE state = 'queued' AND message_id = %s AND due_at <= %s
    AND EXISTS (SELECT FROM outbox_runner WHERE id = %s AND dead_at IS NULL)
  FOR UPDATE SKIP LOCKED
)
{_CLAIM_PICKED}"""

_SUSPECTS = f"""
SELECT {CLAIMED} FROM outbox_delivery
WHERE state = 'queued' AND crashes > 0 AND due_at <= %s AND message_id > %s
ORDER BY message_id LIMIT %s"""

_MARK = """
UPDATE outbox_delivery AS d SET dot_at = %s, dot_through = m.through
FROM unnest((SELECT %s::bigint[]), %s::int[], %s::int[]) AS m (message_id, claim_no, through)
WHERE d.message_id = m.message_id AND d.claim_no = m.claim_no AND d.state = 'sending' RETURNING d.message_id"""


# Of the batch, what is small and has no files: whoever stops taking has read no more than that.
# What a body or a file takes is known without reading it.
_BODIES = " + ".join(f"COALESCE(octet_length({each}), 0)" for each in BODIES)
_SMALL = f"""
AND {_BODIES} < {LARGE}
AND NOT EXISTS (SELECT FROM outbox_attachment WHERE message_id = outbox.id)"""
_MEASURED = f"""
SELECT id, {_BODIES}
  + (SELECT COALESCE(sum(octet_length(content)), 0)::int FROM outbox_attachment WHERE message_id = outbox.id)
FROM outbox WHERE id = ANY (%s)"""

_FATES = "SELECT message_id, position, fate FROM outbox_recipient WHERE message_id = ANY (%s) ORDER BY claim_no"

# Listeners look every half second whether the server is back.
_JUST_STARTED = "SELECT clock_timestamp() < pg_postmaster_start_time() + interval '2 s'"

# A host that goes away in the middle of a transaction keeps its rows locked until the server notices: by the system's
# defaults after two hours. (idle_in_transaction_session_timeout does not count after a pipeline.)
_NOTICE = "SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"


# A runner that is frozen in the middle of a transaction keeps its rows, too; from PostgreSQL 17 on, not for long.
_LONGEST = "SET transaction_timeout = '60s'"
_HAS_LONGEST = 170000

# The tables are empty when some of these plans are made and full when they are used, so they must not depend on sizes:
# all that a runner asks goes by keys.
_BY_KEYS = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"

_BEGINNING = (datetime(1970, 1, 1, tzinfo=UTC), 0)

_BEGIN = "BEGIN; SELECT clock_timestamp()"

CLOCK_KNOWN = 30.0
"""Seconds for which what the server's clock has said is counted on by ours, where asking it would be a round trip more.
"""

_OPEN = (psycopg.pq.TransactionStatus.INTRANS, psycopg.pq.TransactionStatus.INERROR)


class PostgresStore(SqlStore):
    """See `outbox.store.Store`."""

    headers_column = "headers::text"
    skip_locked_of = staticmethod(lambda table: f"FOR UPDATE OF {table} SKIP LOCKED")
    translate = staticmethod(lru_cache(maxsize=256)(lambda sql: sql.replace("?", "%s")))

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url)
        self._clock = clock
        self._floors = Floors()
        self._contents = self.translate(self._content_where("= ANY ((SELECT ?::bigint[])::bigint[])") + _SMALL)
        self._began_at: datetime | None = None
        self._clock_read = (float("-inf"), _BEGINNING[0])
        self._single = False

    def open(self) -> None:
        if self.is_open and self.db.is_connection_usable():
            return
        self.close()
        with translated():
            self.db = connect(self.url, application_name="outbox runner")
            self.db.execute_sql(_NOTICE)
            connection = self.db.connection()
            if connection.info.backend_pid == connection.execute("SELECT pg_backend_pid()").fetchone()[0]:
                connection.execute(_BY_KEYS)
                if connection.info.server_version >= _HAS_LONGEST:
                    connection.execute(_LONGEST)
            else:  # a pooler: what is set or prepared there may be met by others, or not by us
                connection.prepare_threshold = None
            self._recognise()

    def close(self) -> None:
        if self.is_open:
            with suppress(peewee.PeeweeException, psycopg.Error):
                self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """The clock is read in the same round trip as BEGIN."""
        with translated():
            cursor = self._cursor().execute(_BEGIN, prepare=False)
            with self._ending(cursor):
                cursor.nextset()
                self._began_at = cursor.fetchone()[0]
                self._clock_read = self._clock.monotonic(), self._began_at
                yield

    @contextmanager
    def single(self, *, durable: bool = True) -> Iterator[None]:
        """One statement is a transaction by itself, without the round trips of BEGIN and COMMIT. A verb that turns out
        to need several of them begins one.
        """
        read_at, then = self._clock_read
        since = self._clock.monotonic() - read_at
        if since > CLOCK_KNOWN:
            with self.transaction():
                yield
            return
        with translated():
            self._single, self._began_at = True, then + timedelta(seconds=since)
            with self._ending(self._cursor()):
                yield

    @contextmanager
    def _ending(self, cursor: Any) -> Iterator[None]:
        try:
            yield
            if not self._single and cursor.execute("COMMIT", prepare=False).statusmessage != "COMMIT":
                raise TransientError("the transaction was rolled back")
        except BaseException:
            self._floors.forget()  # what they are above may not have been claimed
            if cursor.connection.info.transaction_status in _OPEN:
                cursor.execute("ROLLBACK", prepare=False)
            raise
        finally:
            self._single, self._began_at = False, None

    def _begin(self) -> None:
        if self._single:
            self._cursor().execute("BEGIN", prepare=False)
            self._single = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        with translated():
            yield

    def now(self) -> datetime:
        """The server's clock, in a transaction of when it began: the hosts' clocks differ."""
        now = self._began_at or self._all("SELECT clock_timestamp()")[0][0]
        self._began_at = None
        return now.astimezone(UTC)

    def changes(self) -> int | None:
        return None

    def _announce(self) -> None:
        self._cursor().execute(ANNOUNCE)

    def _many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            self._cursor().execute(for_arrays(sql), as_arrays(rows))

    def _matched(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[bool]:
        """Of rows with the same key (their last two columns: message and claim) the first may match."""
        places: dict[Any, int] = {}
        for place, row in enumerate(rows):
            places.setdefault(row[-2:], place)
        if not places:
            return []
        first = list(places.values())
        found = self._all(
            for_arrays(sql), as_arrays(rows if len(first) == len(rows) else [rows[each] for each in first])
        )
        matched = [False] * len(rows)
        for (number,) in found:
            matched[first[number - 1]] = True
        return matched

    def contents(self, claims: Sequence[Claim]) -> Iterator[tuple[Claim, Content | int]]:
        """The small ones in one statement; by itself, what is large or has attachments, or cannot be read."""
        again = [each.message_id for each in claims if each.claim_no > 1]
        fates: dict[int, dict[int, Fate]] = {}
        for message_id, position, fate in self._all(_FATES, (again,)) if again else ():
            fates.setdefault(message_id, {})[position] = Fate(fate)
        left = {each.message_id: each for each in claims}
        for row in self._all(self._contents, (list(left),)):
            if row[-1] is None:
                yield left.pop(row[0]), content_of(row[:-1], (), fates.get(row[0], {}))
        octets = dict(self._all(_MEASURED, (list(left),))) if left else {}
        for message_id, claim in left.items():
            size = octets.get(message_id, 0)
            yield claim, size if size >= LARGE else self.content(claim)

    def lanes(self, after: str, limit: int) -> list[Lane]:
        return self._look(after, limit)[0]

    def look(self, after: str, limit: int, suspect: int, now: datetime) -> tuple[list[Lane], list[Claim]]:
        """One round trip, as a rule."""
        lanes, suspected = self._look(after, limit, (moment(now), suspect))
        return lanes, self.suspects(suspect, now) if suspected else []

    def _look(self, after: str, limit: int, suspect: tuple[object, ...] = ()) -> tuple[list[Lane], bool]:
        """Also whether there may be suspects."""
        self._floors.is_time_to_walk(self._clock.monotonic())
        start, known = (after, 10), self._floors.known((after, 10))[:limit]  # 10: beyond every priority of that sender
        rows: list[Any] = []
        if known:
            keys = [key for key, _ in known]
            gaps = as_arrays([(*begin, *end) for begin, end in zip([start, *keys], keys, strict=False)])
            heads = as_arrays([(*key, moment(due_at), message_id) for key, (due_at, message_id) in known])
            rows = sorted(self._all(_LANES_WITH_FLOORS, (*gaps, limit, *heads)))
            start = keys[-1]
        suspected = True
        if len(rows) < limit:
            rows += self._all(_LANES + (_SUSPECTED if suspect else ""), (*start, limit - len(rows), *suspect))
            suspected = bool(rows) and rows[-1][0] is None
        return [as_lane(row) for row in rows[:limit] if row[0] is not None], suspected

    def suspects(self, after: int, now: datetime) -> list[Claim]:
        return [as_claim(row)[2] for row in self._all(_SUSPECTS, (moment(now), after, SUSPECTS))]

    def claim(self, runner: str, picks: Sequence[Pick], now: datetime) -> list[Claim]:
        """A statement for each tier, and so one as a rule."""
        if len({each.sender for each in picks}) < len(picks):
            self._begin()
        return super().claim(runner, picks, now)

    def _claim_tier(self, runner: str, picks: Sequence[Pick], now: datetime) -> list[Claim]:
        if self._floors.wants_to_look(now):
            self._floors.look(now, [row[0] for row in self._all(_WRITERS)])
        at = moment(now)
        rows = self._claimed(_CLAIM, runner, *as_arrays([self._lane_row(each) for each in picks]), at=at)
        order = {each.sender: place for place, each in enumerate(picks)}
        ready = sorted(map(as_claim, rows), key=lambda row: (order[row[2].sender], row[0], row[1]))
        lasts = {claim.sender: (due_at, message_id) for due_at, message_id, claim in ready}
        counts = Counter(claim.sender for _, _, claim in ready)
        for pick in picks:
            if pick.sender in lasts:
                self._floors.claimed((pick.sender, pick.priority), counts[pick.sender], lasts[pick.sender])
        return [claim for _, _, claim in ready]

    def _lane_row(self, pick: Pick) -> tuple[str, int, int, str | None, int]:
        due_at, message_id = self._floors[pick.sender, pick.priority] or _BEGINNING
        return pick.sender, pick.priority, pick.count, moment(due_at), message_id

    def expirable(self, now: datetime) -> bool:
        """What has expired since nothing had: the index is read from there on, as a lane from its floor."""
        found = bool(self._all(_EXPIRABLE, (moment(self._floors.unexpired_at or _BEGINNING[0]), moment(now))))
        self._floors.unexpired_at = None if found else now
        return found

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> list[Settled]:
        """What is given back, to be sent when it was due already, comes back below its lane's floor."""
        if any(each.state is State.QUEUED and (each.due_at is None or each.due_at <= now) for each in settlements):
            self._floors.forget()
        if any(each.pause is not None or each.probed is not None for each in settlements):
            return super().settle(settlements, now)
        with self._cursor().connection.pipeline():  # nobody waits for the statements that only write
            return super().settle(settlements, now)

    def _claim_single(self, runner: str, message_id: int, now: datetime) -> list[Claim]:
        at = moment(now)
        return [as_claim(row)[2] for row in self._claimed(_CLAIM_ONE, runner, message_id, at=at)]

    def _claimed(self, sql: str, runner: str, *which: object, at: str | None) -> list[Any]:
        rows = self._all(sql, (*which, at, runner, runner, runner, at))
        if not rows:
            super()._must_live(runner)
        return rows

    def _must_live(self, runner: str) -> None:
        """The claim itself takes nothing for the dead."""

    def _open_attempts(self, runner: str, claims: Sequence[Claim], now: datetime) -> None:
        """They were opened by the claim."""

    absent_for = 0.5

    def absent(self, runners: Sequence[str]) -> list[str]:
        """The advisory lock is free: dead, or on its way back after its connection broke. So look twice.

        Just after a start of the server every lock is free, and the runners are on their way back: they would all
        declare each other dead. Then the lock proves nothing.
        """
        if not runners or self._all(_JUST_STARTED)[0][0]:
            return []
        sql = "SELECT pg_try_advisory_xact_lock(?)"
        return [runner for runner in runners if self._all(sql, (advisory_key(runner),))[0][0]]

    def mark(self, marks: Sequence[Mark], now: datetime) -> list[bool]:
        if any(each.fates for each in marks):
            self._begin()
        rows = as_arrays([(each.message_id, each.claim_no, each.through) for each in marks])
        marked = {row[0] for row in self._all(_MARK, (moment(now), *rows))}
        self._record_marked((each for each in marks if each.message_id in marked), now)
        return [each.message_id in marked for each in marks]
