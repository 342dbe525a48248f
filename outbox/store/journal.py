"""What people did, and what a runner did to an account, as lines of `outbox_journal`.

A line is written in the transaction of what it tells of, so that both are kept or lost together.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from peewee import Database

from outbox.store import tables


@dataclass(frozen=True, slots=True)
class Act:
    """Who does something, and when (aware, UTC): ``Act("ann@web1", clock.now())``, ``Act("runner 3f…", now)``."""

    who: str
    at: datetime


def journal(db: Database, act: Act, verb: str, matching: str = "", *, count: int = 1, detail: str = "") -> None:
    """`verb` as it is typed, `matching` to what (the column `filter`), to how many of them, and why."""
    row = {"at": act.at, "who": act.who, "verb": verb, "matching": matching, "count": count, "detail": detail or None}
    tables.Journal.insert(row).execute(db)
