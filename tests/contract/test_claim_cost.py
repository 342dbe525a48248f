"""On PostgreSQL a claim touches as many buffers as ever, whatever is dead in its lane, and misses nothing for that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta

import peewee
import pytest

from outbox.core.lifecycle import State
from outbox.core.settlement import Claim, Result
from outbox.store import Lane, Pick, floors
from outbox.store.database import connect
from outbox.store.floors import LAG, WALK_EVERY
from tests.buffers import Counted, counted_store, fill, pinned_snapshot
from tests.clock import FakeClock
from tests.contract.stores import ME, SHOP, sent
from tests.statements import run

PAST = "2026-01-01T00:00:00.000Z"
START = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
BATCH = 100


class Runner:
    """Claims and settles as a runner does."""

    def __init__(self, store: Counted) -> None:
        self.store = store

    @property
    def now(self) -> datetime:
        return self.store.now()

    def lanes(self) -> list[Lane]:
        return self.store.lanes("", 1000)

    def claim(self, count: int = BATCH) -> list[Claim]:
        """Of the lanes that it sees."""
        with self.store.transaction():
            picks = [Pick(each.sender, each.priority, count) for each in self.lanes()]
            return self.store.claim(ME, picks, self.now) if picks else []

    def settle(self, claims: list[Claim]) -> None:
        with self.store.transaction():
            self.store.settle([sent(each) for each in claims], self.now)

    def send(self, count: int) -> None:
        while count > 0:
            claims = self.claim(min(count, BATCH))
            assert claims
            count -= len(claims)
            self.settle(claims)

    def buffers(self) -> dict[str, int]:
        """Of the statements of a round, whose messages are sent then."""
        claims: list[Claim] = []
        with self.store.transaction():
            found = {
                "lanes": self.store.counting(self.lanes),
                "suspects": self.store.counting(lambda: self.store.suspects(0, self.now)),
                "expirable": self.store.counting(lambda: self.store.expirable(self.now)),
                "claim": self.store.counting(
                    lambda: claims.extend(self.store.claim(ME, [Pick(SHOP, 5, BATCH)], self.now))
                ),
            }
        self.settle(claims)
        return found


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def runner(postgres_url: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """It looks with every claim at who writes, and not only when 0.2 s have passed."""
    monkeypatch.setattr(floors, "LOOK_EVERY", timedelta(0))
    with counted_store(postgres_url, ME, clock) as store:
        yield Runner(store)


@pytest.fixture
def database(postgres_url: str) -> Iterator[peewee.Database]:
    with closing(connect(postgres_url)) as database:
        yield database


def add(database: peewee.Database, due_at: str | None = None) -> int:
    sql = (
        "INSERT INTO outbox (sender, recipients, text_body, due_at) VALUES (?, 'ann@example.net', 'x', ?) RETURNING id"
    )
    return int(run(database, sql, SHOP, due_at).fetchone()[0])


def test_a_claim_costs_the_same_after_many_while_an_old_snapshot_is_open(postgres_url: str, runner: Runner) -> None:
    fill(postgres_url, 20_000)
    runner.send(2 * LAG)
    with pinned_snapshot(postgres_url):
        first = runner.buffers()
        runner.send(18_000)
        last = runner.buffers()
    for statement, buffers in last.items():
        assert buffers <= 2 * first[statement] + 20, f"{statement}: {first[statement]} buffers, and now {buffers}"


def test_a_claim_of_a_full_table_goes_by_keys_though_its_plan_is_from_when_it_was_empty(
    postgres_url: str, runner: Runner, database: peewee.Database
) -> None:
    run(database, "VACUUM (ANALYZE) outbox_delivery")
    for _ in range(12):  # after a dozen executions the server keeps a plan for good
        fill(postgres_url, 3)
        runner.settle(runner.claim())
    fill(postgres_url, 10_000)
    runner.send(BATCH)
    with runner.store.transaction():
        claims = runner.store.claim(ME, [Pick(SHOP, 5, 10)], runner.now)
        runner.store.settle([sent(each) for each in claims], runner.now)
        read = run(runner.store.db, "SELECT pg_stat_get_xact_tuples_returned('outbox_delivery_live'::regclass)")
        assert read.fetchone()[0] == 0, "it reads the table from its beginning to its end"


def test_mail_of_a_transaction_that_was_open_for_long_is_claimed_as_soon_as_it_is_committed(
    postgres_url: str, runner: Runner
) -> None:
    fill(postgres_url, 1_000)
    runner.send(1_000)
    with closing(connect(postgres_url)) as slow:
        with slow.atomic():
            number = add(slow)
            fill(postgres_url, 2_000)
            runner.send(2_000)
        assert [each.message_id for each in runner.claim()] == [number]


def test_mail_that_was_committed_between_two_claims_is_claimed_next(
    postgres_url: str, runner: Runner, database: peewee.Database
) -> None:
    for _ in range(5):
        fill(postgres_url, 400)
        runner.send(400)
        number = add(database)
        assert [each.message_id for each in runner.claim()] == [number]


def test_mail_that_was_due_long_ago_is_found_with_the_next_walk(
    postgres_url: str, runner: Runner, clock: FakeClock, database: peewee.Database
) -> None:
    fill(postgres_url, 2_000)
    runner.send(1_000)
    old = add(database, PAST)
    assert old not in {each.message_id for each in runner.claim()}, "it is below the floor"
    clock.advance(timedelta(seconds=WALK_EVERY))
    assert runner.claim(1)[0].message_id == old


def test_in_a_lane_with_little_mail_it_is_found_at_once(
    postgres_url: str, runner: Runner, database: peewee.Database
) -> None:
    fill(postgres_url, LAG - 1)
    runner.send(LAG - 1)
    old = add(database, PAST)
    assert [each.message_id for each in runner.claim()] == [old]


def test_mail_that_is_given_back_is_found_at_once(postgres_url: str, runner: Runner) -> None:
    fill(postgres_url, 2_000)
    runner.send(500)
    untried = runner.claim(1)[0]
    runner.send(500)
    given_back = sent(untried, state=State.QUEUED, result=Result.RELINQUISHED, reply=None, fates=(), dot_at=None)
    with runner.store.transaction():
        runner.store.settle([given_back], runner.now)
    assert runner.claim(1)[0].message_id == untried.message_id


def test_a_claim_that_is_rolled_back_has_moved_no_floor(postgres_url: str, runner: Runner) -> None:
    fill(postgres_url, 2_000)
    runner.send(1_000)
    with suppress(ZeroDivisionError), runner.store.transaction():
        lost = runner.store.claim(ME, [Pick(SHOP, 5, 300)], runner.now)
        runner.store.claim(ME, [Pick(SHOP, 5, 300)], runner.now)
        raise ZeroDivisionError
    assert runner.claim(1)[0].message_id == lost[0].message_id


def test_the_lanes_are_seen_in_their_order_whether_they_have_a_floor_or_not(postgres_url: str, runner: Runner) -> None:
    senders = [f"{letter}@example.com" for letter in "abcdefg"]
    for sender in senders:
        fill(postgres_url, 1_000 if sender in ("b@example.com", "c@example.com", "f@example.com") else 5, sender=sender)
    seen = runner.lanes()
    for _ in range(8):
        claims = runner.claim()
        assert claims
    known = {each.sender for each in runner.lanes()}
    assert [each.sender for each in seen] == senders
    assert known == {"b@example.com", "c@example.com", "f@example.com"}
    for each in senders:
        fill(postgres_url, 1, sender=each)
    assert [each.sender for each in runner.lanes()] == senders
    assert [each.sender for each in runner.store.lanes("", 4)] == senders[:4]
    assert [each.sender for each in runner.store.lanes("b@example.com", 3)] == senders[2:5]


def test_what_expires_is_seen_after_nothing_had(
    postgres_url: str, runner: Runner, clock: FakeClock, database: peewee.Database
) -> None:
    store = runner.store
    assert not store.expirable(START)
    run(database, "UPDATE outbox_delivery SET expires_at = ? WHERE message_id = ?", PAST, add(database))
    assert not store.expirable(START), "it expired before the last look"
    clock.advance(timedelta(seconds=WALK_EVERY))
    runner.lanes()
    assert store.expirable(START)
    run(database, "UPDATE outbox_delivery SET expires_at = ?", (START + timedelta(minutes=1)).isoformat())
    assert not store.expirable(START)
    assert store.expirable(START + timedelta(minutes=1))
