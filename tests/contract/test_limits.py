"""Limits and their counters, on both databases, and by several at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import peewee
import pytest

from outbox.core.account import Account, Sender, Tls
from outbox.core.limits import Limit, Limited, Span, Window
from outbox.core.settlement import postpone
from outbox.errors import Refused
from outbox.store import Store, accounts, limits, senders
from outbox.store.database import connect
from outbox.store.journal import Act
from outbox.store.limits import Shortage, Snapshot, Want
from tests.contract.stores import LATER, ME, OTHER, SURVIVOR, add, claim, delivery, register, settle
from tests.contract.stores import NOW as REGISTERED_AT
from tests.statements import rows

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ACT = Act("ann@web1", NOON)
MAIN = Limit(Limited.ACCOUNT, "main", per_minute=30, per_day=100)
NET = Limit(Limited.DOMAIN, "example.net", connections=2, per_minute=5)


def take(db: peewee.Database, *wants: Want, at: datetime = NOON) -> tuple[Shortage, ...]:
    with db.atomic():
        (answer,) = limits.reserve(db, [wants], at)
    return answer


def used(db: peewee.Database) -> dict[tuple[str, str], tuple[int, int]]:
    found = rows(db, "SELECT name, span, used, before FROM outbox_usage")
    return {(name, span): (count, before) for name, span, count, before in found}


# -- setting and removing


def test_limits_are_set_replaced_listed_and_removed(database: peewee.Database) -> None:
    limits.set_limit(database, NET, ACT)
    limits.set_limit(database, Limit(Limited.DOMAIN, "example.net", per_day=7), ACT)
    limits.set_limit(database, Limit(Limited.DOMAIN, "example.com", per_hour=9), ACT)
    assert limits.limits(database) == [
        Limit(Limited.DOMAIN, "example.com", per_hour=9),
        Limit(Limited.DOMAIN, "example.net", per_day=7),
    ]
    limits.remove_limit(database, Limited.DOMAIN, "example.net", ACT)
    assert [each.name for each in limits.limits(database)] == ["example.com"]
    journal = rows(database, "SELECT verb, filter, detail FROM outbox_journal ORDER BY id")
    assert journal == [
        ("limit set", "domain=example.net", "connections=2 per_minute=5"),
        ("limit set", "domain=example.net", "per_day=7"),
        ("limit set", "domain=example.com", "per_hour=9"),
        ("limit remove", "domain=example.net", None),
    ]


def test_what_does_not_exist_is_not_limited(database: peewee.Database) -> None:
    with pytest.raises(Refused, match="no account main"):
        limits.set_limit(database, MAIN, ACT)
    with pytest.raises(Refused, match="no sender shop"):
        limits.set_limit(database, Limit(Limited.SENDER, "shop@example.com", per_day=1), ACT)
    with pytest.raises(Refused, match="no limit"):
        limits.remove_limit(database, Limited.DOMAIN, "example.net", ACT)
    with pytest.raises(Refused, match="no limit"):
        limits.set_limit(database, Limit(Limited.DOMAIN, "example.net"), ACT)
    accounts.add_account(database, Account("main", "relay.example.com", 587, Tls.STARTTLS), ACT)
    senders.add_sender(database, Sender("shop@example.com", "main"), ACT)
    limits.set_limit(database, MAIN, ACT)
    limits.set_limit(database, Limit(Limited.SENDER, "shop@example.com", per_day=1), ACT)
    assert len(limits.limits(database)) == 2


# -- reserving


def test_all_is_taken_or_nothing(database: peewee.Database) -> None:
    assert take(database, Want(MAIN, 3), Want(NET, 2)) == ()
    assert used(database) == {("main", "minute"): (3, 0), ("main", "day"): (3, 0), ("example.net", "minute"): (2, 0)}
    (shortage,) = take(database, Want(MAIN, 1), Want(NET, 4))
    assert (shortage.limit, shortage.span, shortage.most) == (NET, Span.MINUTE, 5)
    assert shortage.window == Window(NOON, 2, 0)
    assert shortage.until == NOON + timedelta(seconds=75)
    assert used(database)["main", "minute"] == (3, 0)
    assert take(database, Want(MAIN, 1), Want(NET, 4), at=shortage.until) == ()
    assert used(database)["example.net", "minute"] == (4, 2)
    assert used(database)["main", "day"] == (4, 0)


def test_requests_of_one_transaction_see_each_other(database: peewee.Database) -> None:
    with database.atomic():
        answers = limits.reserve(database, [[Want(NET, 3)], [Want(NET, 3)], [Want(NET, 2)]], NOON)
    assert [not each for each in answers] == [True, False, True]
    assert used(database) == {("example.net", "minute"): (5, 0)}


def test_a_message_with_more_recipients_than_the_limit_takes_all_of_it(database: peewee.Database) -> None:
    assert take(database, Want(NET, 900)) == ()
    (shortage,) = take(database, Want(NET, 900))
    assert shortage.until == NOON + timedelta(seconds=114)
    assert take(database, Want(NET, 900), at=shortage.until) == ()


def test_whoever_insists_goes_when_one_is_free_and_those_behind_wait(database: peewee.Database) -> None:
    assert take(database, Want(NET, 4)) == ()
    assert take(database, Want(NET, 5, insist=True)) == ()
    assert used(database) == {("example.net", "minute"): (9, 0)}
    assert take(database, Want(NET, 5, insist=True)) != ()
    assert take(database, Want(NET, 1))[0].until > NOON + timedelta(seconds=80)


def test_what_was_not_tried_is_given_back_in_the_span_it_was_taken_in(database: peewee.Database) -> None:
    take(database, Want(NET, 2))
    with database.atomic():
        limits.reserve(database, [], NOON + timedelta(seconds=3), [([Want(NET, 2)], NOON)])
    assert used(database) == {("example.net", "minute"): (0, 0)}
    take(database, Want(NET, 2), at=NOON + timedelta(seconds=59))
    take(database, Want(NET, 3), at=NOON + timedelta(seconds=61))
    with database.atomic():
        unused = [([Want(NET, 2)], NOON + timedelta(seconds=59))]
        answers = limits.reserve(database, [[Want(NET, 2)]], NOON + timedelta(seconds=62), unused)
    assert answers == [()]
    assert used(database) == {("example.net", "minute"): (5, 0)}


def test_what_is_undone_with_the_transaction_was_not_taken(database: peewee.Database) -> None:
    with database.atomic() as transaction:
        limits.reserve(database, [[Want(NET, 5)]], NOON)
        transaction.rollback()
    assert take(database, Want(NET, 5)) == ()


def test_a_limit_of_connections_alone_counts_nothing(database: peewee.Database) -> None:
    assert take(database, Want(Limit(Limited.DOMAIN, "example.net", connections=1), 50)) == ()
    assert used(database) == {}


def test_old_counters_are_forgotten(database: peewee.Database) -> None:
    take(database, Want(MAIN, 1))
    take(database, Want(NET, 1), at=NOON + timedelta(hours=13))
    with database.atomic():
        assert limits.forget(database, NOON + timedelta(days=2)) == 1
    assert set(used(database)) == {("main", "minute"), ("example.net", "minute")}


def test_the_usage_is_read_as_it_is_stored(database: peewee.Database) -> None:
    take(database, Want(NET, 2))
    assert limits.usage(database, [NET, MAIN]) == {(Limited.DOMAIN, "example.net", Span.MINUTE): Window(NOON, 2, 0)}


# -- by several at once


def test_several_at_once_never_take_more_than_the_limit(database_url: str, database: peewee.Database) -> None:
    main = Limit(Limited.ACCOUNT, "main", per_day=100)
    both = [Want(main, 1), Want(Limit(Limited.DOMAIN, "example.net", per_hour=60), 1)]
    start = threading.Barrier(3)

    def runner(order: int) -> int:
        with closing(connect(database_url, timeout=30)) as own:
            start.wait()
            # Each in an order of its own: locks are taken in one order all the same.
            requests = [[both, both[::-1], both[:1]][(order + turn) % 3] for turn in range(60)]
            return sum(take(own, *wants) == () for wants in requests)

    with ThreadPoolExecutor(3) as pool:
        granted = sum(pool.map(runner, range(3)))
    counted = used(database)
    assert counted["main", "day"] == (100, 0) == (granted, 0)
    assert counted["example.net", "hour"][0] <= 60


# -- the fleet


def test_runners_are_ranked_by_id_and_the_dead_do_not_count(store: Store) -> None:
    register(store, SURVIVOR)
    register(store, OTHER, lease=timedelta(seconds=-1))
    now = REGISTERED_AT
    assert limits.fleet(store.db, ME, now) == (0, 2)
    assert limits.fleet(store.db, SURVIVOR, now) == (1, 2)
    assert limits.fleet(store.db, "z" * 32, now) == (2, 3)


def test_a_snapshot_counts_runners_only_where_there_are_limits(store: Store) -> None:
    register(store, SURVIVOR)
    assert limits.snapshot(store.db, SURVIVOR, REGISTERED_AT) == Snapshot((), 0, 1)
    limits.set_limit(store.db, NET, ACT)
    assert limits.snapshot(store.db, SURVIVOR, REGISTERED_AT) == Snapshot((NET,), 1, 2)


# -- the message


def test_a_postponed_message_is_due_later_and_says_why_in_its_attempt(database: peewee.Database, store: Store) -> None:
    kept, later = add(database, 2)
    first, second = claim(store)
    settle(store, postpone(first, None, "limit of 5 a minute is used up"), postpone(second, LATER, "limit of 6"))
    assert delivery(database, kept, "state", "failures", "last_reply", "first_attempt_at") == ("queued", 0, None, None)
    assert datetime.fromisoformat(delivery(database, kept, "due_at")[0]) < REGISTERED_AT
    assert datetime.fromisoformat(delivery(database, later, "due_at")[0]) == LATER
    assert rows(database, "SELECT outcome, code, reply FROM outbox_attempt ORDER BY message_id") == [
        ("relinquished", None, "limit of 5 a minute is used up"),
        ("relinquished", None, "limit of 6"),
    ]
    assert [each.message_id for each in claim(store)] == [kept]
