"""What `outbox doctor` asks a database: how it is set up, whether anybody sends, and what stands still or untold."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event

from peewee import Database, PeeweeException, SqliteDatabase, fn

from outbox.clock import Clock
from outbox.core.lifecycle import State
from outbox.store import TransientError, accounts, audit, open_store
from outbox.store.engine import NAME
from outbox.store.events import Channel
from outbox.store.fields import UtcDateTimeField
from outbox.store.identity import OpenFile
from outbox.store.tables import Delivery, Runner, Suppression

FAR = timedelta(days=30)
"""Mail that is due later than this from now was probably not meant to be."""

LITTLE_SPACE = 64 * 1024 * 1024
"""Octets. With less, a large mail may not find room."""

STUCK_LISTED = 5
"""Messages that stand still and are named."""


@dataclass(frozen=True, slots=True)
class RunnerLine:
    """A runner that nobody has declared dead. `alive`: its lease has not run out."""

    id: str
    host: str
    pid: int
    version: str
    started_at: datetime
    lease_until: datetime
    alive: bool


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits. `due` may go now, as far as its sender and account are not paused; `stuck` should be moving, and
    `stuck_ids` are the first of it.
    """

    due: int
    oldest_due_at: datetime | None
    held: int
    in_doubt: int
    stuck: int
    stuck_ids: tuple[int, ...]
    far: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """A lane with mail that waits and cannot go: `reason` says why; "" when its sender is not registered."""

    sender: str
    waiting: int
    reason: str


@dataclass(frozen=True, slots=True)
class Untold:
    """Events that somebody is still to hear of, and since when the oldest waits."""

    count: int
    oldest_at: datetime | None


def runners(db: Database) -> list[RunnerLine]:
    """Those that nobody has declared dead, the youngest first."""
    now = audit.now(db)
    query = Runner.select().where(Runner.dead_at.is_null()).order_by(Runner.started_at.desc())
    return [
        RunnerLine(row.id, row.host, row.pid, row.version, row.started_at, row.lease_until, alive=row.lease_until > now)
        for row in query.execute(db)
    ]


def absent(url: str, clock: Clock, runners: Sequence[str]) -> list[str]:
    """Which of these runners do not hold the lock that each holds while it lives; seen twice, for a connection that
    broke comes back.
    """
    store, gone = open_store(url, clock), list(runners)
    for wait in (0.0, store.absent_for):
        if not gone:
            break
        Event().wait(wait)
        with suppress(TransientError):  # asked again by whoever asks again
            store.open()
            with store.reading():
                gone = store.absent(gone)
            continue
        gone = []
    store.close()
    return gone


def queue(db: Database) -> Queue:
    """How much waits, and what of it stands still."""
    now = audit.now(db)
    due = (Delivery.state == str(State.QUEUED)) & (Delivery.due_at <= now)
    oldest = Delivery.select(fn.MIN(Delivery.due_at)).where(due).scalar(db)
    stuck = db.execute_sql(f"SELECT id FROM outbox_stuck ORDER BY id LIMIT {STUCK_LISTED}").fetchall()
    return Queue(
        due=_count(db, due),
        oldest_due_at=UtcDateTimeField().python_value(oldest),
        held=_count(db, Delivery.state == str(State.HELD)),
        # In the words of the index: by what waits, and not by all that was ever in doubt.
        in_doubt=_count(db, (Delivery.state == str(State.HELD)) & (Delivery.doubts > 0) & Delivery.final_at.is_null()),
        stuck=int(db.execute_sql("SELECT count(*) FROM outbox_stuck").fetchone()[0]),
        stuck_ids=tuple(int(row[0]) for row in stuck),
        far=_count(db, (Delivery.state == str(State.QUEUED)) & (Delivery.due_at > now + FAR)),
    )


def blocked(db: Database) -> list[Blocked]:
    """The lanes whose mail waits for something else than its due time, those with most mail first."""
    now, registry = audit.now(db), accounts.registry(db)
    waiting = (
        Delivery.select(Delivery.sender, fn.COUNT(Delivery.message_id))
        .where(Delivery.state == str(State.QUEUED))
        .group_by(Delivery.sender)
        .order_by(fn.COUNT(Delivery.message_id).desc(), Delivery.sender)
    )
    with audit.snapshot(db):  # a sender may hold bytes that are no text
        rows = list(waiting.tuples().execute(db))
    found = []
    for sender, count in rows:
        route = registry.resolve(sender)
        reason = "" if route is None else route.blocked(now)
        if route is None or reason:
            found.append(Blocked(sender, count, reason))
    return found


def due_by_account(db: Database) -> dict[str, int]:
    """How many messages may go now through each account that has any, paused or not."""
    now, registry = audit.now(db), accounts.registry(db)
    due = (
        Delivery.select(Delivery.sender, fn.COUNT(Delivery.message_id))
        .where(Delivery.state == str(State.QUEUED), Delivery.due_at <= now)
        .group_by(Delivery.sender)
    )
    with audit.snapshot(db):  # a sender may hold bytes that are no text
        rows = list(due.tuples().execute(db))
    counts: Counter[str] = Counter()
    for sender, count in rows:
        route = registry.resolve(sender)
        if route is not None:
            counts[route.account.name] += count
    return counts


def untold(db: Database, channel: Channel) -> Untold:
    """The events that this channel is still to tell of."""
    flag = "webhook_due" if channel is Channel.WEBHOOK else "notice_due"
    still = f"{flag} = 1" if isinstance(db, SqliteDatabase) else flag  # in the words of the partial index
    count, oldest = db.execute_sql(f"SELECT count(*), min(at) FROM outbox_event WHERE {still}").fetchone()
    return Untold(int(count), UtcDateTimeField().python_value(oldest))


def suppressed(db: Database) -> int:
    """How many addresses and domains nothing is sent to now."""
    until = Suppression.until
    return int(Suppression.select().where(until.is_null() | (until > audit.now(db))).count(db))


def skew(db: Database, host_now: datetime) -> timedelta:
    """How far this host's clock is ahead of the database's (negative: behind). SQLite has its host's: nothing."""
    return timedelta(0) if isinstance(db, SqliteDatabase) else host_now - audit.now(db)


def journal_mode(db: Database) -> str:
    """SQLite's: ``wal`` is what is wanted."""
    return str(db.execute_sql("PRAGMA journal_mode").fetchone()[0])


def unwritable(db: Database) -> str:
    """Why nobody can write to this SQLite database now, in SQLite's words; "" when it can be. Nothing is written."""
    try:
        db.execute_sql("BEGIN IMMEDIATE")
        db.execute_sql("ROLLBACK")
    except PeeweeException as error:
        return str(error)
    return ""


def log_size(path: str) -> int:
    """Octets of the write-ahead log of the SQLite file at `path`; LOG_TOO_LARGE is too much."""
    return OpenFile(path).log_size()


def free_space(path: str) -> int:
    """Octets that are free where that file is."""
    return shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free


def engine(db: Database) -> str:
    """``SQLite 3.51.3``, ``SQLite 3.53.4 of pysqlite3``, ``PostgreSQL 18.6``."""
    if isinstance(db, SqliteDatabase):
        return NAME
    return f"PostgreSQL {db.execute_sql('SHOW server_version').fetchone()[0]}"


def forgetful(db: Database) -> list[str]:
    """PostgreSQL's settings with which a commit that was acknowledged can be lost."""
    return [
        f"{name} = off"
        for name in ("fsync", "synchronous_commit")
        if db.execute_sql(f"SHOW {name}").fetchone()[0] == "off"
    ]


def _count(db: Database, condition: object) -> int:
    return int(Delivery.select().where(condition).count(db))
