"""Numbers over all messages: what waits, what ended in the last hour and in a longer window, how long mail takes.

Constant SQL for both dialects, over the partial indexes of what waits and of what ended: it costs what waits and what
ended in the window cost, and does not grow with the years.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from peewee import Database, SqliteDatabase

from outbox.store import audit
from outbox.store.fields import UtcDateTimeField
from outbox.store.filters import written

SAMPLE = 10_000
"""Latencies are of at most this many of the mails sent last."""

_HOUR = timedelta(hours=1)


class By(StrEnum):
    """What the table of `stats --by` has a line for."""

    SENDER = "sender"
    CODE = "code"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is not finished, now. `due` may go at once; `deferred` was tried and waits; `oldest_due_at` is of `due`."""

    due: int
    scheduled: int
    deferred: int
    sending: int
    held: int
    oldest_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Ended:
    """What came to an end within some time, and the doubts that arose in it."""

    sent: int
    failed: int
    expired: int
    cancelled: int
    doubts: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from when a mail might leave (its INSERT, or its due time if later) to `sent`. None without a mail."""

    count: int
    p50: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """`window` is from `since` to `at`; `lines` are by sender, code or day, their columns as the query names them."""

    at: datetime
    since: datetime
    waiting: Waiting
    last_hour: Ended
    window: Ended
    latency: Latency
    by: By | None = None
    lines: tuple[Mapping[str, Any], ...] = ()


def statistics(db: Database, since: timedelta = timedelta(days=1), by: By | None = None) -> Statistics:
    """The numbers now, and of the time `since` ago until now."""
    with audit.snapshot(db):
        if not isinstance(db, SqliteDatabase):  # to start a second process takes longer than all this
            db.execute_sql("SET LOCAL max_parallel_workers_per_gather = 0")
        now = audit.now(db)
        start = now - since
        return Statistics(
            at=now,
            since=start,
            waiting=_waiting(db, now),
            last_hour=_ended(db, now - _HOUR),
            window=_ended(db, start),
            latency=_latency(db, start),
            by=by,
            lines=tuple(_lines(db, by, start)) if by is not None else (),
        )


def _waiting(db: Database, now: datetime) -> Waiting:
    at = written(now)
    (row,) = _rows(db, _WAITING, at, at, at, at)
    counts = {name: row[name] or 0 for name in ("due", "scheduled", "deferred", "sending", "held")}
    return Waiting(**counts, oldest_due_at=UtcDateTimeField().python_value(row["oldest_due_at"]))


def _ended(db: Database, since: datetime) -> Ended:
    at = written(since)
    found = {row["state"]: row["count"] for row in _rows(db, _ENDED, at)}
    (doubts,) = _rows(db, _DOUBTS, at)
    ends = {state: found.get(state, 0) for state in ("sent", "failed", "expired", "cancelled")}
    return Ended(**ends, doubts=doubts["count"])


def _latency(db: Database, since: datetime) -> Latency:
    rows = _rows(db, _LATENCIES_SQLITE if isinstance(db, SqliteDatabase) else _LATENCIES, written(since), SAMPLE)
    seconds = sorted(float(row["seconds"]) for row in rows)
    return Latency(len(seconds), percentile(seconds, 0.5), percentile(seconds, 0.95))


def _lines(db: Database, by: By, since: datetime) -> list[dict[str, Any]]:
    sql = _BY[by]
    if by is By.DAY:  # whole days
        since = since.replace(hour=0, minute=0, second=0, microsecond=0)
        day = "substr({column}, 1, 10)"
        if not isinstance(db, SqliteDatabase):
            day = "to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
        columns = {f"day_of_{column}": day.format(column=column) for column in ("final_at", "ended_at")}
        sql = sql.format(**columns)
    return _rows(db, sql, *[written(since)] * sql.count("?"))


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of all values do not exceed; None of nothing."""
    if not ordered:
        return None
    place = max(0, -int(-len(ordered) * share // 1) - 1)
    return round(ordered[place], 3)


def _rows(db: Database, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    """Run a statement written with `?` for its parameters."""
    if not isinstance(db, SqliteDatabase):
        sql = sql.replace("?", "%s")
    cursor = db.execute_sql(sql, parameters)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


# One SELECT for each state: SQLite has an index for each, and finds none for `state IN (…)`.
_NOW_WAITING = """
  SELECT * FROM outbox_delivery WHERE state = 'queued'
  UNION ALL SELECT * FROM outbox_delivery WHERE state = 'sending'
  UNION ALL SELECT * FROM outbox_delivery WHERE state = 'held'"""

_WAITING = f"""
SELECT
  sum(CASE WHEN state = 'queued' AND due_at <= ? THEN 1 ELSE 0 END) AS due,
  sum(CASE WHEN state = 'queued' AND due_at > ? AND failures = 0 AND doubts = 0 AND first_attempt_at IS NULL
      AND last_reply IS NULL THEN 1 ELSE 0 END) AS scheduled,
  sum(CASE WHEN state = 'queued' AND due_at > ? AND (failures > 0 OR doubts > 0 OR first_attempt_at IS NOT NULL
      OR last_reply IS NOT NULL) THEN 1 ELSE 0 END) AS deferred,
  sum(CASE WHEN state = 'sending' THEN 1 ELSE 0 END) AS sending,
  sum(CASE WHEN state = 'held' THEN 1 ELSE 0 END) AS held,
  min(CASE WHEN state = 'queued' AND due_at <= ? THEN due_at END) AS oldest_due_at
FROM ({_NOW_WAITING}) AS waiting"""

_ENDED = """
SELECT state, count(*) AS count FROM outbox_delivery WHERE final_at >= ? GROUP BY state"""

_DOUBTS = """
SELECT count(*) AS count FROM outbox_attempt WHERE outcome = 'doubt' AND ended_at >= ?"""

_LATENCIES = """
SELECT extract(epoch FROM d.final_at - greatest(o.created_at, o.due_at)) AS seconds
FROM outbox_delivery d JOIN outbox o ON o.id = d.message_id
WHERE d.state = 'sent' AND d.final_at >= ? ORDER BY d.final_at DESC LIMIT ?"""

# `+`: by the time, and not by the sender or the state.
_LATENCIES_SQLITE = """
SELECT 86400.0 * (julianday(d.final_at)
  - max(julianday(o.created_at), coalesce(julianday(nullif(o.due_at, '')), 0))) AS seconds
FROM outbox_delivery d JOIN outbox o ON o.id = d.message_id
WHERE +d.state = 'sent' AND d.final_at >= ? ORDER BY d.final_at DESC LIMIT ?"""

_BY: dict[By, str] = {
    By.SENDER: f"""
SELECT sender,
  sum(CASE WHEN state = 'sent' THEN 1 ELSE 0 END) AS sent,
  sum(CASE WHEN state = 'failed' THEN 1 ELSE 0 END) AS failed,
  sum(CASE WHEN state = 'expired' THEN 1 ELSE 0 END) AS expired,
  sum(CASE WHEN final_at IS NULL THEN 1 ELSE 0 END) AS waiting,
  sum(doubts) AS doubts
FROM (SELECT * FROM outbox_delivery WHERE final_at >= ? UNION ALL {_NOW_WAITING}) AS counted
GROUP BY sender ORDER BY count(*) DESC, sender""",
    By.CODE: f"""
SELECT last_code AS code, last_status AS status,
  sum(CASE WHEN final_at IS NOT NULL THEN 1 ELSE 0 END) AS dead,
  sum(CASE WHEN final_at IS NULL THEN 1 ELSE 0 END) AS waiting,
  max(last_reply) AS example
FROM (SELECT * FROM outbox_delivery WHERE state = 'failed' AND final_at >= ?
  UNION ALL SELECT * FROM outbox_delivery WHERE state = 'expired' AND final_at >= ?
  UNION ALL SELECT * FROM ({_NOW_WAITING}) AS waiting WHERE last_reply IS NOT NULL) AS counted
GROUP BY last_code, last_status ORDER BY count(*) DESC, last_code, last_status""",
    # The view outbox_daily looks for the days first; here they are known. PostgreSQL sums bigint to numeric.
    By.DAY: """
SELECT day, CAST(sum(sent) AS bigint) AS sent, CAST(sum(failed) AS bigint) AS failed,
  CAST(sum(expired) AS bigint) AS expired, CAST(sum(doubts) AS bigint) AS doubts
FROM (
  SELECT {day_of_final_at} AS day, CASE WHEN state = 'sent' THEN 1 ELSE 0 END AS sent,
    CASE WHEN state = 'failed' THEN 1 ELSE 0 END AS failed, CASE WHEN state = 'expired' THEN 1 ELSE 0 END AS expired,
    0 AS doubts
  FROM outbox_delivery WHERE final_at >= ? AND state <> 'cancelled'
  UNION ALL SELECT {day_of_ended_at}, 0, 0, 0, 1 FROM outbox_attempt WHERE outcome = 'doubt' AND ended_at >= ?
) AS ends
GROUP BY day ORDER BY day DESC""",
}
