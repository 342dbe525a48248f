"""Places that become more, and fewer, while they are in use."""

from __future__ import annotations

import asyncio

from outbox.runner.places import Places


class Guest:
    """Is there until it is told to go."""

    def __init__(self, places: Places) -> None:
        self.inside = False
        self._go = asyncio.Event()
        self.visit = asyncio.create_task(self._stay(places))

    async def _stay(self, places: Places) -> None:
        async with places:
            self.inside = True
            await self._go.wait()
        self.inside = False

    def go(self) -> None:
        self._go.set()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def inside(guests: list[Guest]) -> list[int]:
    return [number for number, each in enumerate(guests) if each.inside]


def test_those_who_are_inside_count_against_a_smaller_limit() -> None:
    async def scenario() -> None:
        places = Places().limit(3)
        guests = [Guest(places) for _ in range(6)]
        await settled()
        assert inside(guests) == [0, 1, 2]
        places.limit(2)
        guests[0].go()
        await settled()
        assert inside(guests) == [1, 2]
        guests[1].go()
        await settled()
        assert inside(guests) == [2, 3]
        places.limit(4)
        await settled()
        assert inside(guests) == [2, 3, 4, 5]
        for each in guests:
            each.go()
        await asyncio.gather(*(each.visit for each in guests))

    asyncio.run(scenario())


def test_who_gives_up_takes_no_place() -> None:
    async def scenario() -> None:
        places = Places().limit(1)
        guests = [Guest(places) for _ in range(4)]
        await settled()
        guests[1].visit.cancel()  # while it waits
        guests[0].go()
        guests[2].visit.cancel()  # perhaps just as it may come in
        await settled()
        assert inside(guests) == [3]
        guests[3].go()
        await asyncio.gather(*(each.visit for each in guests), return_exceptions=True)
        async with asyncio.timeout(5), places:
            pass

    asyncio.run(scenario())


def test_who_is_let_in_and_cut_off_at_the_same_moment_leaves_the_place_to_the_next() -> None:
    async def scenario() -> None:
        places = Places().limit(1)
        guests = [Guest(places) for _ in range(3)]
        await settled()
        places.limit(2)  # the second is let in, and has not noticed yet
        guests[1].visit.cancel()
        await settled()
        assert inside(guests) == [0, 2]
        for each in guests:
            each.go()
        await asyncio.gather(*(each.visit for each in guests), return_exceptions=True)

    asyncio.run(scenario())
