"""What `outbox doctor` looks at, from the outside in. Each module has `examine(session, db)`, which yields its checks.

    database.py   the engine, its files, its durability, its clock
    sealed.py     the key, and what it opens: passwords, OAuth setups, DKIM keys
    relays.py     how accounts reach their relays: faults, TLS
    pauses.py     what is paused, probed or braked, and what waits because of it
    policy.py     where mail may go: staging, reply rules, limits, suppression
    telling.py    who is told: webhook, notices
    rescued.py    rescue files, and what waits in them
    pickups.py    pickup folders, and what is left in them
    running.py    runners, and the queue

Nothing is changed, nothing is sent, no name is looked up, and no secret is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from outbox.errors import OutboxError


class Result(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Good to know; nothing has to be done now."""
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and what to do next where it is not well."""

    check: str
    result: Result
    words: str
    hint: str = ""


def failed(name: str, error: OutboxError) -> Check:
    """The check that has ended with this error."""
    return Check(name, Result.FAIL, str(error), error.hint)
