"""PostgreSQL: runners that meet faults at the same time do not wait for each other in a circle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import peewee
import pytest

from outbox.clock import Clock
from outbox.core.account import Account, Tls
from outbox.core.outcome import Scope
from outbox.core.pause import Subject
from outbox.core.settlement import Claim, Result, Settlement
from outbox.store import Store, TransientError, accounts, open_store, probes
from outbox.store.database import connect
from tests.contract.registered import ANN, AUTH
from tests.contract.stores import NOW, deferred
from tests.running import eventually

ONE, TWO = "one", "two"


@pytest.fixture
def stores(postgres_url: str) -> Iterator[tuple[Store, Store]]:
    """Of two runners; there are two accounts at the same relay."""
    with closing(connect(postgres_url)) as db, db.atomic():
        for name in (ONE, TWO):
            accounts.add_account(db, Account(name, "127.0.0.1", 25, Tls.NONE), ANN)
    pair = open_store(postgres_url, Clock()), open_store(postgres_url, Clock())
    for each in pair:
        each.open()
    yield pair
    for each in pair:
        each.close()


def pausing(account: str) -> Settlement:
    each = deferred(Claim(1, 1, "shop@example.com"))
    return replace(each, result=Result.PAUSED, pause=AUTH, account=account, credential_version=1)


def waiting(db: peewee.Database) -> bool:
    """Whether anybody in this database waits for a lock."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(db.execute_sql(sql).fetchone()[0])


def test_a_settlement_locks_all_it_writes_before_it_writes_any(stores: tuple[Store, Store], postgres_url: str) -> None:
    first, _ = stores
    failed: list[TransientError] = []

    def other_way_round() -> None:
        with closing(open_store(postgres_url, Clock())) as second:  # a connection belongs to its thread
            second.open()
            try:
                with second.transaction():
                    second.settle([pausing(TWO), pausing(ONE)], NOW)
            except TransientError as error:
                failed.append(error)

    other = threading.Thread(target=other_way_round)
    with closing(connect(postgres_url)) as db:
        with first.transaction():
            accounts.pause_account(first.db, ONE, "moving", None, ANN)
            other.start()
            eventually(lambda: waiting(db), "the other waits")
            accounts.pause_account(first.db, TWO, "moving", None, ANN)
        other.join(20)
        assert failed == []
        assert [accounts.account(db, name).pause_reason for name in (ONE, TWO)] == ["operator: moving"] * 2


def test_nobody_waits_for_what_somebody_is_writing_in_order_to_probe_it(stores: tuple[Store, Store]) -> None:
    first, second = stores
    subject = Subject(Scope.ACCOUNT, ONE)
    with first.transaction():
        first.settle([pausing(ONE)], NOW)
    until = accounts.account(first.db, ONE).paused_until
    assert until is not None
    with first.transaction():
        accounts.starttls_seen(first.db, ONE, NOW)
        with second.transaction():
            second.db.execute_sql("SET LOCAL lock_timeout = '5s'")
            assert probes.take(second.db, (subject,), until) is None
    with second.transaction():
        assert probes.take(second.db, (subject,), until) is not None
