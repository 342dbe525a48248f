"""What statements cost, counted and not timed: steps of SQLite's virtual machine, buffers that PostgreSQL touches.

with observed(db) as seen:
    audit.listing(db, Filter())
seen.cost, seen.plans
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import peewee

STEP = 10
"""SQLite's steps are counted by so many."""


@dataclass(slots=True)
class Seen:
    """`plans`: a statement with how it was run, for each that was run, those of functions and triggers among them (on
    SQLite without those of triggers). `scanned`: the tables that one of them was meant to read from end to end.
    """

    cost: int = 0
    plans: list[str] = field(default_factory=list)
    scanned: set[str] = field(default_factory=set)


@contextmanager
def observed(db: peewee.Database) -> Iterator[Seen]:
    """Watch all that this connection runs, by whatever way. On PostgreSQL its role must be a superuser."""
    seen = Seen()
    with _steps(db, seen) if isinstance(db, peewee.SqliteDatabase) else _buffers(db, seen):
        yield seen


@contextmanager
def _steps(db: peewee.Database, seen: Seen) -> Iterator[None]:
    connection = db.connection()
    ran: list[str] = []
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += STEP

    connection.set_trace_callback(ran.append)
    connection.set_progress_handler(count, STEP)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)
        connection.set_trace_callback(None)
        seen.cost = counted
        for sql in dict.fromkeys(ran):
            if sql.lstrip().upper().startswith(("SELECT", "WITH", "UPDATE", "INSERT", "DELETE")):
                steps = [row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()]
                seen.plans.append("\n  ".join([sql.strip(), *steps]))


@contextmanager
def _buffers(db: peewee.Database, seen: Seen) -> Iterator[None]:
    connection = db.connection()

    def note(diagnostic: Any) -> None:
        text = str(diagnostic.message_primary)
        if "plan:" in text:
            told = json.loads(text.partition("plan:")[2])
            plan = told["Plan"]
            seen.cost += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            seen.plans.append("\n  ".join([told["Query Text"].strip(), *_drawn(plan, 0, seen)]))

    settings = {
        "log_min_duration": "0",
        "log_analyze": "on",
        "log_buffers": "on",
        "log_timing": "off",
        "log_format": "json",
    }
    connection.execute("LOAD 'auto_explain'")
    for name, value in settings.items():
        connection.execute(f"SET auto_explain.{name} = '{value}'")
    connection.execute("SET client_min_messages = log")
    connection.add_notice_handler(note)
    try:
        yield
    finally:
        connection.remove_notice_handler(note)
        connection.execute("RESET client_min_messages")
        connection.execute("SET auto_explain.log_min_duration = -1")


def _drawn(plan: dict[str, Any], depth: int, seen: Seen) -> Iterator[str]:
    relation = plan.get("Relation Name", "")
    if plan["Node Type"] == "Seq Scan":
        seen.scanned.add(relation)
    touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    words = (plan["Node Type"], relation, plan.get("Index Name", ""), plan.get("Index Cond", ""))
    loops = f"{plan['Actual Rows']:g} rows × {plan['Actual Loops']:g}, {touched} buffers"
    yield "  " * depth + " ".join(filter(None, [*words, loops]))
    for each in plan.get("Plans", ()):
        yield from _drawn(each, depth + 1, seen)
