"""Probes: of what is half-open one message at a time is tried, over all runners, on both databases."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta

import peewee
import pytest

from outbox.core.account import Sender
from outbox.core.outcome import Scope
from outbox.core.pause import PROBE_TIME, Pause, Probe, Probed, Subject
from outbox.core.policy import Policy
from outbox.store import accounts, faults, probes
from outbox.store.accounts import account, add_account, pause_account, trip_relay
from outbox.store.database import connect
from outbox.store.senders import add_sender
from tests.contract.registered import ANN, AUTH, NOT_OURS, NOW, RUNNER, SHOP, journaled, later
from tests.contract.registered import db as db

SHOP_ACCOUNT = Subject(Scope.ACCOUNT, "shop")
TWIN_ACCOUNT = Subject(Scope.ACCOUNT, "twin")
RELAY = Subject(Scope.RELAY, "smtp.example.com", 587)
SENDER = Subject(Scope.SENDER, "shop@example.com")
OVER = NOW + timedelta(minutes=15)
"""The first pause for a login is over."""


def probe_until(db: peewee.Database, name: str = "shop") -> datetime | None:
    return account(db, name).probe_until


@pytest.fixture
def half_open(db: peewee.Database) -> peewee.Database:
    """The account's pause is over at OVER."""
    faults.pause_account(db, "shop", AUTH, RUNNER, used=1)
    return db


def test_one_takes_the_probe_and_nobody_else_until_it_is_let_go_of(half_open: peewee.Database) -> None:
    probe = probes.take(half_open, (SHOP_ACCOUNT,), OVER)
    assert probe == Probe((SHOP_ACCOUNT,), OVER + PROBE_TIME)
    assert probe_until(half_open) == OVER + PROBE_TIME
    assert probes.take(half_open, (SHOP_ACCOUNT,), OVER + timedelta(seconds=1)) is None
    probes.release(half_open, probe)
    assert probes.take(half_open, (SHOP_ACCOUNT,), OVER + timedelta(seconds=2)) is not None


def test_a_dead_prober_is_overtaken_and_lets_go_of_nothing_when_it_comes_back(half_open: peewee.Database) -> None:
    first = probes.take(half_open, (SHOP_ACCOUNT,), OVER)
    assert first is not None
    second = probes.take(half_open, (SHOP_ACCOUNT,), first.until)
    assert second is not None
    probes.release(half_open, first)
    assert probe_until(half_open) == second.until


@pytest.mark.parametrize("early", [timedelta(0), timedelta(minutes=15) - timedelta(milliseconds=1)])
def test_what_is_still_paused_cannot_be_probed(half_open: peewee.Database, early: timedelta) -> None:
    assert probes.take(half_open, (SHOP_ACCOUNT,), NOW + early) is None
    assert probe_until(half_open) is None


def test_neither_what_a_person_paused_nor_what_works_can_be_probed(db: peewee.Database) -> None:
    assert probes.take(db, (SHOP_ACCOUNT,), NOW) is None
    pause_account(db, "shop", "moving", NOW, ANN)
    assert probes.take(db, (SHOP_ACCOUNT,), OVER) is None
    assert probes.take(db, (RELAY,), OVER) is None
    assert probes.take(db, (SENDER,), OVER) is None
    assert probe_until(db) is None


def test_a_sender_is_probed_by_itself(db: peewee.Database) -> None:
    faults.pause_sender(db, "shop@example.com", NOT_OURS, RUNNER, used=1)
    moment = NOW + timedelta(hours=1)
    assert probes.take(db, (SENDER,), moment) is not None
    assert probes.take(db, (SENDER,), moment) is None
    assert probe_until(db) is None


def test_all_is_taken_or_nothing(half_open: peewee.Database) -> None:
    faults.pause_sender(half_open, "shop@example.com", NOT_OURS, RUNNER, used=1)
    moment = NOW + timedelta(hours=1)
    assert probes.take(half_open, (SENDER,), moment) is not None
    assert probes.take(half_open, (SHOP_ACCOUNT, SENDER), moment) is None
    assert probe_until(half_open) is None


def tripped(db: peewee.Database) -> datetime:
    """The relay rests; until when."""
    add_account(db, replace(SHOP, name="twin"), ANN)
    for second in range(5):
        until = trip_relay(db, "smtp.example.com", 587, "connect: refused", later(seconds=second))
    assert until is not None
    return until


def test_a_relay_has_one_probe_for_all_of_its_accounts(db: peewee.Database) -> None:
    until = tripped(db)
    assert probes.take(db, (RELAY,), until - timedelta(milliseconds=1)) is None
    probe = probes.take(db, (RELAY,), until)
    assert probe is not None
    assert probe_until(db, "twin") == probe_until(db, "shop") == probe.until
    assert probes.take(db, (RELAY,), until) is None
    probes.release(db, probe)
    assert probe_until(db, "twin") is None


def test_a_relay_and_an_account_of_it_are_one_probe(db: peewee.Database) -> None:
    faults.pause_account(db, "shop", AUTH, RUNNER, used=1)
    tripped(db)
    probe = probes.take(db, (SHOP_ACCOUNT, RELAY), OVER)
    assert probe is not None
    assert probes.take(db, (RELAY,), OVER) is None
    probes.finish(db, Probed(probe, (RELAY,)), later(minutes=15))
    assert probe_until(db) is None
    assert probes.take(db, (SHOP_ACCOUNT,), OVER) is not None, "the account has shown nothing yet"


def test_the_probe_of_one_account_keeps_others_from_the_relay(db: peewee.Database) -> None:
    until = tripped(db)
    for name in ("shop", "twin"):
        faults.pause_account(db, name, AUTH, RUNNER, used=1)
    moment = max(until, OVER)
    assert probes.take(db, (RELAY, TWIN_ACCOUNT), moment) is not None
    assert probes.take(db, (RELAY, SHOP_ACCOUNT), moment) is None
    assert probes.take(db, (SHOP_ACCOUNT,), moment) is None


def test_an_account_that_was_added_meanwhile_does_not_keep_the_relay_from_being_probed(db: peewee.Database) -> None:
    until = tripped(db)
    add_account(db, replace(SHOP, name="new"), ANN)
    assert probes.take(db, (RELAY,), until) is not None


def test_what_is_shown_to_work_has_no_pause_any_more_and_the_journal_says_so(half_open: peewee.Database) -> None:
    probe = probes.take(half_open, (SHOP_ACCOUNT,), OVER)
    assert probe is not None
    probes.finish(half_open, Probed(probe, (SHOP_ACCOUNT,)), later(minutes=15, seconds=1))
    found = account(half_open, "shop")
    assert (found.pause_reason, found.paused_until, found.probes, found.probe_until) == ("", None, 0, None)
    assert journaled(half_open)[-1] == ("runner 1", "account recover", "account=shop")


def test_a_relay_that_answers_has_no_breaker_any_more(db: peewee.Database) -> None:
    until = tripped(db)
    probe = probes.take(db, (RELAY,), until)
    assert probe is not None
    probes.finish(db, Probed(probe, (RELAY,)), later(minutes=15))
    for name in ("shop", "twin"):
        found = account(db, name)
        assert (found.breaker_failures, found.breaker_until, found.probe_until) == (0, None, None)
    assert journaled(db)[-1] == ("runner 1", "relay recover", "relay=smtp.example.com:587")


def test_a_sender_that_works_again_keeps_the_list_of_what_its_brake_has_failed(db: peewee.Database) -> None:
    brake = Pause(Scope.SENDER, "brake: 554", Policy().brake_pauses, brake="dot 554", failed=(3, 4))
    faults.pause_sender(db, "shop@example.com", brake, RUNNER, used=1)
    probe = probes.take(db, (SENDER,), NOW + timedelta(minutes=5))
    assert probe is not None
    probes.finish(db, Probed(probe, (SENDER,)), later(minutes=5))
    found = accounts.sender(db, "shop@example.com")
    assert (found.brake, found.pause_reason, found.failed_by_brake) == ("", "", (3, 4))
    assert journaled(db)[-1] == ("runner 1", "sender recover", "sender=shop@example.com")


def test_a_probe_that_tells_nothing_leaves_everything_to_the_next(half_open: peewee.Database) -> None:
    probe = probes.take(half_open, (SHOP_ACCOUNT,), OVER)
    assert probe is not None
    lines = journaled(half_open)
    probes.finish(half_open, Probed(probe), later(minutes=15, seconds=1))
    found = account(half_open, "shop")
    assert (found.pause_reason, found.probes, found.probe_until) == (AUTH.reason, 1, None)
    assert journaled(half_open) == lines


def test_a_late_success_does_not_lift_a_pause_that_began_meanwhile(half_open: peewee.Database) -> None:
    probe = probes.take(half_open, (SHOP_ACCOUNT,), OVER)
    assert probe is not None
    faults.pause_account(half_open, "shop", AUTH, later(minutes=16), used=1)
    probes.finish(half_open, Probed(probe, (SHOP_ACCOUNT,)), later(minutes=17))
    assert account(half_open, "shop").is_paused(NOW + timedelta(minutes=17))
    assert account(half_open, "shop").probes == 2


def test_of_many_runners_at_the_same_moment_one_gets_the_probe(half_open: peewee.Database, database_url: str) -> None:
    add_sender(half_open, Sender("b@example.com", "shop"), ANN)
    ready, taken = threading.Barrier(8), []

    def runner() -> None:
        with closing(connect(database_url)) as own:
            ready.wait(10)
            for attempt in range(50):
                try:
                    with own.atomic("IMMEDIATE") if isinstance(own, peewee.SqliteDatabase) else own.atomic():
                        taken.append(probes.take(own, (SHOP_ACCOUNT,), OVER))
                except peewee.OperationalError:
                    if attempt == 49:
                        raise
                else:
                    return

    runners = [threading.Thread(target=runner) for _ in range(8)]
    for each in runners:
        each.start()
    for each in runners:
        each.join(20)
    assert len(taken) == 8
    assert sum(each is not None for each in taken) == 1
