"""The runners' own rows: who they are, how long they are believed to live, and who is dead (DESIGN §3.7).

The lease is the runner's, one row, not the messages': renewing it costs one write however much is being sent. A runner
is declared dead by whoever sees that its lease ran out or that its lock is free, and is never brought back: it comes
again under a new id. Everything here runs in the clerk's open transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from peewee import Expression

from outbox.store import Store
from outbox.store.database import dialect
from outbox.store.rows import moment_of
from outbox.store.tables import Delivery, Runner

FORGET_AFTER = timedelta(days=7)

# Every idle runner asks these twice a second: written out, they cost a fifth of what building them costs.
_LEASES = "SELECT id, lease_until FROM outbox_runner WHERE dead_at IS NULL"
_HELD_BY_THE_DEAD = """
SELECT 1 FROM outbox_delivery WHERE state = 'sending'
  AND lease_owner IN (SELECT id FROM outbox_runner WHERE dead_at IS NOT NULL) LIMIT 1"""


def register(store: Store, runner: str, *, host: str, pid: int, version: str, now: datetime, lease: timedelta) -> None:
    """A row of ours. It may be there already: the COMMIT of a first try whose acknowledgement was lost."""
    row = Runner.insert(
        id=runner, host=host, pid=pid, version=version, started_at=now, lease_until=now + lease, asleep=False
    )
    row.on_conflict(conflict_target=[Runner.id], preserve=[Runner.lease_until]).execute(store.db)


def renew(store: Store, runner: str, now: datetime, lease: timedelta) -> bool:
    """Extend our lease. False when somebody has declared us dead: what we hold may be sent by others by now."""
    query = Runner.update(lease_until=now + lease).where(Runner.id == runner, Runner.dead_at.is_null())
    return bool(query.execute(store.db))


def fall_asleep(store: Store, runner: str, *, asleep: bool) -> None:
    """Say whether an INSERT should wake us by NOTIFY (PostgreSQL)."""
    Runner.update(asleep=asleep).where(Runner.id == runner).execute(store.db)


def leases(store: Store) -> dict[str, datetime]:
    """The runners that nobody has declared dead, and until when each is believed to live."""
    return {runner: moment_of(until) for runner, until in store.db.execute_sql(_LEASES).fetchall()}


def dead_holding(store: Store) -> bool:
    """Whether a runner that is declared dead still has messages in its name."""
    return bool(store.db.execute_sql(_HELD_BY_THE_DEAD).fetchall())


def bury(store: Store, dead: Iterable[str], now: datetime) -> list[str]:
    """Declare these runners dead, for good: those that were. Their messages are then taken back by `Store.reclaim`.

    Whose row is locked is left for the next time: by a runner that stands still in the middle of a transaction, and it
    would hold up everybody else's clerk.
    """
    return _bury(store, Runner.id.in_(list(dead)) & Runner.dead_at.is_null(), now)


def bury_overdue(store: Store, overdue: Iterable[str], now: datetime) -> list[str]:
    """The same for runners whose lease has run out, unless one of them has renewed it meanwhile."""
    return _bury(store, Runner.id.in_(list(overdue)) & Runner.dead_at.is_null() & (Runner.lease_until < now), now)


def _bury(store: Store, gone: Expression, now: datetime) -> list[str]:
    which = Runner.select(Runner.id).where(gone)
    if dialect(store.db) == "postgres":
        which = which.for_update(skip_locked=True)
    query = Runner.update(dead_at=now, asleep=False).where(Runner.id.in_(which), gone).returning(Runner.id)
    return [row.id for row in query.execute(store.db)]


def leave(store: Store, runner: str, now: datetime) -> None:
    """Depart in good order: nothing of ours is being sent, or whoever is left takes it back."""
    Runner.update(dead_at=now, asleep=False).where(Runner.id == runner, Runner.dead_at.is_null()).execute(store.db)


def forget(store: Store, now: datetime) -> list[str]:
    """Delete the rows of the long dead, which hold nothing any more. All the dead there were."""
    dead = [row.id for row in Runner.select(Runner.id).where(Runner.dead_at.is_null(False)).execute(store.db)]
    holding = Delivery.select(Delivery.lease_owner).where(Delivery.state == "sending")
    old = (Runner.dead_at < now - FORGET_AFTER) & Runner.id.not_in(holding)
    Runner.delete().where(old).execute(store.db)
    return dead
