"""Who serves what is asked of the clerk, on SQLite: the event loop itself, where there is nothing to wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import pytest

from outbox.clock import Clock
from outbox.core.settlement import Claim, Settlement, relinquish
from outbox.runner.writing import desk, looks
from outbox.runner.writing.courtesy import LONGEST
from outbox.store import Mark, Settled, Store, TransientError, sqlite
from tests.runner.office import ME, Office, office

LOOP, CLERK = "MainThread", "outbox-clerk"


def test_what_concerns_mail_is_served_by_the_event_loop_and_the_rest_by_a_thread(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url) as it:
            it.insert(2)
            assert it.store.threads == [CLERK], "registering the runner"
            one, two = await it.claim(2)
            assert await it.clerk.mark(Mark(one.message_id, one.claim_no)) is not None
            assert await it.clerk.settle(relinquish(one)) is Settled.WRITTEN
            assert it.store.threads == [CLERK, LOOP, LOOP, LOOP]
            await it.clerk.upkeep(lambda store, now: None)
            assert it.store.threads[4:] == [CLERK]
            await it.at_rest()
            assert await it.clerk.settle(relinquish(two)) is Settled.WRITTEN
            assert it.store.threads[5:] == [LOOP]
            assert it.states() == {"queued": 2}

    asyncio.run(scenario())


class SteadyClock(Clock):
    """The real one, with seconds of ours added."""

    __slots__ = ("added",)

    def __init__(self) -> None:
        self.added = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.added


def test_for_somebody_s_lock_the_event_loop_does_not_wait(sqlite_url: str) -> None:
    async def scenario() -> None:
        clock = SteadyClock()
        async with office(sqlite_url, clock=clock) as it:
            it.insert()
            (claimed,) = await it.claim(1)
            clock.added += LONGEST  # nothing is owed to others any more
            it.application.execute("BEGIN IMMEDIATE")
            mark = it.clerk.mark(Mark(claimed.message_id, claimed.claim_no))
            look = it.clerk.look(lambda store: store.sending())  # this needs no lock
            assert await asyncio.wait_for(look, 5) == 1
            assert not mark.done()
            it.application.rollback()
            assert await asyncio.wait_for(mark, 5) is not None

    asyncio.run(scenario())


@contextmanager
def slow(it: Office, clock: SteadyClock) -> Iterator[None]:
    """A database that takes as long as on a disk that turns."""
    settle = it.store.settle

    def settle_slowly(settlements: Sequence[Settlement], now: datetime) -> list[Settled]:
        clock.added += 0.05
        return settle(settlements, now)

    it.store.settle = settle_slowly  # type: ignore[method-assign]
    yield
    it.store.settle = settle  # type: ignore[method-assign]


def test_where_the_disk_is_slow_the_thread_waits_for_it(sqlite_url: str) -> None:
    async def scenario() -> None:
        clock = SteadyClock()
        async with office(sqlite_url, clock=clock) as it:
            it.insert(20)
            await it.noticed()
            clock.added += 3600  # nobody else has written for long
            claims = iter(await it.claim(20))
            with slow(it, clock):
                assert await served_by(it, next(claims)) == LOOP, "who knows?"
                assert await served_by(it, next(claims)) == CLERK
            assert await served_by(it, next(claims)) == CLERK, "it has not been quick for long"
            for each in claims:
                last = await served_by(it, each)
            assert last == LOOP

    asyncio.run(scenario())


async def served_by(it: Office, claim: Claim) -> str:
    await it.at_rest()
    assert await it.clerk.settle(relinquish(claim)) is Settled.WRITTEN
    return it.store.threads[-1]


def test_the_thread_finds_the_culprit_of_a_group(sqlite_url: str) -> None:
    def break_a_rule(store: Store, now: datetime) -> list[Claim]:
        store.db.execute_sql("UPDATE outbox_delivery SET state = 'nonsense'")
        return []

    async def scenario() -> None:
        async with office(sqlite_url) as it:
            it.insert(2)
            asked = [it.clerk.settle(relinquish(each)) for each in await it.claim(2)]
            failed, *written = await asyncio.gather(it.clerk.claim(break_a_rule), *asked, return_exceptions=True)
            assert "outbox_delivery_state" in str(failed)
            assert written == [Settled.WRITTEN] * 2
            assert it.store.threads[-2:] == [CLERK] * 2

    asyncio.run(scenario())


def test_a_look_that_took_long_is_left_to_the_thread(sqlite_url: str) -> None:
    async def scenario() -> None:
        clock = SteadyClock()

        def look(seconds: float, store: Store) -> str:
            clock.added += seconds
            return threading.current_thread().name

        async with office(sqlite_url, clock=clock) as it:
            seen = []
            for seconds in (0.0, 0.05, 0.0, 0.0):
                seen.append(await it.clerk.look(partial(look, seconds)))
                await it.at_rest()
            assert seen == [LOOP, LOOP, CLERK, LOOP]

    asyncio.run(scenario())


def test_a_fault_that_a_look_meets_is_met_by_the_thread(sqlite_url: str) -> None:
    def look(store: Store) -> str:
        name = threading.current_thread().name
        if name == LOOP:
            raise TransientError("it was replaced", reconnect=True)
        return name

    async def scenario() -> None:
        async with office(sqlite_url) as it:
            assert await asyncio.wait_for(it.clerk.look(look), 5) == CLERK

    asyncio.run(scenario())


def test_while_a_large_log_waits_to_be_emptied_the_thread_serves(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with office(sqlite_url) as it:
            it.insert(2)
            one, two = await it.claim(2)
            assert await served_by(it, one) == LOOP
            monkeypatch.setattr(sqlite, "LOG_EMPTIED_AT_ONCE", 1000)
            assert await served_by(it, two) == CLERK

    asyncio.run(scenario())


def test_a_mistake_after_a_commit_ends_the_clerk(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody waits for an answer that never comes: a supervisor has to start the runner anew."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def forget(*_: object) -> None:
        raise LookupError("a mistake")

    async def scenario() -> None:
        async with office(sqlite_url) as it:
            it.insert()
            (claimed,) = await it.claim(1)
            monkeypatch.setattr(desk.Desk, "_conclude", forget)
            it.clerk.settle(relinquish(claimed))
            async with asyncio.timeout(10):
                while it.clerk.alive:  # noqa: ASYNC110 -- a thread has no event of the loop
                    await asyncio.sleep(0.001)
            monkeypatch.undo()

    asyncio.run(scenario())


def test_whoever_asks_in_whatever_order_is_answered(sqlite_url: str) -> None:
    """The event loop and the thread take turns."""

    async def ask(it: Office, which: int) -> object:
        if which % 3 == 0:
            return await it.clerk.read(lambda store: store.sending())
        if which % 7 == 0:
            return await it.clerk.upkeep(lambda store, now: which)
        if which % 2 == 0:
            return await it.clerk.look(lambda store: store.held())
        return await it.clerk.claim(lambda store, now: store.claim(ME, [], now))

    async def scenario() -> None:
        async with office(sqlite_url) as it, asyncio.timeout(30):
            tasks = []
            for which in range(2000):
                tasks.append(asyncio.ensure_future(ask(it, which)))
                for _ in range(which % 5):
                    await asyncio.sleep(0)
            await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_a_commit_right_after_our_own_is_found_by_the_event_loop(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "OFTEN", 3600.0)
    monkeypatch.setattr(looks.Looks, "pause", lambda *_: 3600.0)

    async def scenario() -> None:
        async with office(sqlite_url) as it:
            await it.claim(1)
            it.clerk.expect()  # the log has been written to; by us, perhaps
            it.insert()
            await it.noticed()

    asyncio.run(scenario())
