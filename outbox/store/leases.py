"""What only one runner does at a time: `outbox_lease`, by name. Statements in the clerk's open transaction."""

from __future__ import annotations

from datetime import datetime, timedelta

from peewee import EXCLUDED, Database, fn

from outbox.store.tables import Lease, Runner


def take(db: Database, name: str, owner: str, now: datetime, span: timedelta) -> bool:
    """Take the lease for `span`, or extend it. False while another runner has it, and has neither left nor died."""
    living = Runner.select(Runner.id).where(Runner.id == Lease.owner, Runner.dead_at.is_null())
    free = (Lease.owner == owner) | (Lease.until <= now) | ~fn.EXISTS(living)
    query = Lease.insert(name=name, owner=owner, until=now + span).on_conflict(
        conflict_target=[Lease.name], update={Lease.owner: EXCLUDED.owner, Lease.until: EXCLUDED.until}, where=free
    )
    return bool(list(query.returning(Lease.name).tuples().execute(db)))


def give_back(db: Database, name: str, owner: str) -> None:
    """Let somebody else have it now."""
    Lease.delete().where(Lease.name == name, Lease.owner == owner).execute(db)
