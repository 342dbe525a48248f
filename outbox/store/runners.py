"""The runners' own rows: who they are, how long they are believed to live, and who is dead (DESIGN §3.7).

The lease is the runner's, one row, not the messages': renewing it costs one write however much is being sent. A runner
is declared dead by whoever sees that its lease ran out or that its lock is free, and is never brought back: it comes
again under a new id. Everything here runs in the clerk's open transaction.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from outbox.store import Store
from outbox.store.tables import Delivery, Runner

FORGET_AFTER = timedelta(days=7)


def register(store: Store, runner: str, *, host: str, pid: int, version: str, now: datetime, lease: timedelta) -> None:
    row = Runner.insert(
        id=runner, host=host, pid=pid, version=version, started_at=now, lease_until=now + lease, asleep=False
    )
    row.execute(store.db)


def renew(store: Store, runner: str, now: datetime, lease: timedelta) -> bool:
    """Extend our lease. False when somebody has declared us dead: what we hold may be sent by others by now."""
    query = Runner.update(lease_until=now + lease).where(Runner.id == runner, Runner.dead_at.is_null())
    return bool(query.execute(store.db))


def fall_asleep(store: Store, runner: str, *, asleep: bool) -> None:
    """Say whether an INSERT should wake us by NOTIFY (PostgreSQL)."""
    Runner.update(asleep=asleep).where(Runner.id == runner).execute(store.db)


def others(store: Store, runner: str) -> list[str]:
    """The runners, but this one, that nobody has declared dead."""
    query = Runner.select(Runner.id).where(Runner.dead_at.is_null(), Runner.id != runner)
    return [row.id for row in query.execute(store.db)]


def overdue(store: Store, runner: str, now: datetime) -> list[str]:
    """Those of the others whose lease has run out."""
    query = Runner.select(Runner.id).where(Runner.dead_at.is_null(), Runner.id != runner, Runner.lease_until < now)
    return [row.id for row in query.execute(store.db)]


def dead_holding(store: Store) -> bool:
    """Whether a runner that is declared dead still has messages in its name."""
    dead = Runner.select(Runner.id).where(Runner.dead_at.is_null(False))
    return Delivery.select().where(Delivery.state == "sending", Delivery.lease_owner.in_(dead)).exists(store.db)


def bury(store: Store, dead: list[str], now: datetime) -> None:
    """Declare these runners dead, for good. Their messages are then taken back by `Store.reclaim`."""
    Runner.update(dead_at=now, asleep=False).where(Runner.id.in_(dead), Runner.dead_at.is_null()).execute(store.db)


def leave(store: Store, runner: str, now: datetime) -> None:
    """Depart in good order: nothing of ours is being sent, or whoever is left takes it back."""
    Runner.update(dead_at=now, asleep=False).where(Runner.id == runner, Runner.dead_at.is_null()).execute(store.db)


def forget(store: Store, now: datetime) -> None:
    """Delete the rows of the long dead, which hold nothing any more."""
    holding = Delivery.select(Delivery.lease_owner).where(Delivery.state == "sending")
    old = (Runner.dead_at < now - FORGET_AFTER) & Runner.id.not_in(holding)
    Runner.delete().where(old).execute(store.db)
