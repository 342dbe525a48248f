"""Carriers: as many as there are places, while these become more, and fewer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from outbox.core.settlement import Claim
from outbox.runner.sending.carriers import Carriers, Ended


class Yard:
    """Messages that are carried until they are told to go on."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.carried: list[int] = []
        self.ended: list[int] = []
        self.carriers = Carriers(self._carry, lambda account: self.places)
        self._go: dict[int, asyncio.Event] = {}

    async def _carry(self, claim: Claim, ended: Ended) -> None:
        if claim.message_id < 0:
            raise RuntimeError("a mistake of ours")
        self.carried.append(claim.message_id)
        await self._go.setdefault(claim.message_id, asyncio.Event()).wait()
        self.carried.remove(claim.message_id)
        ended(claim)

    def hand(self, *numbers: int, account: str = "main") -> None:
        for number in numbers:
            self.carriers.hand(
                account, (Claim(number, 1, "shop@example.com"), lambda it: self.ended.append(it.message_id))
            )

    async def go(self, *numbers: int) -> None:
        for number in numbers:
            self._go.setdefault(number, asyncio.Event()).set()
        await settled()


async def settled() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def scene(act: Callable[[], Awaitable[None]]) -> None:
    async def play() -> None:
        async with asyncio.timeout(10):
            await act()

    asyncio.run(play())


def test_each_goes_on_with_the_next_in_order() -> None:
    async def act() -> None:
        yard = Yard(2)
        yard.hand(1, 2, 3, 4)
        await settled()
        assert yard.carried == [1, 2]
        await yard.go(2)
        assert yard.carried == [1, 3]
        await yard.go(1)
        assert yard.carried == [3, 4]
        await yard.go(3, 4)
        assert (yard.carried, yard.ended) == ([], [2, 1, 3, 4])
        yard.hand(5)
        await yard.go(5)
        assert yard.ended[-1] == 5, "whoever comes after all have gone is carried, too"

    scene(act)


def test_who_carries_counts_against_fewer_places() -> None:
    async def act() -> None:
        yard = Yard(3)
        yard.hand(*range(1, 8))
        await settled()
        yard.places = 1
        await yard.go(1)
        assert yard.carried == [2, 3]
        await yard.go(2)
        assert yard.carried == [3]
        await yard.go(3)
        assert yard.carried == [4]

    scene(act)


def test_more_places_are_used_when_a_message_ends_or_comes() -> None:
    async def act() -> None:
        yard = Yard(1)
        yard.hand(1, 2, 3, 4)
        await settled()
        yard.places = 3
        await yard.go(1)
        assert yard.carried == [2, 3, 4]

    scene(act)


def test_accounts_do_not_wait_for_each_other() -> None:
    async def act() -> None:
        yard = Yard(1)
        yard.hand(1, 2)
        yard.hand(3, account="other")
        await settled()
        assert yard.carried == [1, 3]

    scene(act)


def test_what_nobody_carries_yet_can_be_taken_back() -> None:
    async def act() -> None:
        yard = Yard(1)
        yard.hand(1, 2, 3)
        await settled()
        assert [claim.message_id for claim, _ in yard.carriers.take_back()] == [2, 3]
        await yard.go(1)
        assert (yard.carried, yard.ended) == ([], [1])

    scene(act)


def test_cut_off_ends_whoever_carries() -> None:
    async def act() -> None:
        yard = Yard(2)
        yard.hand(1, 2)
        await settled()
        await yard.carriers.cut_off()
        assert yard.ended == []
        yard.hand(3)
        await yard.go(3)
        assert yard.ended == [3]

    scene(act)


def test_a_mistake_of_ours_stops_nobody_else() -> None:
    async def act() -> None:
        yard = Yard(1)
        yard.hand(-1, 2)
        await yard.go(2)
        assert yard.ended == [-1, 2]

    scene(act)
