"""Limits in the database, and how much of each is used, by all runners together.

`reserve` is where they meet: in one open transaction it locks the counters that it needs, always in the same order
(PostgreSQL; on SQLite the transaction has the file's one lock), and takes from all of them or from none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from peewee import Database, SqliteDatabase

from outbox.core.limits import Limit, Limited, Span, Window, aligned, free, need, next_free, returned, taken
from outbox.errors import Refused
from outbox.store import tables
from outbox.store.constant import Constant
from outbox.store.journal import Act, journal
from outbox.store.rows import in_parts

FORGET_AFTER = timedelta(days=2)
"""After that long nothing of a counter counts any more: the longest span is a day, and the one before it."""

_Counter = tuple[Limited, str, Span]
_NAMES = 500
"""So many names are asked for in one statement."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All limits at one moment, and which of how many living runners asked. Without limits nobody counts runners."""

    limits: tuple[Limit, ...] = ()
    rank: int = 0
    runners: int = 1


@dataclass(frozen=True, slots=True)
class Want:
    """So many recipients of a limit. `insist`: at least one free is enough, and what is taken too much is missing to
    those who come after.
    """

    limit: Limit
    count: int
    insist: bool = False


Unused = tuple[Sequence[Want], datetime]
"""What was reserved, and when, and then not tried."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """What a reservation failed for: the limit (`most` in a `span`), as its window stands, and when what was wanted
    is free, if nobody else takes it.
    """

    limit: Limit
    span: Span
    most: int
    window: Window
    until: datetime


# ---- limits


def limits(db: Database) -> list[Limit]:
    """All of them, by scope and name."""
    return [Limit(**{**each, "scope": Limited(each["scope"])}) for each in _LIMITS.rows(db)]


_LIMITS = Constant(lambda: tables.Limit.select().order_by(tables.Limit.scope, tables.Limit.name))


def set_limit(db: Database, new: Limit, act: Act) -> None:
    """Put this limit in the place of whatever limited the same. Raises Refused when the account or the sender does not
    exist, and when it limits nothing.
    """
    _refuse_strangers(db, new)
    values = {
        "connections": new.connections,
        "per_minute": new.per_minute,
        "per_hour": new.per_hour,
        "per_day": new.per_day,
    }
    if not any(values.values()):
        raise Refused(
            f"no limit of {new.scope} {new.name} is given", hint=f"outbox limit remove {new.scope} {new.name}"
        )
    row = tables.Limit
    key = [row.scope, row.name]
    query = row.insert(scope=str(new.scope), name=new.name, **values)
    query.on_conflict(conflict_target=key, update=values).execute(db)
    said = " ".join(f"{name}={value}" for name, value in values.items() if value is not None)
    journal(db, act, "limit set", f"{new.scope}={new.name}", detail=said)


def remove_limit(db: Database, scope: Limited, name: str, act: Act) -> None:
    """Raises Refused when there is none."""
    if not forget_limit(db, scope, name):
        raise Refused(f"there is no limit of {scope} {name}", hint="`outbox limit list` shows them")
    journal(db, act, "limit remove", f"{scope}={name}")


def forget_limit(db: Database, scope: Limited, name: str) -> bool:
    """Remove it with what it limited, unasked: whether there was one."""
    row = tables.Limit
    return bool(row.delete().where(row.scope == str(scope), row.name == name).execute(db))


def _refuse_strangers(db: Database, new: Limit) -> None:
    table: Any = {Limited.ACCOUNT: tables.Account, Limited.SENDER: tables.Sender}.get(new.scope)
    if table is None:
        return
    key = table.name if new.scope is Limited.ACCOUNT else table.address
    if not table.select().where(key == new.name).exists(db):
        raise Refused(f"there is no {new.scope} {new.name}", hint=f"`outbox {new.scope} list` shows them")


def snapshot(db: Database, me: str, now: datetime) -> Snapshot:
    """What a runner needs to know. One short read where there are no limits."""
    known = limits(db)
    if not known:
        return Snapshot()
    return Snapshot(tuple(known), *fleet(db, me, now))


def fleet(db: Database, me: str, now: datetime) -> tuple[int, int]:
    """The rank of the runner `me` among those that live, by id and from 0, and how many they are. A runner that is not
    among them counts all the same.
    """
    row = tables.Runner
    alive = row.select(row.id).where(row.dead_at.is_null(), row.lease_until > now).execute(db)
    ids = {each.id for each in alive} | {me}
    return sorted(ids).index(me), len(ids)


# ---- usage


def reserve(
    db: Database, requests: Sequence[Sequence[Want]], now: datetime, unused: Sequence[Unused] = ()
) -> list[tuple[Shortage, ...]]:
    """One after the other, each request takes all it wants, from every span of every limit in it, or nothing. What it
    failed for; empty when it was granted. What is `unused` is given back before that.

    In the caller's open transaction. All that one runner reserves in a transaction belongs in one call, because the
    order in which counters are locked is what keeps runners from waiting for each other in a circle.
    """
    windows = _lock(db, _counters([*requests, *(wants for wants, _ in unused)]), now)
    before = dict(windows)
    for wants, at in unused:
        for each in wants:
            for span, most in each.limit.rates():
                key = (*each.limit.key, span)
                windows[key] = returned(windows[key], span, need(each.count, most), at, now)
    answers = [_take(windows, request, now) for request in requests]
    _write(db, before, windows)
    return answers


def usage(db: Database, of: Iterable[Limit]) -> dict[_Counter, Window]:
    """The counters of these limits as they are stored; those that nothing was taken from are missing."""
    return _read(db, {(*each.key, span) for each in of for span, _ in each.rates()})


def forget(db: Database, now: datetime) -> int:
    """Delete the counters that do not count any more; how many."""
    return int(tables.Usage.delete().where(tables.Usage.began_at < now - FORGET_AFTER).execute(db))


def _counters(requests: Iterable[Sequence[Want]]) -> set[_Counter]:
    return {(*each.limit.key, span) for request in requests for each in request for span, _ in each.limit.rates()}


def _take(windows: dict[_Counter, Window], request: Sequence[Want], now: datetime) -> tuple[Shortage, ...]:
    after: dict[_Counter, Window] = {}
    short = []
    for each in request:
        for span, most in each.limit.rates():
            key = (*each.limit.key, span)
            window = after.get(key, windows[key])
            count = need(each.count, most)
            if free(window, span, most, now) < (1 if each.insist else count):
                short.append(Shortage(each.limit, span, most, window, next_free(window, span, most, count, now)))
            after[key] = taken(window, span, count, now)
    if not short:
        windows.update(after)
    return tuple(short)


def _lock(db: Database, wanted: set[_Counter], now: datetime) -> dict[_Counter, Window]:
    """The counters, new ones made, and nobody else's until the transaction ends."""
    if not wanted:
        return {}
    ordered = sorted(wanted)
    rows = [
        {
            "scope": str(scope),
            "name": name,
            "span": str(span),
            "began_at": aligned(span, now),
            "used": 0,
            "before": 0,
        }
        for scope, name, span in ordered
    ]
    for part in in_parts(rows, _NAMES):
        tables.Usage.insert_many(part).on_conflict_ignore().execute(db)
    locking = None if isinstance(db, SqliteDatabase) else (lambda query: query.for_update())
    return _read(db, wanted, locking)


def _read(db: Database, wanted: set[_Counter], locking: Callable[[Any], Any] | None = None) -> dict[_Counter, Window]:
    row = tables.Usage
    found: dict[_Counter, Window] = {}
    for names in in_parts(sorted({(str(scope), name) for scope, name, _ in wanted}), _NAMES):
        scopes = {scope for scope, _ in names}
        query = row.select().where(row.scope.in_(list(scopes)), row.name.in_([name for _, name in names]))
        query = query.order_by(row.scope, row.name, row.span)
        for each in (locking(query) if locking is not None else query).execute(db):
            key = (Limited(each.scope), each.name, Span(each.span))
            if key in wanted:
                found[key] = Window(each.began_at, each.used, each.before)
    return found


def _write(db: Database, before: dict[_Counter, Window], after: dict[_Counter, Window]) -> None:
    row = tables.Usage
    for key, window in after.items():
        if window != before[key]:
            scope, name, span = key
            query = row.update(began_at=window.began_at, used=window.used, before=window.before)
            query.where(row.scope == str(scope), row.name == name, row.span == str(span)).execute(db)
