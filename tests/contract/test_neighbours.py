"""What is written of one row leaves the rows beside it alone, however much they have in common."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import peewee
import pytest

from outbox.core.account import Account, Mechanism, Tls
from outbox.core.outcome import Scope, Verdict
from outbox.store import Store, accounts, oauth, runners
from outbox.store.journal import Act
from outbox.store.oauth import OAuth, Sealed
from outbox.store.rows import moment
from outbox.store.rules import add_rule, load, remove_rule
from outbox.store.statistics import statistics
from tests.contract.stores import LATER, ME, NOW, OTHER, add, register, write
from tests.statements import rows, run

ANN = Act("ann", NOW)
MINUTE = timedelta(minutes=1)


# -- access tokens


@pytest.fixture
def two(database: peewee.Database) -> peewee.Database:
    """Two accounts with the same setup, both being renewed by ME."""
    with database.atomic():
        for name in ("one", "two"):
            account = Account(name, "smtp.example.com", 587, Tls.STARTTLS, Mechanism.XOAUTH2, "shop@example.com")
            accounts.add_account(database, account, ANN)
            oauth.save(database, account, Sealed("setup", "key1"), ANN, "account oauth")
            assert oauth.take(database, name, ME, 1, NOW)
    return database


def token_of(database: peewee.Database, name: str) -> OAuth:
    found = oauth.find(database, name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "act",
    [
        lambda db: oauth.write(db, "one", ME, 1, Sealed("new", "key2", "token", MINUTE), NOW),
        lambda db: oauth.release(db, "one", ME, 1, LATER),
        lambda db: oauth.reseal(db, token_of(db, "one"), "resealed", None, "key2"),
        lambda db: oauth.take(db, "one", OTHER, 1, LATER),
    ],
    ids=["write", "release", "reseal", "take"],
)
def test_the_token_of_another_account(two: peewee.Database, act: Any) -> None:
    one, beside = token_of(two, "one"), token_of(two, "two")
    assert act(two)
    assert token_of(two, "one") != one
    assert token_of(two, "two") == beside
    assert [each.account for each in oauth.every(two)] == ["one", "two"]


def test_a_new_setup_of_another_account(two: peewee.Database) -> None:
    beside = token_of(two, "two")
    oauth.save(two, accounts.account(two, "one"), Sealed("new", "key2"), ANN, "account oauth")
    assert (token_of(two, "one").setup, token_of(two, "one").version) == ("new", 2)
    assert token_of(two, "two") == beside


def test_a_lease_of_a_minute_from_now(two: peewee.Database) -> None:
    assert token_of(two, "one").refreshing_until == NOW + MINUTE
    assert token_of(two, "one").is_leased(NOW + MINUTE - timedelta(milliseconds=1))
    assert not token_of(two, "one").is_leased(NOW + MINUTE)


def test_when_a_token_was_got_is_known_from_its_two_times(two: peewee.Database) -> None:
    assert token_of(two, "one").refreshed_at is None
    oauth.write(two, "one", ME, 1, Sealed("setup", "key1", "token", timedelta(hours=1)), NOW)
    renewed = token_of(two, "one")
    assert (renewed.refresh_at, renewed.expires_at) == (NOW + timedelta(minutes=48), NOW + timedelta(hours=1))
    assert renewed.refreshed_at is not None
    assert abs(renewed.refreshed_at - NOW) < timedelta(milliseconds=1)


# -- reply rules


def test_a_rule_with_the_same_pattern_for_another_relay(database: peewee.Database) -> None:
    def rule(relay: str, pattern: str) -> int:
        with database.atomic():
            return add_rule(database, ANN, pattern=pattern, verdict=Verdict.DEFER, scope=Scope.ACCOUNT, relay=relay).id

    first, second, third = rule("a.example", "busy"), rule("b.example", "busy"), rule("a.example", "full")
    remove_rule(database, first, ANN)
    assert [each.id for each in load(database)] == [second, third]
    (detail,) = [each for (each,) in rows(database, "SELECT detail FROM outbox_journal WHERE verb = 'rule remove'")]
    assert detail == "relay=a.example 'busy' verdict=defer scope=account"
    assert rule("a.example", "busy") > third


# -- runners


def leases(store: Store) -> dict[str, Any]:
    sql = "SELECT id, lease_until, dead_at, asleep FROM outbox_runner ORDER BY id"
    return {runner: (until, dead, bool(asleep)) for runner, until, dead, asleep in rows(store.db, sql)}


@pytest.mark.parametrize(
    ("act", "changed"),
    [
        (lambda store: runners.renew(store, ME, LATER, MINUTE), (moment(LATER + MINUTE), None, False)),
        (lambda store: runners.fall_asleep(store, ME, asleep=True), (moment(NOW + MINUTE), None, True)),
        (lambda store: runners.leave(store, ME, LATER), (moment(NOW + MINUTE), moment(LATER), False)),
        (lambda store: runners.bury(store, [ME], LATER), (moment(NOW + MINUTE), moment(LATER), False)),
        (lambda store: runners.bury_overdue(store, [ME], LATER), (moment(NOW + MINUTE), moment(LATER), False)),
    ],
    ids=["renew", "fall asleep", "leave", "bury", "bury overdue"],
)
def test_another_runner(store: Store, act: Any, changed: tuple[Any, ...]) -> None:
    register(store, OTHER, lease=MINUTE)
    write(store, lambda: runners.renew(store, ME, NOW, MINUTE))
    before = leases(store)
    write(store, lambda: act(store))
    assert leases(store) == {**before, ME: changed}


def test_a_runner_that_is_dead_changes_nothing_any_more(store: Store) -> None:
    write(store, lambda: runners.bury(store, [ME], NOW))
    before = leases(store)
    assert before[ME][1] == moment(NOW)
    assert not write(store, lambda: runners.renew(store, ME, LATER, MINUTE))
    write(store, lambda: runners.leave(store, ME, LATER))
    assert write(store, lambda: runners.bury(store, [ME], LATER)) == []
    assert write(store, lambda: runners.bury_overdue(store, [ME], LATER)) == []
    assert leases(store) == before


def test_a_runner_is_overdue_when_its_lease_is_over(store: Store) -> None:
    write(store, lambda: runners.renew(store, ME, NOW, MINUTE))
    assert write(store, lambda: runners.bury_overdue(store, [ME], NOW + MINUTE)) == []
    assert write(store, lambda: runners.bury_overdue(store, [ME], NOW + MINUTE + timedelta(milliseconds=1))) == [ME]


def test_a_runner_is_remembered_for_a_week(store: Store) -> None:
    write(store, lambda: runners.bury(store, [ME], NOW))
    week = timedelta(days=7)
    write(store, lambda: runners.forget(store, NOW + week))
    assert leases(store).keys() == {ME}
    write(store, lambda: runners.forget(store, NOW + week + timedelta(milliseconds=1)))
    assert leases(store) == {}


def test_whoever_registers_twice_has_one_row_and_the_later_lease(store: Store) -> None:
    register(store, ME, lease=MINUTE)
    assert leases(store) == {ME: (moment(NOW + MINUTE), None, False)}
    sql = "SELECT host, pid, version, started_at FROM outbox_runner"
    assert rows(store.db, sql) == [("web1", 1, "0.1.0", moment(NOW))]


# -- numbers


@pytest.mark.parametrize(
    ("column", "value"),
    [("failures", 1), ("doubts", 1), ("first_attempt_at", moment(NOW)), ("last_reply", "451 later")],
    ids=["failures", "doubts", "first_attempt_at", "last_reply"],  # of each process the same, whenever it began
)
def test_what_was_tried_in_any_way_is_deferred_and_not_scheduled(
    database: peewee.Database, column: str, value: object
) -> None:
    tried, _ = add(database, 2, due_at=LATER.isoformat())
    add(database)
    run(database, f"UPDATE outbox_delivery SET {column} = ? WHERE message_id = ?", value, tried)
    waiting = statistics(database).waiting
    assert (waiting.due, waiting.scheduled, waiting.deferred) == (1, 1, 1)


def test_what_is_due_is_neither_scheduled_nor_deferred(database: peewee.Database) -> None:
    add(database, 2)
    run(database, "UPDATE outbox_delivery SET failures = 1, doubts = 1, last_reply = '451 later' WHERE message_id = 1")
    waiting = statistics(database).waiting
    assert (waiting.due, waiting.scheduled, waiting.deferred) == (2, 0, 0)
    ((oldest,),) = rows(database, "SELECT min(due_at) FROM outbox_delivery")
    assert moment(waiting.oldest_due_at) == oldest
    assert statistics(database).lines == ()


def test_nothing_at_all_is_counted_as_nothing(database: peewee.Database) -> None:
    numbers = statistics(database)
    waiting, ended = numbers.waiting, numbers.window
    assert (waiting.due, waiting.scheduled, waiting.deferred, waiting.sending, waiting.held) == (0, 0, 0, 0, 0)
    assert (ended.sent, ended.failed, ended.expired, ended.cancelled, ended.doubts) == (0, 0, 0, 0, 0)
    assert (waiting.oldest_due_at, numbers.latency.count, numbers.latency.p50) == (None, 0, None)
