"""How much of claimed mail is in memory: small mail in batches, large mail when it fits."""

from __future__ import annotations

import asyncio

from outbox.runner.budget import ByteBudget, under_way
from outbox.store import LARGE
from tests.runner.test_clerk import office

BIG = "x" * LARGE


def test_what_a_message_takes_under_way_is_itself_and_its_base64() -> None:
    assert under_way(57_000) == 57_000 + 78_000


def test_a_budget_admits_what_fits_and_one_of_whoever_holds_nothing() -> None:
    budget = ByteBudget(100)
    assert budget.admits("one", 1000)
    budget.take("one", 60)
    assert budget.admits("one", 40)
    assert not budget.admits("one", 41)
    assert budget.admits("other", 1000)
    budget.give("one", 60)
    assert budget.admits("one", 1000)


def test_a_large_message_waits_until_it_fits_and_what_its_account_asked_for_after_it_waits_behind_it(
    sqlite_url: str,
) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, byte_budget=under_way(LARGE) + LARGE) as it:
            it.insert(2, BIG)
            it.insert(1, "small")
            it.insert(1, "other")
            one, two, small, other = await it.claim(4)
            first = await it.clerk.content(one, "main")
            assert first.size >= under_way(LARGE)
            large, behind = it.clerk.content(two, "main"), it.clerk.content(small, "main")
            assert (await it.clerk.content(other, "other")).size < LARGE
            await it.clerk.read(lambda store: store.sending())
            assert not large.done()
            assert not behind.done()
            it.clerk.lighten("main", first.size - LARGE // 2)
            assert (await large).size >= under_way(LARGE)
            assert (await behind).size < LARGE

    asyncio.run(scenario())


def test_a_message_larger_than_the_budget_goes_alone(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, byte_budget=LARGE) as it:
            it.insert(2, BIG)
            one, two = [it.clerk.content(each, "main") for each in await it.claim(2)]
            size = (await one).size
            assert size > LARGE
            await it.clerk.read(lambda store: store.sending())
            assert not two.done()
            it.clerk.release("main", size)
            assert (await two).size == size

    asyncio.run(scenario())


def test_a_text_with_one_wide_character_counts_as_what_it_takes(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url) as it:
            it.insert(1, BIG + "\U0001f600")
            (claimed,) = await it.claim(1)
            assert (await it.clerk.content(claimed, "main")).size > 4 * LARGE

    asyncio.run(scenario())
