"""The clerk, over a real SQLite file that others lock, fill and write to."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from outbox.clock import Clock
from outbox.core.settlement import relinquish
from outbox.errors import DatabaseError
from outbox.runner.writing import desk
from outbox.runner.writing.clerk import Clerk
from outbox.store import Mark, Settled, Store, open_store
from tests.runner.office import SHOP, office


def test_what_arrives_together_shares_a_transaction(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url) as it:
            it.insert(50)
            claims = await it.claim(50)
            before = len(it.store.threads)
            marks = [it.clerk.mark(Mark(each.message_id, each.claim_no)) for each in claims]
            settlements = [it.clerk.settle(relinquish(each)) for each in claims]
            assert all(await asyncio.gather(*marks))
            assert set(await asyncio.gather(*settlements)) == {Settled.WRITTEN}
            assert len(it.store.threads) - before <= 4
            assert it.states() == {"queued": 50}

    asyncio.run(scenario())


def test_only_the_culprit_of_a_group_fails(sqlite_url: str) -> None:
    def break_a_rule(store: Store, now: datetime) -> None:
        store.db.execute_sql("UPDATE outbox_delivery SET state = 'nonsense'")

    async def scenario() -> None:
        async with office(sqlite_url) as it:
            it.insert(3)
            claims = await it.claim(3)
            futures: list[asyncio.Future[Any]] = [it.clerk.upkeep(break_a_rule)]
            futures += [it.clerk.settle(relinquish(each)) for each in claims]
            failed, *written = await asyncio.gather(*futures, return_exceptions=True)
            assert "outbox_delivery_state" in str(failed)
            assert written == [Settled.WRITTEN] * 3
            assert it.states() == {"queued": 3}

    asyncio.run(scenario())


def test_while_another_holds_the_lock_a_mark_waits_and_then_is_granted(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url) as it:
            it.insert()
            (claimed,) = await it.claim(1)
            it.application.execute("BEGIN IMMEDIATE")
            mark = it.clerk.mark(Mark(claimed.message_id, claimed.claim_no))
            done, _ = await asyncio.wait({mark}, timeout=0.2)
            assert not done
            it.application.rollback()
            assert await asyncio.wait_for(mark, 5) is not None

    asyncio.run(scenario())


def test_a_result_that_cannot_be_written_by_the_end_is_handed_back(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url) as it:
            it.insert()
            (claimed,) = await it.claim(1)
            it.application.execute("BEGIN IMMEDIATE")
            future = it.clerk.settle(relinquish(claimed))
            assert await it.clerk.stop(0.2) == [relinquish(claimed)]
            assert not future.done()
            it.application.rollback()
            assert it.states() == {"sending": 1}

    asyncio.run(scenario())


def test_a_commit_of_somebody_else_is_noticed_and_our_own_is_not(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url) as it:
            it.insert()
            await it.noticed()
            seen = len(it.changes)
            await it.claim(1)
            await it.clerk.read(lambda store: store.sending())
            assert len(it.changes) == seen

    asyncio.run(scenario())


def test_content_waits_for_room_in_the_byte_budget(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, byte_budget=10) as it:
            it.insert(3, "x" * 100)
            first, second, third = [it.clerk.content(each, "main") for each in await it.claim(3)]
            content = await first
            await it.clerk.read(lambda store: store.sending())
            assert not second.done()
            it.clerk.release("main", content.size)
            it.clerk.release("main", (await second).size)
            assert (await third).size >= 100

    asyncio.run(scenario())


def test_one_account_with_large_mail_does_not_keep_another_from_its_first(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, byte_budget=10) as it:
            it.insert(3, "x" * 100)
            one, two, three = await it.claim(3)
            assert (await it.clerk.content(one, "large")).size > 10
            waiting = it.clerk.content(two, "large")
            assert (await it.clerk.content(three, "other")).size > 10
            assert not waiting.done()

    asyncio.run(scenario())


def test_the_room_of_a_reader_who_has_gone_is_given_back(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, byte_budget=10) as it:
            it.insert(2, "x" * 100)
            one, two = await it.claim(2)
            gone = it.clerk.content(one, "main")
            gone.cancel()
            assert (await it.clerk.content(two, "main")).size > 10

    asyncio.run(scenario())


def test_a_result_that_the_database_refuses_is_kept_and_written_when_it_no_longer_does(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "RETRY_REFUSED", 0.05)

    async def scenario() -> None:
        async with office(sqlite_url) as it:
            it.insert()
            (claimed,) = await it.claim(1)
            with it.application:
                it.application.execute(
                    "CREATE TRIGGER no BEFORE UPDATE ON outbox_attempt BEGIN SELECT RAISE(ABORT, 'no'); END"
                )
            future = it.clerk.settle(relinquish(claimed))
            await it.clerk.read(lambda store: store.sending())
            assert not future.done()
            with it.application:
                it.application.execute("DROP TRIGGER no")
            assert await asyncio.wait_for(future, 5) is Settled.WRITTEN

    asyncio.run(scenario())


def test_after_its_end_the_clerk_answers_everybody_with_an_error(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url) as it:
            await it.clerk.stop(5)
            with pytest.raises(DatabaseError, match="ended"):
                await it.clerk.read(lambda store: store.sending())

    asyncio.run(scenario())


def test_a_row_that_cannot_be_read_is_that_rows_trouble(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url) as it:
            with it.application:
                it.application.execute(
                    "INSERT INTO outbox (sender, recipients, text_body) VALUES (?, 'ann@example.net', ?)", (SHOP, "x")
                )
                it.application.execute(
                    "INSERT INTO outbox (sender, recipients, subject, text_body)"
                    " VALUES (?, 'ann@example.net', CAST(x'ff' AS TEXT), 'x')",
                    (SHOP,),
                )
            good, bad = await asyncio.gather(*(it.clerk.content(each, "main") for each in await it.claim(2)))
            assert good.size > 0
            assert isinstance(bad.message, Exception)
            assert "UTF-8" in str(bad.message)

    asyncio.run(scenario())


def test_a_database_that_is_not_there_is_said_at_the_start(tmp_path: Any) -> None:
    async def scenario() -> None:
        store = open_store(f"sqlite:///{tmp_path}/missing/outbox.db", Clock())
        clerk = Clerk(store, Clock(), byte_budget=1, on_change=lambda: None)
        with pytest.raises(DatabaseError, match="no directory"):
            await clerk.start()

    asyncio.run(scenario())
