"""Probes in the database: of what is half-open, one message at a time is tried, over all runners.

Every function is statements in the caller's open transaction. A probe is taken by a conditional UPDATE in the
transaction of the claim, so that of two runners that see the same pause end one gets it; it is let go of, by its own
`until`, in the transaction of the settlement. A prober that dies is overtaken when that time is over.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from peewee import Database

from outbox.core.account import BREAKER_THRESHOLD
from outbox.core.outcome import Scope
from outbox.core.pause import PROBE_TIME, Probe, Probed, Subject
from outbox.store import tables
from outbox.store.accounts import UNPAUSED, at_relay, close_breaker, not_by_operator
from outbox.store.journal import Act, journal


def take(db: Database, subjects: tuple[Subject, ...], now: datetime) -> Probe | None:
    """All of them, or none: None when somebody else tries one of them, or it is not half-open any more."""
    now -= timedelta(microseconds=now.microsecond % 1000)  # as it is stored
    probe = Probe(tuple(sorted(subjects, key=_relays_first)), now + PROBE_TIME)
    for number, each in enumerate(probe.subjects):
        if not _take(db, each, probe, now):
            _release(db, probe, probe.subjects[: number + 1])
            return None
    return probe


def release(db: Database, probe: Probe) -> None:
    """Nobody tries any more: nothing was learnt."""
    _release(db, probe, probe.subjects)


def finish(db: Database, probed: Probed, act: Act) -> None:
    """Write what a probe has shown: no pause any more of what works again."""
    release(db, probed.probe)
    for each in probed.recovered:
        if each.scope is Scope.RELAY:
            _recover_relay(db, each, act)
        else:
            _recover(db, each, act)


def _take(db: Database, subject: Subject, probe: Probe, now: datetime) -> bool:
    if subject.scope is Scope.RELAY:
        return _take_relay(db, subject, probe, now)
    row = _table(subject)
    free = row.probe_until.is_null() | (row.probe_until <= now)
    if any(each.scope is Scope.RELAY for each in probe.subjects) and subject.scope is Scope.ACCOUNT:
        free = row.probe_until == probe.until  # with its relay
    return bool(row.update(probe_until=probe.until).where(_is(subject), free, _is_over(row, now)).execute(db))


def _take_relay(db: Database, subject: Subject, probe: Probe, now: datetime) -> bool:
    """The relay's probe is that of all its accounts: all of them are free, or there is no probe."""
    row, relay = tables.Account, _is(subject)
    free = row.probe_until.is_null() | (row.probe_until <= now)
    rows = row.update(probe_until=probe.until).where(relay, free).execute(db)
    over = (row.breaker_until <= now) & (row.breaker_failures >= BREAKER_THRESHOLD)
    rests = row.breaker_until > now
    return rows == _count(db, row, relay) and bool(_count(db, row, relay, over)) and not _count(db, row, relay, rests)


def _release(db: Database, probe: Probe, subjects: tuple[Subject, ...]) -> None:
    for each in subjects:
        row = _table(each)
        row.update(probe_until=None).where(_is(each), row.probe_until == probe.until).execute(db)


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
