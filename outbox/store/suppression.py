"""Suppressed addresses in the database.

`add` and `remove` are statements in the caller's open transaction; `bring_in` has short transactions of its own, so
that on SQLite no application waits long for the lock. All of them leave a line in the journal. Looking recipients up is
SQL by hand: it is on the way of every message as soon as anybody is suppressed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from peewee import Database, IntegrityError, SqliteDatabase

from outbox.clock import Clock
from outbox.core.suppression import Suppression, patterns_for
from outbox.errors import Refused
from outbox.store import tables
from outbox.store.accounts import first_line
from outbox.store.journal import Act, journal
from outbox.store.rows import in_parts, moment

BATCH = 250
"""Rows of one transaction: a few milliseconds of SQLite's write lock."""
LOOKED_UP = 500
"""Patterns of one SELECT."""

_Row = tables.Suppression


@dataclass(frozen=True, slots=True)
class Added:
    """How many were new, how many there were with another reason or end, and how many just as they are now."""

    new: int = 0
    changed: int = 0
    same: int = 0

    def __add__(self, other: Added) -> Added:
        return Added(self.new + other.new, self.changed + other.changed, self.same + other.same)


# -- reading


def listed(db: Database, matching: str = "") -> list[Suppression]:
    """All entries, or those with this text in the address or the reason, by address; also what is over."""
    query = _Row.select().order_by(_Row.address)
    if matching:
        query = query.where(_Row.address.contains(matching) | _Row.reason.contains(matching))
    return [Suppression(**row) for row in query.dicts().execute(db)]


def any_active(db: Database, now: datetime) -> bool:
    """Whether anybody is suppressed at all."""
    sql = f"SELECT 1 FROM outbox_suppression WHERE until IS NULL OR until > {db.param} LIMIT 1"
    return bool(db.execute_sql(sql, (moment(now),)).fetchall())


def suppressed(db: Database, addresses: Sequence[str], now: datetime) -> dict[str, Suppression]:
    """Of these addresses (of an envelope), those that are suppressed now, and by which entry: the address itself, else
    its domain. 10,000 addresses take some tens of milliseconds.
    """
    patterns = {address: patterns_for(address) for address in addresses}
    wanted = list(dict.fromkeys(pattern for both in patterns.values() for pattern in both))
    found = {each.address: each for part in in_parts(wanted, LOOKED_UP) for each in _look_up(db, part, now)}
    if not found:
        return {}
    hits = ((address, found.get(exact) or found.get(domain)) for address, (exact, domain) in patterns.items())
    return {address: hit for address, hit in hits if hit is not None}


def _look_up(db: Database, patterns: Sequence[str], now: datetime) -> list[Suppression]:
    among, values = _among(db, patterns)
    sql = f"SELECT address, reason FROM outbox_suppression WHERE {among} AND (until IS NULL OR until > {db.param})"
    cursor = db.execute_sql(sql, (*values, _Row.until.db_value(now)))
    return [Suppression(address, reason) for address, reason in cursor.fetchall()]


def _among(db: Database, addresses: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
    """The condition that an address is one of these, and its values. PostgreSQL takes a list as one value, which is
    four times as fast.
    """
    if isinstance(db, SqliteDatabase):
        return f"address IN ({', '.join([db.param] * len(addresses))})", tuple(addresses)
    return f"address = ANY({db.param})", (list(addresses),)


# -- writing


def add(db: Database, entries: Sequence[Suppression], act: Act) -> Added:
    """Suppress these from now on. Those that are there get the new reason and end."""
    done = Added()
    for part in in_parts(entries, BATCH):
        done += _write(db, part, act)
    for entry in entries:
        until = f"until={_Row.until.db_value(entry.until)} " if entry.until is not None else ""
        journal(db, act, "suppress add", f"address={entry.address}", detail=until + entry.reason)
    return done


def bring_in(
    db: Database,
    entries: Sequence[Suppression],
    act: Act,
    *,
    source: str,
    reason: str,
    progress: Callable[[int], None] = lambda _: None,
) -> Added:
    """Add many. One without a reason of its own keeps the one that is there, or gets `reason`. `source`, a file's name,
    is for the journal, which counts what has been committed; `progress` is told how many that is. Interrupted, it may
    come again.
    """
    done, line = Added(), 0
    clock = Clock()
    for part in in_parts(entries, BATCH):
        begun = clock.monotonic()
        with db.atomic():
            done += _write(db, part, act, reason)
            line = _count(db, line, len(part), source, act)
        progress(done.new + done.changed + done.same)
        if len(part) == BATCH and isinstance(db, SqliteDatabase):
            clock.sleep(clock.monotonic() - begun)  # who waits for SQLite's lock looks now and then: half is free
    return done


def remove(db: Database, addresses: Sequence[str], act: Act) -> list[str]:
    """Write to these (patterns) again. Which of them were suppressed; also those whose time was over."""
    removed = []
    for address in addresses:
        if _Row.delete().where(_Row.address == address).execute(db):
            journal(db, act, "suppress remove", f"address={address}")
            removed.append(address)
    return removed


def _write(db: Database, entries: Sequence[Suppression], act: Act, reason: str = "") -> Added:
    among, values = _among(db, [entry.address for entry in entries])
    cursor = db.execute_sql(f"SELECT address, reason, until FROM outbox_suppression WHERE {among}", values)
    before = {address: (why, _Row.until.python_value(until)) for address, why, until in cursor.fetchall()}
    rows: dict[str, tuple[Any, ...]] = {}
    for entry in entries:
        there = before.get(entry.address)
        why = entry.reason or (there[0] if there is not None else reason)
        if there != (why, entry.until):
            until, created_at = _Row.until.db_value(entry.until), _Row.created_at.db_value(act.at)
            rows[entry.address] = (entry.address, why, until, created_at)
    if rows:
        _upsert(db, list(rows.values()))
    changed = len(before.keys() & rows.keys())
    return Added(len(rows) - changed, changed, len(entries) - len(rows))


def _upsert(db: Database, rows: Sequence[tuple[Any, ...]]) -> None:
    marks = ", ".join([f"({', '.join([db.param] * 4)})"] * len(rows))
    sql = (
        f"INSERT INTO outbox_suppression (address, reason, until, created_at) VALUES {marks}"
        " ON CONFLICT (address) DO UPDATE SET reason = excluded.reason, until = excluded.until"
    )
    try:
        db.execute_sql(sql, [value for row in rows for value in row])
    except IntegrityError as error:
        raise Refused(f"an address cannot be suppressed: {first_line(error)}") from None


def _count(db: Database, line: int, count: int, source: str, act: Act) -> int:
    """One line of the journal for a whole import, in the transactions of what it counts."""
    row = tables.Journal
    if line:
        row.update(count=row.count + count).where(row.id == line).execute(db)
        return line
    entry = {"at": act.at, "who": act.who, "verb": "suppress import", "matching": f"file={source}", "count": count}
    return int(row.insert(entry).execute(db))
