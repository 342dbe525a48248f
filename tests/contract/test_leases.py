"""What only one runner does at a time, over both databases."""

from __future__ import annotations

from datetime import timedelta

import peewee

from outbox.store import Store, leases
from tests.contract.stores import ME, NOW, OTHER, bury
from tests.statements import rows

SPAN = timedelta(seconds=60)


def test_a_lease_is_one_runners_until_it_is_over(store: Store, second: Store, database: peewee.Database) -> None:
    assert leases.take(database, "webhook", ME, NOW, SPAN)
    assert not leases.take(database, "webhook", OTHER, NOW + SPAN / 2, SPAN)
    assert leases.take(database, "notices", OTHER, NOW, SPAN)
    assert leases.take(database, "webhook", OTHER, NOW + SPAN, SPAN)
    assert not leases.take(database, "webhook", ME, NOW + SPAN, SPAN)
    assert rows(database, "SELECT name, owner FROM outbox_lease ORDER BY name") == [
        ("notices", OTHER),
        ("webhook", OTHER),
    ]


def test_whoever_has_it_can_extend_it(store: Store, second: Store, database: peewee.Database) -> None:
    assert leases.take(database, "webhook", ME, NOW, SPAN)
    assert leases.take(database, "webhook", ME, NOW + SPAN / 2, SPAN)
    assert not leases.take(database, "webhook", OTHER, NOW + SPAN, SPAN)


def test_what_is_given_back_is_free_at_once(store: Store, second: Store, database: peewee.Database) -> None:
    leases.take(database, "webhook", ME, NOW, SPAN)
    leases.give_back(database, "webhook", OTHER)
    assert not leases.take(database, "webhook", OTHER, NOW, SPAN)
    leases.give_back(database, "webhook", ME)
    assert leases.take(database, "webhook", OTHER, NOW, SPAN)


def test_what_a_dead_runner_had_is_free_at_once(store: Store, second: Store, database: peewee.Database) -> None:
    leases.take(database, "webhook", ME, NOW, SPAN)
    assert not leases.take(database, "webhook", OTHER, NOW, SPAN)
    bury(store, ME)
    assert leases.take(database, "webhook", OTHER, NOW, SPAN)
