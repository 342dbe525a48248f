"""What `account` and `sender` say of the pauses that runners make."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import pytest

from outbox.clock import Clock
from outbox.core.outcome import Scope
from outbox.core.pause import Pause
from outbox.core.policy import Policy
from outbox.store import faults
from outbox.store.database import connect
from outbox.store.journal import Act
from tests.cli.program import Program
from tests.statements import MAIL, run

SHOP = "shop@example.com"


@pytest.fixture
def registered(program: Program) -> Program:
    program.init().add_account()
    program.run("sender", "add", SHOP, "--account", "shop")
    return program


def pause(program: Program, given: Pause, ago: timedelta = timedelta(0)) -> None:
    """As a runner does it."""
    with closing(connect(program.url)) as db, db.atomic():
        act = Act("runner 1", Clock().now() - ago)
        if given.scope is Scope.ACCOUNT:
            assert faults.pause_account(db, "shop", given, act, used=1)
        else:
            assert faults.pause_sender(db, SHOP, given, act, used=1)


def failed(program: Program, count: int) -> list[int]:
    """Messages that have failed; their ids."""
    with closing(connect(program.url)) as db, db.atomic():
        sql = f"INSERT INTO outbox ({', '.join(MAIL)}) VALUES ({', '.join('?' * len(MAIL))}) RETURNING id"
        ids = [run(db, sql, *MAIL.values()).fetchall()[0][0] for _ in range(count)]
        run(db, "UPDATE outbox_delivery SET state = 'failed', final_at = due_at")
    return ids


def test_a_pause_that_is_over_is_probing_until_somebody_has_shown_that_the_fault_is_gone(registered: Program) -> None:
    pause(registered, Pause(Scope.ACCOUNT, "auth: 535 5.7.8 no", Policy().auth_pauses), timedelta(minutes=15))
    (account,) = registered.json("account", "list")
    assert (account["paused"], account["probing"], account["pauses_in_a_row"]) == (False, True, 1)
    assert "probing, one message at a time: auth: 535 5.7.8 no" in registered.run("account", "list").stdout
    assert "probing, one message at a time: auth: 535" in registered.run("account", "show", "shop").stdout
    assert "account shop is probing" in registered.run("sender", "list").stdout
    registered.run("account", "resume", "shop")
    (account,) = registered.json("account", "list")
    assert (account["probing"], account["pauses_in_a_row"], account["blocked"]) == (False, 0, "")


@pytest.mark.parametrize("scope", [Scope.ACCOUNT, Scope.SENDER])
def test_a_brake_names_the_command_that_sends_again_what_it_has_failed(registered: Program, scope: Scope) -> None:
    noun, name = ("account", "shop") if scope is Scope.ACCOUNT else ("sender", SHOP)
    one, two = failed(registered, 2)
    schedule = Policy().brake_pauses
    pause(registered, Pause(scope, "brake: dot: 554 5.7.1 no", schedule, brake="dot 554 5.7.1", failed=(one, two)))
    (row,) = registered.json(noun, "list")
    assert (row["brake"], row["failed_by_brake"]) == ("dot 554 5.7.1", [one, two])
    listed = registered.run(noun, "list")
    assert "brake: dot: 554 5.7.1 no" in listed.stdout
    assert f"{noun} {name} is braked by 'dot 554 5.7.1'" in listed.stderr
    assert f"outbox retry {one} {two}" in listed.stderr
    if scope is Scope.ACCOUNT:
        shown = registered.run("account", "show", "shop").stdout
        assert "dot 554 5.7.1" in shown
        assert f"outbox retry {one} {two}" in shown

    registered.run("retry", str(one))
    assert registered.json(noun, "list")[0]["failed_by_brake"] == [two], "what was retried is nobody's trouble any more"
    registered.run(noun, "resume", name)
    (row,) = registered.json(noun, "list")
    assert (row["brake"], row["failed_by_brake"], row["paused"]) == ("", [], False)
    assert "braked" not in registered.run(noun, "list").stderr
