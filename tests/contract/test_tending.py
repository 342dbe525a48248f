"""The listener of a runner on PostgreSQL: it removes what is dead in the live partition, because autovacuum comes too
seldom for that, and ends when it is released.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import peewee
import pytest

from outbox.store.database import connect
from outbox.store.listener import Listener, advisory_key
from tests.buffers import fill
from tests.contract.stores import ME, OTHER
from tests.running import eventually
from tests.statements import one, run

VACUUMS = "SELECT vacuum_count FROM pg_stat_all_tables WHERE relname = 'outbox_delivery_live'"


@pytest.fixture
def database(postgres_url: str) -> Iterator[peewee.Database]:
    with closing(connect(postgres_url)) as database:
        yield database


def test_a_runner_removes_what_is_dead_in_the_live_partition(postgres_url: str, database: peewee.Database) -> None:
    fill(postgres_url, 20_000)
    run(database, "UPDATE outbox_delivery SET failures = 1")
    run(database, "SELECT pg_stat_force_next_flush()")
    size = one(database, "SELECT pg_relation_size('outbox_delivery_live')")
    heard: list[None] = []
    listener = Listener(postgres_url, lambda: heard.append(None), lambda: pytest.fail("its connection was lost"))
    listener.take(ME)
    eventually(lambda: one(database, VACUUMS) == 1, "it has vacuumed")
    run(database, "UPDATE outbox_delivery SET failures = 2")
    assert one(database, "SELECT pg_relation_size('outbox_delivery_live')") < 1.25 * size, "the room is used again"
    run(database, "SELECT pg_notify('outbox', '')")
    eventually(lambda: heard, "it still listens")
    listener.release()


def test_who_may_not_vacuum_only_listens(postgres_url: str, database: peewee.Database) -> None:
    fill(postgres_url, 20_000)
    run(database, "UPDATE outbox_delivery SET failures = 1")
    run(database, "SELECT pg_stat_force_next_flush()")
    role = f"reader_{one(database, 'SELECT current_database()')}"
    run(database, f"CREATE ROLE {role} LOGIN")
    heard: list[None] = []
    url = postgres_url.replace("postgres:@", f"{role}:@").replace("//postgres@", f"//{role}@")
    if url == postgres_url:
        pytest.skip("this server has its own way to log in")
    listener = Listener(url, lambda: heard.append(None), lambda: pytest.fail("its connection was lost"))
    try:
        listener.take(ME)
        run(database, "SELECT pg_notify('outbox', '')")
        eventually(lambda: heard, "it listens")
        run(database, "SELECT pg_notify('outbox', '')")
        eventually(lambda: len(heard) == 2, "it still listens, and has looked")
        assert one(database, VACUUMS) == 0
    finally:
        listener.release()
        run(database, f"DROP ROLE {role}")


def test_released_it_lets_go_at_once_though_nothing_comes(postgres_url: str, database: peewee.Database) -> None:
    listener = Listener(postgres_url, lambda: None, lambda: pytest.fail("its connection was lost"))
    for runner in (ME, OTHER):
        listener.take(runner)
        listener.release()
        assert not [each for each in threading.enumerate() if each.name == "outbox-listener"]
        key = advisory_key(runner)
        eventually(partial(one, database, "SELECT pg_try_advisory_xact_lock(?)", key), "its lock is free")
