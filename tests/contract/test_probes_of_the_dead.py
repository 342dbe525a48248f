"""A runner that dies over a probe gives it back by its death, and not when the probe's time is over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from outbox.clock import Clock
from outbox.core.account import Account, Sender, Tls
from outbox.core.outcome import Scope
from outbox.core.pause import Subject
from outbox.store import Pick, Store, accounts, probes, runners, senders
from outbox.store.journal import Act
from outbox.store.tables import Account as AccountRow
from tests.contract.stores import ME, NOW, SHOP, add, write
from tests.contract.stores import second as second
from tests.contract.stores import store as store

MAIN = Subject(Scope.ACCOUNT, "main")


def half_open(store: Store) -> None:
    act = Act("test", Clock().now())
    accounts.add_account(store.db, Account("main", "smtp.example.com", 587, Tls.STARTTLS), act)
    senders.add_sender(store.db, Sender(SHOP, "main"), act)
    row = AccountRow.update(pause_reason="auth: 535", paused_until=NOW - timedelta(hours=2), probes=1)
    row.execute(store.db)


def take(store: Store, runner: str) -> bool:
    """As a runner does: the probe and its message in one transaction."""
    add(store.db)
    moment = NOW.replace(microsecond=123_456)

    def both() -> bool:
        probe = probes.take(store.db, (MAIN,), moment)
        return probe is not None and bool(store.claim(runner, [Pick(SHOP, 5, 1)], moment))

    return write(store, both)


@pytest.mark.parametrize("died", [True, False])
def test_the_probe_of_a_dead_runner_is_free_when_its_mail_is_taken_back(
    store: Store, second: Store, died: bool
) -> None:
    half_open(store)
    assert take(store, ME)
    if died:
        write(second, lambda: runners.bury(second, [ME], NOW))
    write(second, lambda: second.reclaim(3, NOW))
    assert (accounts.account(store.db, "main").probe_until is None) is died


def test_the_probe_of_somebody_else_stays(store: Store, second: Store) -> None:
    half_open(store)
    add(store.db)
    assert write(store, lambda: store.claim(ME, [Pick(SHOP, 5, 1)], NOW))
    probe = write(second, lambda: probes.take(second.db, (MAIN,), NOW + timedelta(milliseconds=1)))
    assert probe is not None
    write(second, lambda: runners.bury(second, [ME], NOW))
    assert len(write(second, lambda: second.reclaim(3, NOW))) == 1
    assert accounts.account(store.db, "main").probe_until == probe.until
