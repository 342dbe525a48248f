"""Probes in the database: of what is half-open, one message at a time is tried, over all runners.

Every function is statements in the caller's open transaction. A probe is taken in the transaction of the claim, so that
of two runners that see the same pause end one gets it; it is let go of, by its own `until`, in the transaction of the
settlement. A prober that dies is overtaken when it is declared dead (`abandon`), at the latest when that time is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from peewee import Database, SqliteDatabase

from outbox.core.account import BREAKER_THRESHOLD, is_half_open
from outbox.core.outcome import Scope
from outbox.core.pause import PROBE_TIME, Probe, Probed, Subject
from outbox.store import tables
from outbox.store.accounts import UNPAUSED, at_relay, close_breaker, not_by_operator
from outbox.store.journal import Act, journal


def take(db: Database, subjects: tuple[Subject, ...], now: datetime) -> Probe | None:
    """All of them, or none: None when somebody else tries one of them, or it is not half-open any more.

    The rows are locked, looked at, and then written; so nothing that was taken has to be given back.
    """
    probe = Probe(subjects, _until(now))
    found = {each: _locked(db, each) for each in sorted(subjects, key=_relays_first)}
    if not all(_may_be_tried(each, rows, now) for each, rows in found.items()):
        return None
    for each in found:
        _table(each).update(probe_until=probe.until).where(_is(each)).execute(db)
    return probe


def release(db: Database, probe: Probe) -> None:
    """Nobody tries any more: nothing was learnt."""
    for each in probe.subjects:
        row = _table(each)
        row.update(probe_until=None).where(_is(each), row.probe_until == probe.until).execute(db)


def abandon(db: Database, claimed_at: Iterable[datetime]) -> None:
    """Nobody tries any more what was taken with a claim of one of these moments: a probe and its claim are of one
    transaction. Rows that somebody is writing are left to whoever does.
    """
    until = [_until(each) for each in claimed_at]
    rows: tuple[Any, ...] = (tables.Account, tables.Sender)
    for row in rows:
        key = row._meta.primary_key
        left = row.select(key).where(row.probe_until.in_(until))
        if not isinstance(db, SqliteDatabase):
            left = left.for_update(skip_locked=True)
        keys = [each for (each,) in left.tuples().execute(db)]
        if keys:
            row.update(probe_until=None).where(key.in_(keys), row.probe_until.in_(until)).execute(db)


def _until(claimed_at: datetime) -> datetime:
    return claimed_at - timedelta(microseconds=claimed_at.microsecond % 1000) + PROBE_TIME  # as it is stored


def finish(db: Database, probed: Probed, act: Act) -> None:
    """Write what a probe has shown: no pause any more of what works again."""
    release(db, probed.probe)
    for each in probed.recovered:
        if each.scope is Scope.RELAY:
            _recover_relay(db, each, act)
        else:
            _recover(db, each, act)


def _locked(db: Database, subject: Subject) -> list[Any]:
    """Its rows; of a relay, all of its accounts'. None of them when somebody is writing one: nobody waits here, for the
    transaction may have locked others before, in whatever order. SQLite's one lock is the transaction's already.
    """
    row = _table(subject)
    query = row.select().where(_is(subject)).order_by(row._meta.primary_key)
    if isinstance(db, SqliteDatabase):
        return list(query.execute(db))
    free = list(query.for_update(skip_locked=True).execute(db))
    return free if len(free) == _count(db, row, _is(subject)) else []


def _may_be_tried(subject: Subject, rows: list[Any], now: datetime) -> bool:
    if not rows or any(each.probe_until is not None and now < each.probe_until for each in rows):
        return False
    if subject.scope is not Scope.RELAY:
        return is_half_open(rows[0].pause_reason, rows[0].paused_until, now)
    rests = any(each.breaker_until is not None and now < each.breaker_until for each in rows)
    return not rests and any(each.breaker_until and each.breaker_failures >= BREAKER_THRESHOLD for each in rows)


def _recover(db: Database, subject: Subject, act: Act) -> None:
    row = _table(subject)
    over = (_is(subject), _is_over(row, act.at))
    before = row.select(row.pause_reason).where(*over).first(db)
    if before is not None and row.update(UNPAUSED).where(*over).execute(db):
        journal(db, act, f"{subject.scope} recover", f"{subject.scope}={subject.name}", detail=before.pause_reason)


def _recover_relay(db: Database, subject: Subject, act: Act) -> None:
    row = tables.Account
    rests = _count(db, row, at_relay(subject.name, subject.port), row.breaker_until > act.at)
    if not rests and close_breaker(db, subject.name, subject.port):
        journal(db, act, "relay recover", f"relay={subject.name}:{subject.port}")


def _table(subject: Subject) -> type[tables.Account] | type[tables.Sender]:
    return tables.Sender if subject.scope is Scope.SENDER else tables.Account


def _is(subject: Subject) -> Any:
    if subject.scope is Scope.RELAY:
        return at_relay(subject.name, subject.port)
    return (
        tables.Sender.address == subject.name if subject.scope is Scope.SENDER else tables.Account.name == subject.name
    )


def _is_over(row: type[tables.Account] | type[tables.Sender], now: datetime) -> Any:
    return row.pause_reason.is_null(False) & (row.paused_until <= now) & not_by_operator(row)


def _count(db: Database, row: type[Any], *conditions: Any) -> int:
    return int(row.select().where(*conditions).count(db))


def _relays_first(subject: Subject) -> tuple[bool, Subject]:
    return subject.scope is not Scope.RELAY, subject
