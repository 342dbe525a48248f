"""What the database says of the delivery policy at one moment: who may send, and how."""

from __future__ import annotations

from dataclasses import dataclass

from outbox.core.account import Registry
from outbox.core.dkim_key import SealedKey
from outbox.core.rules import Rules
from outbox.store import Store, accounts, dkim, limits, rules, suppression


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`suppressing`: somebody is suppressed at all. `keys`: those that sign."""

    registry: Registry
    rules: Rules
    limits: limits.Snapshot
    suppressing: bool
    keys: tuple[SealedKey, ...]


def take(runner: str, store: Store) -> Snapshot:
    """As the runner `runner` sees it: its share of the limits depends on how many there are."""
    now = store.now()
    return Snapshot(
        accounts.registry(store.db),
        rules.load(store.db),
        limits.snapshot(store.db, runner, now),
        suppression.any_active(store.db, now),
        dkim.keys(store.db),
    )
