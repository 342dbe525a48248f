"""What is asked of the clerk is gathered, and nobody waits who is alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from outbox.runner.writing.gather import LONGEST, Gather
from outbox.runner.writing.request import Kind, Request


class Hands:
    """Sees what is handed in."""

    def __init__(self, under_way: int) -> None:
        self.handed: list[list[object]] = []
        self.came = asyncio.Event()
        self.gather = Gather(self._take)
        self.gather.under_way = under_way

    def _take(self, asked: list[Request]) -> None:
        self.handed.append([each.payload for each in asked])
        self.came.set()

    def ask(self, *payloads: object) -> None:
        for each in payloads:
            self.gather.ask(Kind.MARK, each)


def scene(act: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(act(), 10))


def test_who_is_alone_does_not_wait() -> None:
    async def act() -> None:
        hands = Hands(under_way=1)
        hands.ask("mark")
        assert hands.handed == [], "not in the middle of a turn of the loop"
        await asyncio.sleep(0)
        assert hands.handed == [["mark"]]

    scene(act)


def test_half_of_those_under_way_are_enough() -> None:
    async def act() -> None:
        hands = Hands(under_way=6)
        hands.ask(1, 2)
        await asyncio.sleep(0)
        assert hands.handed == []
        hands.ask(3, 4)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert hands.handed == [[1, 2, 3, 4]]

    scene(act)


def test_as_long_as_more_comes_it_is_waited_for() -> None:
    async def act() -> None:
        hands = Hands(under_way=7)
        hands.ask(1, 2, 3, 4)
        for more in (5, 6):
            await asyncio.sleep(0)
            assert hands.handed == []
            hands.ask(more)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert hands.handed == [[1, 2, 3, 4, 5, 6]]

    scene(act)


def test_when_all_have_asked_nobody_else_is_waited_for() -> None:
    async def act() -> None:
        hands = Hands(under_way=3)
        hands.ask(1, 2, 3)
        await asyncio.sleep(0)
        assert hands.handed == [[1, 2, 3]]

    scene(act)


def test_a_few_wait_for_a_little_while_only() -> None:
    async def act() -> None:
        hands = Hands(under_way=100)
        hands.gather.lasts = 3600.0  # however long a transaction takes
        began = asyncio.get_running_loop().time()
        hands.ask(1)
        await hands.came.wait()
        assert asyncio.get_running_loop().time() - began >= LONGEST - 0.001
        assert hands.handed == [[1]]

    scene(act)


def test_what_is_left_can_be_handed_in_at_once() -> None:
    async def act() -> None:
        hands = Hands(under_way=100)
        hands.ask(1)
        hands.gather.hand_in()
        assert hands.handed == [[1]]
        await asyncio.sleep(0)
        hands.ask(2)
        hands.gather.under_way = 0
        hands.ask(3)
        await asyncio.sleep(0)
        assert hands.handed == [[1], [2, 3]]

    scene(act)
