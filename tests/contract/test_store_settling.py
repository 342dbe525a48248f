"""The store's verbs, over SQLite and PostgreSQL: settlements, expiry, and the runners' own rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import peewee
import pytest

from outbox.core.outcome import Scope
from outbox.core.pause import Pause
from outbox.core.settlement import Result, relinquish
from outbox.store import Lane, Pick, Settled, Store, runners
from tests.contract.stores import (
    LATER,
    ME,
    NOW,
    OTHER,
    SHOP,
    add,
    attempts,
    bury,
    claim,
    deferred,
    delivery,
    fates,
    register,
    sent,
    settle,
    write,
)
from tests.statements import one, rows


def test_a_settlement_writes_delivery_attempt_and_recipients(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    (claimed,) = claim(store)
    assert settle(store, sent(claimed)) == [Settled.WRITTEN]
    columns = ("state", "lease_owner", "last_code", "last_status", "last_reply")
    assert delivery(database, message_id, *columns) == ("sent", None, 250, "2.0.0", "queued as 4X")
    assert one(database, "SELECT final_at IS NOT NULL FROM outbox_delivery") in (True, 1)
    assert attempts(database, message_id) == [(1, "accepted", None)]
    assert fates(database, message_id) == [(0, 1, "accepted")]
    assert one(database, "SELECT relay FROM outbox_attempt") == "mx[192.0.2.1]:25"


def test_a_deferred_message_is_queued_for_later_and_remembers_when_it_was_first_tried(
    store: Store, database: peewee.Database
) -> None:
    (message_id,) = add(database)
    (claimed,) = claim(store)
    settle(store, deferred(claimed))
    assert delivery(database, message_id, "state", "failures") == ("queued", 1)
    assert store.lanes("", 1) == [Lane(SHOP, 5, LATER)]
    assert delivery(database, message_id, "first_attempt_at IS NOT NULL")[0] in (True, 1)


def test_an_outage_does_not_begin_a_messages_age(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    (claimed,) = claim(store)
    settle(store, replace(deferred(claimed), result=Result.PAUSED, failures=0))
    assert delivery(database, message_id, "state", "first_attempt_at") == ("queued", None)


def test_a_pause_that_the_messages_content_may_have_caused_begins_its_age(
    store: Store, database: peewee.Database
) -> None:
    (number,) = add(database)
    (each,) = claim(store)
    settle(store, replace(deferred(each), result=Result.PAUSED, pause=Pause(Scope.RELAY, "dot: 421 bye", ages=True)))
    assert delivery(database, number, "first_attempt_at IS NOT NULL") in [(True,), (1,)]


def test_a_settlement_is_fenced_by_the_claim_number(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    (claimed,) = claim(store)
    stale = replace(deferred(claimed), claim_no=0)
    assert settle(store, stale) == [Settled.LATE]
    assert delivery(database, message_id, "state", "claim_no", "failures") == ("sending", 1, 0)


def test_a_settlement_that_was_written_before_is_written(store: Store, database: peewee.Database) -> None:
    """The COMMIT was done and its acknowledgement got lost: the clerk tries the same group again."""
    (message_id,) = add(database)
    (claimed,) = claim(store)
    assert settle(store, sent(claimed)) == [Settled.WRITTEN]
    assert settle(store, sent(claimed)) == [Settled.WRITTEN]
    assert fates(database, message_id) == [(0, 1, "accepted")]
    assert attempts(database, message_id) == [(1, "accepted", None)]


def test_what_is_relinquished_is_due_as_before_and_nothing_is_counted(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    before = delivery(database, message_id, "due_at", "failures", "first_attempt_at")
    (claimed,) = claim(store)
    assert settle(store, relinquish(claimed)) == [Settled.WRITTEN]
    assert delivery(database, message_id, "due_at", "failures", "first_attempt_at") == before
    assert delivery(database, message_id, "state") == ("queued",)
    assert attempts(database, message_id) == [(1, "relinquished", None)]


def test_a_batch_is_settled_each_by_its_own_fence(store: Store, database: peewee.Database) -> None:
    ids = add(database, 4)
    claims = claim(store)
    mixed = [sent(claims[0]), replace(sent(claims[1]), claim_no=9), relinquish(claims[2]), deferred(claims[3])]
    assert settle(store, *mixed) == [Settled.WRITTEN, Settled.LATE, Settled.WRITTEN, Settled.WRITTEN]
    states = [delivery(database, each, "state")[0] for each in ids]
    assert states == ["sent", "sending", "queued", "queued"]


def test_a_rolled_back_group_leaves_nothing(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)

    def claim_and_fail() -> None:
        store.claim(ME, [Pick(SHOP, 5, 1)], NOW)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(store, claim_and_fail)
    assert delivery(database, message_id, "state", "claim_no") == ("queued", 0)
    assert attempts(database, message_id) == []


# ---- expiry, runners, counts


def test_what_waits_past_its_time_expires(store: Store, database: peewee.Database) -> None:
    gone = add(database, expires_at=(NOW - timedelta(seconds=1)).isoformat())[0]
    fresh = add(database, expires_at=LATER.isoformat())[0]
    assert store.expirable(NOW)
    assert write(store, lambda: store.expire(NOW)) == 1
    assert [delivery(database, each, "state")[0] for each in (gone, fresh)] == ["expired", "queued"]
    assert not store.expirable(NOW)


def test_a_lease_is_renewed_until_somebody_declares_the_runner_dead(store: Store) -> None:
    minute = timedelta(minutes=1)
    assert write(store, lambda: runners.renew(store, ME, NOW, minute))
    assert runners.leases(store) == {ME: NOW + minute}
    write(store, lambda: runners.bury_overdue(store, [ME], NOW))
    assert runners.leases(store) == {ME: NOW + minute}
    write(store, lambda: runners.bury_overdue(store, [ME], LATER))
    assert not write(store, lambda: runners.renew(store, ME, NOW, minute))
    assert runners.leases(store) == {}


def test_a_runner_that_holds_nothing_is_forgotten_in_the_end(store: Store, database: peewee.Database) -> None:
    register(store, OTHER)
    add(database)
    claim(store)
    bury(store, ME)
    bury(store, OTHER)
    assert runners.dead_holding(store)
    write(store, lambda: runners.forget(store, NOW + timedelta(days=30)))
    assert rows(database, "SELECT id FROM outbox_runner") == [(ME,)]


def test_what_waits_is_counted_by_sender(store: Store, database: peewee.Database) -> None:
    add(database, 3, due_at=NOW.isoformat())
    add(database, 1, sender="a@example.com", due_at=LATER.isoformat())
    found = [(each.sender, each.count, each.due_at) for each in store.waiting()]
    assert found == [("a@example.com", 1, LATER), (SHOP, 3, NOW)]
    claim(store, 2)
    assert store.sending() == 2
