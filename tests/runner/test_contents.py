"""How much of claimed mail is in memory: small mail in batches, large mail when it fits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from outbox.core.settlement import Claim, relinquish
from outbox.errors import InvalidMessage
from outbox.runner.writing.at_hand import AtHand
from outbox.runner.writing.budget import ByteBudget, under_way
from outbox.runner.writing.request import Claiming
from outbox.store import LARGE, Content, Pick, Store
from tests.runner.office import ME, SHOP, Office, office

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


async def claim_and_read(it: Office, count: int, owner: str = "main") -> list[Claim]:
    due = datetime.now(UTC) + timedelta(seconds=1)

    def verb(store: Store, now: datetime) -> list[Claim]:
        return store.claim(ME, [Pick(SHOP, 5, count)], due)

    return await it.clerk.claim(Claiming(verb, lambda sender: owner))


def test_small_mail_is_read_along_with_its_claim(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url) as it:
            it.insert(3, "small")
            it.insert(1, BIG)
            asked = [it.clerk.content(each, "main") for each in await claim_and_read(it, 4)]
            assert [each.done() for each in asked] == [True, True, True, False]
            assert (await asked[3]).size > LARGE

    asyncio.run(scenario())


def test_reading_along_leaves_half_of_the_budget_to_who_asks(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, byte_budget=1000) as it:
            it.insert(10, "x" * 100)
            claims = await claim_and_read(it, 10)
            assert (await it.clerk.content(claims[-1], "other")).size > 100
            asked = [it.clerk.content(each, "main") for each in claims[:-1]]
            assert 3 <= sum(each.done() for each in asked) <= 5

    asyncio.run(scenario())


def test_what_was_read_along_with_a_claim_that_is_given_back_makes_room(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, byte_budget=200) as it:
            it.insert(2, "x" * 250)
            (back,), (behind,) = await claim_and_read(it, 1), await claim_and_read(it, 1)
            waiting = it.clerk.content(behind, "main")
            await it.clerk.read(lambda store: store.sending())
            assert not waiting.done()
            await it.clerk.settle(relinquish(back))
            assert (await waiting).size > 250

    asyncio.run(scenario())


def test_what_was_read_for_another_account_is_read_again() -> None:
    released: list[tuple[str, int]] = []
    at_hand = AtHand(lambda account, octets: released.append((account, octets)))
    claim, content = Claim(1, 1, SHOP), Content(InvalidMessage("5.6.0", "x"), {}, 100)
    at_hand.put([(claim, "main", content)])
    assert at_hand.take(claim, "another") is None
    assert released == [("main", 100)]
    assert at_hand.take(claim, "main") is None
