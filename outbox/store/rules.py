"""Operators' reply rules in the database: added and removed by people, loaded by runners.

`add_rule` and `remove_rule` are statements in the caller's open transaction, and leave a line in the journal. Rows may
also be written with SQL: one that is no rule (its pattern is no regular expression, or could be searched for ever) is
never asked, and said so, once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from peewee import Database, Field, PeeweeException, fn

from outbox.core.outcome import Scope, Verdict
from outbox.core.rules import Rule, Rules
from outbox.core.units import format_duration
from outbox.errors import Refused
from outbox.store import tables
from outbox.store.constant import Constant
from outbox.store.database import dialect
from outbox.store.engine import sqlite3
from outbox.store.journal import Act, journal

log = logging.getLogger("outbox.rules")

_Row = tables.ReplyRule
_RULE = (_Row.relay, _Row.pattern, _Row.verdict, _Row.scope, _Row.delay, _Row.note)
_ALL = Constant(lambda: _Row.select(_Row.id, *_RULE).order_by(_Row.id))
_LONGEST_DELAY = timedelta(days=7)
_UNREADABLE = (PeeweeException, sqlite3.Error, ValueError)
"""What reading a row may raise; peewee does not translate what goes wrong in fetching."""
_RELAY = re.compile(r"[\w.:*?-]+")
_WITH_PORT = re.compile(r"[^:]*:\d*")


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of `outbox_reply_rule`, whatever is in it. `rule` is None where it is none, and `flaw` says why."""

    id: int
    rule: Rule | None
    pattern: str
    flaw: str
    created_at: datetime | None


def load(db: Database) -> Rules:
    """The rules, in the order in which they are asked. Never raises for what is in a row."""
    rules = []
    for number, row in _rows(db, *_RULE, all_of_them=_ALL):
        rule, flaw = _as_rule(number, row)
        if rule is not None:
            rules.append(rule)
        else:
            _warn(number, str(row.get("pattern", "")), flaw)
    return tuple(rules)


def stored(db: Database) -> list[Stored]:
    """Every row, in the same order, with what is wrong with it."""
    found = []
    for number, row in _rows(db, *_RULE, _Row.created_at):
        rule, flaw = _as_rule(number, row)
        found.append(Stored(number, rule, str(row.get("pattern", "")), flaw, row.get("created_at")))
    return found


def add_rule(
    db: Database,
    act: Act,
    *,
    pattern: str,
    verdict: Verdict,
    scope: Scope,
    relay: str = "*",
    delay: timedelta = timedelta(0),
    note: str = "",
) -> Rule:
    """Append a rule: it is asked after those that are there. Raises Refused for a pattern that cannot be asked, and
    for a rule that could never decide anything.
    """
    _check(relay, verdict, scope, delay)
    try:
        Rule(0, relay, pattern, verdict, scope)
    except ValueError as error:
        hint = "it is searched, in any case, in `code status text`: 'spam|blocked', '^550 5.7.1 .*policy'"
        raise Refused(f"this is no rule: {error}", hint=hint) from None
    same = _Row.select(_Row.id).where(_Row.relay == relay, _Row.pattern == pattern).first(db)
    if same is not None:
        raise Refused(f"rule {same.id} has this pattern for {relay} already", hint=f"outbox rule remove {same.id}")
    row = {
        "relay": relay,
        "pattern": pattern,
        "verdict": str(verdict),
        "scope": str(scope),
        "delay": int(delay.total_seconds()) or None,
        "note": note or None,
        "created_at": act.at,
        **_new_id(db),
    }
    number = int(_Row.insert(row).execute(db))
    rule = Rule(number, relay, pattern, verdict, scope, delay, note)
    journal(db, act, "rule add", f"rule={number}", detail=described(rule))
    return rule


def remove_rule(db: Database, number: int, act: Act) -> None:
    """Raises Refused when there is none of that number."""
    found = [each for each in stored(db) if each.id == number]
    if not found:
        raise Refused(f"there is no rule {number}", hint="`outbox rule list` shows them")
    _Row.delete().where(_Row.id == number).execute(db)
    detail = described(found[0].rule) if found[0].rule is not None else found[0].pattern
    journal(db, act, "rule remove", f"rule={number}", detail=detail)


def described(rule: Rule) -> str:
    """In one line, for the journal."""
    delay = f" delay={format_duration(rule.delay)}" if rule.delay else ""
    return f"relay={rule.relay} {rule.pattern!r} verdict={rule.verdict} scope={rule.scope}{delay}"


def _check(relay: str, verdict: Verdict, scope: Scope, delay: timedelta) -> None:
    if not _RELAY.fullmatch(relay) or _WITH_PORT.fullmatch(relay):
        hint = "a host without its port, with * and ?: *.example.com"
        raise Refused(f"{relay!r} is no pattern for a relay", hint=hint)
    if delay and not timedelta(seconds=1) <= delay <= _LONGEST_DELAY:
        raise Refused("a delay is one second to seven days")
    if delay and verdict is Verdict.BOUNCE and scope in (Scope.MESSAGE, Scope.RECIPIENT):
        raise Refused(f"a {scope} that is bounced is not tried again, so it has no delay", hint="say --verdict defer")


def _new_id(db: Database) -> dict[str, int]:
    """SQLite would give the number of the rule that was removed last to the next one, and attempts name their rule by
    it. PostgreSQL never does.
    """
    if dialect(db) == "postgres":
        return {}
    line = tables.Journal
    last = line.select(line.matching).where(line.verb == "rule add").order_by(line.id.desc()).first(db)
    told = int(last.matching.removeprefix("rule=")) if last is not None else 0
    return {"id": max(told, _Row.select(fn.MAX(_Row.id)).scalar(db) or 0) + 1}


def _rows(db: Database, *columns: Field, all_of_them: Constant | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows by number. One that cannot be read (SQLite: no UTF-8, a moment that is none) has `flaw` only."""
    asked = all_of_them or Constant(lambda: _Row.select(_Row.id, *columns).order_by(_Row.id))
    try:
        found = asked.rows(db)
    except _UNREADABLE:
        found = [_row(db, each.id, columns) for each in _Row.select(_Row.id).order_by(_Row.id).execute(db)]
    return ((row.pop("id"), row) for row in found)


def _row(db: Database, number: int, columns: tuple[Field, ...]) -> dict[str, Any]:
    try:
        (found,) = _Row.select(_Row.id, *columns).where(_Row.id == number).dicts().execute(db)
    except _UNREADABLE as error:
        return {"id": number, "flaw": str(error).partition("\n")[0]}
    return dict(found)


def _as_rule(number: int, row: dict[str, Any]) -> tuple[Rule | None, str]:
    if "flaw" in row:
        return None, f"it cannot be read: {row['flaw']}"
    try:
        verdict, scope, delay = Verdict(row["verdict"]), Scope(row["scope"]), timedelta(seconds=row["delay"] or 0)
        return Rule(number, row["relay"], row["pattern"], verdict, scope, delay, row["note"] or ""), ""
    except (ValueError, TypeError) as error:
        return None, str(error)


@lru_cache(maxsize=1000)  # runners load them every second
def _warn(number: int, pattern: str, flaw: str) -> None:
    log.warning("reply rule %d is not asked: %s; `outbox rule remove %d` removes it", number, flaw, number)
