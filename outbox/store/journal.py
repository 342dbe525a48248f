"""What people did, and what a runner did to an account, as lines of `outbox_journal`.

A line is written in the transaction of what it tells of, so that both are kept or lost together.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from peewee import Database

from outbox.store import events, tables
from outbox.store.events import Kind, Recording


@dataclass(frozen=True, slots=True)
class Act:
    """Who does something, and when (aware, UTC): ``Act("ann@web1", clock.now())``, ``Act("runner 3f…", now)``; and of
    which events it leaves.
    """

    who: str
    at: datetime
    recording: Recording = events.EVERYTHING


PAUSES = ("account pause", "sender pause")
"""Verbs of which the application hears: whoever waits for its mail would wait in vain."""


def journal(db: Database, act: Act, verb: str, matching: str = "", *, count: int = 1, detail: str = "") -> None:
    """`verb` as it is typed, `matching` to what (the column `filter`), to how many of them, and why. A pause is an
    event, too.
    """
    row = {"at": act.at, "who": act.who, "verb": verb, "matching": matching, "count": count, "detail": detail or None}
    tables.Journal.insert(row).execute(db)
    if verb in PAUSES:
        words = (None, None, detail or None)
        events.record(db, act.recording, Kind.PAUSED, act.at, subject=matching, words=words)
