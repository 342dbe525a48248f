"""Pauses by people and by runners, the brake, and the relay's breaker, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import peewee
import pytest

from outbox.core.outcome import Scope
from outbox.core.pause import Pause
from outbox.core.policy import Policy
from outbox.errors import Refused
from outbox.store import accounts, faults, senders
from outbox.store.accounts import account, add_account, pause_account, registry, relay_recovered, trip_relay
from outbox.store.journal import Act
from outbox.store.senders import pause_sender
from tests.contract.registered import ANN, AUTH, NOT_OURS, NOW, RUNNER, SHOP, journaled, later
from tests.contract.registered import db as db


def test_a_fault_met_with_an_old_password_does_not_pause_the_repaired_account(db: peewee.Database) -> None:
    accounts.set_password(db, replace(account(db, "shop"), secret="new"), ANN)
    assert not faults.pause_account(db, "shop", AUTH, RUNNER, used=1)
    assert not faults.pause_sender(db, "shop@example.com", NOT_OURS, RUNNER, used=1)
    assert (account(db, "shop").pause_reason, accounts.sender(db, "shop@example.com").pause_reason) == ("", "")
    assert faults.pause_account(db, "shop", AUTH, RUNNER, used=2)


def test_a_runner_does_not_replace_a_persons_pause(db: peewee.Database) -> None:
    pause_account(db, "shop", "moving", None, ANN)
    pause_sender(db, "shop@example.com", "moving", NOW + timedelta(minutes=1), ANN)
    assert not faults.pause_account(db, "shop", AUTH, RUNNER, used=1)
    assert not faults.pause_sender(db, "shop@example.com", NOT_OURS, RUNNER, used=1)
    assert account(db, "shop").pause_reason == "operator: moving"
    assert accounts.sender(db, "shop@example.com").paused_until == NOW + timedelta(minutes=1)


def test_a_persons_pause_that_is_over_is_none(db: peewee.Database) -> None:
    pause_account(db, "shop", "moving", NOW, ANN)
    assert faults.pause_account(db, "shop", AUTH, later(seconds=1), used=1)
    assert account(db, "shop").pause_reason == AUTH.reason


def test_nothing_of_a_runners_pause_outlives_the_persons_that_takes_its_place(db: peewee.Database) -> None:
    braked = Pause(Scope.ACCOUNT, "brake: no", Policy().brake_pauses, brake="dot 554 5.7.1", failed=(1, 2))
    faults.pause_account(db, "shop", braked, RUNNER, used=1)
    faults.pause_sender(db, "shop@example.com", replace(braked, scope=Scope.SENDER), RUNNER, used=1)
    pause_account(db, "shop", "moving", NOW, ANN)
    pause_sender(db, "shop@example.com", "moving", NOW, ANN)
    for found in (account(db, "shop"), accounts.sender(db, "shop@example.com")):
        assert (found.brake, found.probes) == ("", 0)
        assert found.failed_by_brake == (1, 2), "they can still be sent again"
        assert (found.is_paused(NOW), found.half_open(NOW)) == (False, ())


def test_one_fault_seen_by_ten_connections_is_one_line_and_one_pause(db: peewee.Database) -> None:
    before = len(journaled(db))
    for milliseconds in (0, 3, 5):
        assert faults.pause_account(db, "shop", AUTH, later(milliseconds=milliseconds), used=1)
        assert faults.pause_sender(db, "shop@example.com", NOT_OURS, later(milliseconds=milliseconds), used=1)
    found, sender = account(db, "shop"), accounts.sender(db, "shop@example.com")
    assert (found.probes, found.paused_until) == (1, NOW + timedelta(minutes=15, milliseconds=5))
    assert (sender.probes, sender.paused_until) == (1, NOW + timedelta(hours=1, milliseconds=5))
    assert len(journaled(db)) == before + 2


def test_a_shorter_fault_does_not_shorten_a_pause_nor_change_its_reason(db: peewee.Database) -> None:
    faults.pause_account(db, "shop", AUTH, RUNNER, used=1)
    throttled = Pause(Scope.ACCOUNT, "mail: 451 4.7.1 rate", Policy().throttle_pauses)
    assert faults.pause_account(db, "shop", throttled, RUNNER, used=1)
    assert account(db, "shop").pause_reason == AUTH.reason
    assert account(db, "shop").paused_until == NOW + timedelta(minutes=15)
    longer = Pause(Scope.ACCOUNT, "dot: 550 5.4.5 daily limit", at_least=timedelta(days=1))
    assert faults.pause_account(db, "shop", longer, RUNNER, used=1)
    assert (account(db, "shop").pause_reason, account(db, "shop").probes) == (longer.reason, 1)
    assert account(db, "shop").paused_until == NOW + timedelta(days=1)


@pytest.mark.parametrize(
    ("pause", "lengths"),
    [
        (AUTH, [15, 60, 240, 1440, 1440]),
        (Pause(Scope.ACCOUNT, "454", Policy().throttle_pauses), [1, 5, 15, 15]),
        (Pause(Scope.ACCOUNT, "454", Policy().throttle_pauses, at_least=timedelta(minutes=10)), [10, 10, 15]),
    ],
    ids=["refused", "throttled", "throttled for long"],
)
def test_each_pause_in_a_row_is_longer(db: peewee.Database, pause: Pause, lengths: list[int]) -> None:
    when, found = NOW, []
    for _ in lengths:
        faults.pause_account(db, "shop", pause, Act("runner 1", when), used=1)
        until = account(db, "shop").paused_until
        assert until is not None
        found.append((until - when) // timedelta(minutes=1))
        when = until
    assert found == lengths
    assert account(db, "shop").probes == len(lengths)


def test_a_fault_of_an_account_or_sender_that_is_gone_pauses_nothing(db: peewee.Database) -> None:
    assert not faults.pause_account(db, "gone", AUTH, RUNNER, used=1)
    assert not faults.pause_sender(db, "gone@example.net", NOT_OURS, RUNNER, used=1)
    with pytest.raises(Refused):
        pause_account(db, "gone", "why", None, ANN)
    with pytest.raises(Refused):
        pause_sender(db, "gone@example.net", "why", None, ANN)


def test_one_refused_address_of_a_domain_does_not_stop_the_others(db: peewee.Database) -> None:
    assert faults.pause_sender(db, "Ann@Example.org", NOT_OURS, RUNNER, used=1)
    paused, other = registry(db).resolve("ann@example.org"), registry(db).resolve("bo@example.org")
    assert paused is not None
    assert other is not None
    assert paused.blocked(NOW).startswith("sender ann@example.org is paused until 2026-03-01T13:00:00Z: mail: 553")
    assert (other.sender.address, other.blocked(NOW)) == ("*@example.org", "")
    senders.resume_sender(db, "ann@example.org", ANN)
    assert accounts.sender(db, "ann@example.org").pause_reason == ""


def test_an_address_that_cannot_be_registered_by_itself_pauses_its_domain(db: peewee.Database) -> None:
    assert faults.pause_sender(db, '"a,b"@example.org', NOT_OURS, RUNNER, used=1)
    assert accounts.sender(db, "*@example.org").pause_reason == NOT_OURS.reason


# ---- the brake


def braked(signature: str, *failed: int) -> Pause:
    reason = f"brake: refused like the messages before it: {signature}"
    return Pause(Scope.ACCOUNT, reason, Policy().brake_pauses, brake=signature, failed=failed)


def test_a_brake_says_what_it_is_and_what_had_failed_before_it(db: peewee.Database) -> None:
    faults.pause_account(db, "shop", braked("dot 554 5.7.1", 1, 2), RUNNER, used=1)
    faults.pause_account(db, "shop", braked("dot 554 5.7.1", 2, 7), RUNNER, used=1)  # another runner's
    found = account(db, "shop")
    assert (found.brake, found.failed_by_brake, found.probes) == ("dot 554 5.7.1", (1, 2, 7), 1)
    assert found.paused_until == NOW + timedelta(minutes=5)
    assert found.pause_reason.startswith("brake: ")


def test_no_more_than_a_hundred_failed_messages_are_remembered_the_latest(db: peewee.Database) -> None:
    faults.pause_account(db, "shop", braked("dot 554", *range(1, 151)), RUNNER, used=1)
    assert account(db, "shop").failed_by_brake == tuple(range(51, 151))


def test_a_brake_does_not_touch_a_longer_pause_for_something_else(db: peewee.Database) -> None:
    faults.pause_account(db, "shop", AUTH, RUNNER, used=1)
    faults.pause_account(db, "shop", braked("dot 554", 1, 2), RUNNER, used=1)
    assert (account(db, "shop").pause_reason, account(db, "shop").brake) == (AUTH.reason, "")


def test_a_resume_forgets_the_brake_and_a_new_password_only_lifts_it(db: peewee.Database) -> None:
    faults.pause_account(db, "shop", braked("dot 554", 1, 2), RUNNER, used=1)
    accounts.set_password(db, replace(account(db, "shop"), secret="new"), ANN)
    found = account(db, "shop")
    assert (found.brake, found.probes, found.pause_reason, found.failed_by_brake) == ("", 0, "", (1, 2))
    accounts.resume_account(db, "shop", ANN)
    assert account(db, "shop").failed_by_brake == ()
    faults.pause_sender(db, "shop@example.com", replace(braked("dot 554", 3), scope=Scope.SENDER), RUNNER, used=2)
    assert accounts.sender(db, "shop@example.com").failed_by_brake == (3,)
    senders.resume_sender(db, "shop@example.com", ANN)
    sender = accounts.sender(db, "shop@example.com")
    assert (sender.brake, sender.brake_messages, sender.probes, sender.pause_reason) == ("", "", 0, "")


def test_a_relay_that_asks_for_longer_is_left_alone_for_longer(db: peewee.Database) -> None:
    for _ in range(4):
        trip_relay(db, "smtp.example.com", 587, "421", RUNNER, at_least=timedelta(minutes=5))
    assert account(db, "shop").breaker_until is None
    until = trip_relay(db, "smtp.example.com", 587, "421", RUNNER, at_least=timedelta(minutes=5))
    assert until == NOW + timedelta(minutes=5)


def test_resuming_an_account_lifts_every_pause_and_tries_the_relay_at_once(db: peewee.Database) -> None:
    pause_account(db, "shop", "moving", None, ANN)
    for second in range(5):
        trip_relay(db, "smtp.example.com", 587, "connect: refused", later(seconds=second))
    accounts.resume_account(db, "shop", ANN)
    found = account(db, "shop")
    assert (found.pause_reason, found.breaker_failures, found.breaker_until) == ("", 0, None)


# ---- the breaker


def test_the_fifth_failure_opens_the_breaker_of_every_account_at_that_relay(db: peewee.Database) -> None:
    twin = replace(SHOP, name="twin", username="", secret=None)
    add_account(db, twin, ANN)
    opened = [trip_relay(db, "smtp.example.com", 587, "connect: refused", later(seconds=n)) for n in range(5)]
    until = NOW + timedelta(seconds=4 + 30)
    assert opened == [None, None, None, None, until]
    for name in ("shop", "twin"):
        assert (account(db, name).breaker_failures, account(db, name).breaker_until) == (5, until)
    assert account(db, "backup").breaker_failures == 0
    assert ("runner 1", "relay trip", "relay=smtp.example.com:587") in journaled(db)


def test_failures_of_connections_that_were_under_way_do_not_count_while_it_is_open(db: peewee.Database) -> None:
    for _ in range(20):
        trip_relay(db, "smtp.example.com", 587, "connect: refused", RUNNER)
    assert account(db, "shop").breaker_failures == 5
    assert trip_relay(db, "smtp.example.com", 587, "again", later(seconds=31)) == NOW + timedelta(seconds=31 + 60)


def test_one_success_closes_the_breaker_and_a_quiet_one_writes_nothing(db: peewee.Database) -> None:
    for _ in range(5):
        trip_relay(db, "smtp.example.com", 587, "connect: refused", RUNNER)
    relay_recovered(db, "smtp.example.com", 587, later(seconds=31))
    found = account(db, "shop")
    assert (found.breaker_failures, found.breaker_until, found.breaker_reason) == (0, None, "")
    lines = journaled(db)
    assert lines[-1] == ("runner 1", "relay recover", "relay=smtp.example.com:587")
    relay_recovered(db, "smtp.example.com", 587, later(seconds=32))
    assert journaled(db) == lines
