"""What only one runner does at a time: `outbox_lease`, by name. Statements in the clerk's open transaction."""

from __future__ import annotations

from datetime import datetime, timedelta

from peewee import EXCLUDED, Database

from outbox.store.tables import Lease


def take(db: Database, name: str, owner: str, now: datetime, span: timedelta) -> bool:
    """Take the lease for `span`, or extend it. False while somebody else has it."""
    free = (Lease.owner == owner) | (Lease.until <= now)
    query = Lease.insert(name=name, owner=owner, until=now + span).on_conflict(
        conflict_target=[Lease.name], update={Lease.owner: EXCLUDED.owner, Lease.until: EXCLUDED.until}, where=free
    )
    return bool(list(query.returning(Lease.name).tuples().execute(db)))


def give_back(db: Database, name: str, owner: str) -> None:
    """Let somebody else have it now."""
    Lease.delete().where(Lease.name == name, Lease.owner == owner).execute(db)
