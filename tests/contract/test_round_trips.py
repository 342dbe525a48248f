"""How often a mail alone goes to a PostgreSQL server and back, and that what is one statement is a transaction, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from outbox.store import Mark, Pick, TransientError, runners
from outbox.store.postgres import CLOCK_KNOWN, PostgresStore
from tests.clock import FakeClock
from tests.contract.stores import ANN, LATER, ME, NOW, SHOP, add, register, sent
from tests.statements import insert, one, run


class Watched(PostgresStore):
    """Keeps what it says to the server."""

    said: list[str]

    def _cursor(self) -> Any:
        return _Watching(super()._cursor(), self.said)


class _Watching:
    def __init__(self, cursor: Any, said: list[str]) -> None:
        self._of = cursor
        self._said = said

    def execute(self, sql: str, *arguments: Any, **named: Any) -> Any:
        self._said.append(sql.split()[0].rstrip(";"))
        return self._of.execute(sql, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(postgres_url: str, clock: FakeClock) -> Iterator[Watched]:
    store = Watched(postgres_url, clock)
    store.said = []
    store.open()
    register(store, ME)
    yield store
    store.close()


@contextmanager
def saying(store: Watched) -> Iterator[list[str]]:
    store.said.clear()
    yield store.said


def test_a_mail_alone_goes_four_times_to_the_server_until_its_dot(store: Watched) -> None:
    add(store.db)
    with store.single():  # the first claim also looks who writes
        store.claim(ME, [Pick(SHOP, 5, 10)], NOW)
    (message_id,) = add(store.db)

    with saying(store) as said:
        with store.reading():
            lanes, suspects = store.look("", 100, 0, NOW)
        with store.single():
            claims = store.claim(ME, [Pick(lanes[0].sender, 5, 10)], NOW)
        with store.reading():
            contents = list(store.contents(claims))
        with store.single():
            marked = store.mark([Mark(claims[0].message_id, claims[0].claim_no)], NOW)
    assert (len(said), suspects, marked) == (4, [], [True]), said
    assert [claim.message_id for claim, _ in contents] == [message_id]


def test_one_statement_is_a_transaction(store: Watched, postgres_url: str) -> None:
    add(store.db)
    with store.single():
        (claim,) = store.claim(ME, [Pick(SHOP, 5, 10)], NOW)
    with store.single():
        assert store.mark([Mark(claim.message_id, claim.claim_no)], NOW) == [True]
    with psycopg.connect(postgres_url) as other:
        found = other.execute("SELECT state, dot_at IS NOT NULL FROM outbox_delivery").fetchone()
        assert found == ("sending", True)
        assert other.execute("SELECT count(*) FROM outbox_attempt WHERE ended_at IS NULL").fetchone() == (1,)


def test_a_mark_with_fates_is_written_with_them_or_not_at_all(store: Watched) -> None:
    add(store.db)
    with store.single():
        (claim,) = store.claim(ME, [Pick(SHOP, 5, 10)], NOW)
    mark = Mark(claim.message_id, claim.claim_no, 1, sent(claim).fates)
    run(store.db, "ALTER TABLE outbox_recipient ADD CONSTRAINT nobody CHECK (false)")

    with pytest.raises(Exception, match="nobody"), store.single():
        store.mark([mark], NOW)
    assert one(store.db, "SELECT count(*) FROM outbox_delivery WHERE dot_at IS NOT NULL") == 0

    run(store.db, "ALTER TABLE outbox_recipient DROP CONSTRAINT nobody")
    with store.single():
        assert store.mark([mark], NOW) == [True]
    assert one(store.db, "SELECT address FROM outbox_recipient") == ANN.address
    assert one(store.db, "SELECT count(*) FROM outbox_delivery WHERE dot_at IS NOT NULL") == 1


def test_claims_of_two_lanes_of_a_sender_are_one_transaction(store: Watched) -> None:
    add(store.db)
    add(store.db, priority=1)
    picks = [Pick(SHOP, 1, 5), Pick(SHOP, 5, 5)]
    with suppress(ZeroDivisionError), store.single():
        assert len(store.claim(ME, picks, NOW)) == 2
        raise ZeroDivisionError
    assert one(store.db, "SELECT count(*) FROM outbox_delivery WHERE state = 'sending'") == 0

    with store.single():
        assert len(store.claim(ME, picks, NOW)) == 2
    assert one(store.db, "SELECT count(*) FROM outbox_delivery WHERE state = 'sending'") == 2


def test_what_only_its_commit_refuses_is_told(store: Watched) -> None:
    """The server has answered the statement by then."""
    run(store.db, "CREATE TABLE never (id bigint PRIMARY KEY)")
    run(
        store.db,
        "ALTER TABLE outbox_attempt ADD CONSTRAINT never FOREIGN KEY (message_id) REFERENCES never"
        " DEFERRABLE INITIALLY DEFERRED",
    )
    add(store.db)
    with pytest.raises(Exception, match="never"), store.single():
        store.claim(ME, [Pick(SHOP, 5, 10)], NOW)
    assert one(store.db, "SELECT state FROM outbox_delivery") == "queued"


def test_a_broken_connection_passes(store: Watched) -> None:
    add(store.db)
    with psycopg.connect(store.url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (store.db.connection().info.backend_pid,))
    with pytest.raises(TransientError) as caught, store.single():
        store.claim(ME, [Pick(SHOP, 5, 10)], NOW)
    assert caught.value.reconnect


def test_the_servers_clock_is_counted_on_for_a_while(store: Watched, clock: FakeClock) -> None:
    with store.transaction():
        then = store.now()
    clock.advance(timedelta(seconds=CLOCK_KNOWN - 1))
    with saying(store) as said, store.single():
        assert (store.now() - then).total_seconds() == pytest.approx(CLOCK_KNOWN - 1)
    assert said == []

    clock.advance(timedelta(seconds=2))
    with saying(store) as said, store.single():
        assert (store.now() - then).total_seconds() < CLOCK_KNOWN - 1, "the server's own went on as ever"
    assert said == ["BEGIN"], "the server is asked"


def test_suspects_are_asked_for_where_there_are_some(store: Watched) -> None:
    message_id = insert(store.db)
    insert(store.db, sender="other@example.com")
    run(store.db, "UPDATE outbox_delivery SET crashes = 1 WHERE message_id = ?", message_id)

    lanes, suspects = store.look("", 100, 0, LATER)
    assert [each.sender for each in lanes] == ["other@example.com", SHOP]
    assert [each.message_id for each in suspects] == [message_id]
    assert store.look("", 100, message_id, LATER)[1] == [], "beyond it there are none"
    assert [each.message_id for each in store.look("", 1, 0, LATER)[1]] == [message_id], "however many lanes are seen"


def test_where_nobody_else_lives_nobody_is_asked_for(store: Watched) -> None:
    with saying(store) as said:
        assert store.absent([]) == []
    assert said == []
    assert runners.leases(store).keys() == {ME}
