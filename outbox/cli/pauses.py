"""What `account` and `sender` say of pauses by runners: what is probed, and what a brake has failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peewee import Database

    from outbox.core.account import Account, Sender


def failed_by_brake(db: Database, row: Account | Sender) -> list[int]:
    """The messages that a brake of it has failed, and that nobody has retried since."""
    from outbox.store import accounts

    return accounts.still_failed(db, row.failed_by_brake) if row.failed_by_brake else []


def retry(ids: Sequence[int]) -> str:
    """The one command that retries them."""
    return f"outbox retry {' '.join(map(str, ids))}"


def note(whose: str, row: Account | Sender, ids: Sequence[int]) -> str:
    """A line below a list."""
    standing = f"is braked by {row.brake!r}" if row.brake else "was braked"
    return f"{whose} {standing}; what had failed before that can be sent again: {retry(ids)}"


def facts(row: Account | Sender, ids: Sequence[int], now: datetime) -> dict[str, Any]:
    """The same as JSON shows it."""
    return {
        "paused": row.is_paused(now),
        "pause_reason": row.pause_reason,
        "paused_until": row.paused_until,
        "probing": bool(row.half_open(now)),
        "pauses_in_a_row": row.probes,
        "brake": row.brake,
        "failed_by_brake": list(ids),
    }
