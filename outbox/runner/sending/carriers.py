"""Carriers: what has been claimed waits for one of its account's, who takes it through to its settlement.

An account has as many carriers as it has places at its relay. Each carries one message after the other and goes when
there are none left, so there is an asyncio task for each connection, and not for each message.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from outbox.core.settlement import Claim

log = logging.getLogger("outbox.delivery")

Ended = Callable[[Claim], None]
"""Called for a claim when its settlement is committed, or when nobody goes on with it."""

Load = tuple[Claim, Ended]


@dataclass(slots=True)
class _Line:
    """An account's: what waits, and who carries."""

    waiting: deque[Load] = field(default_factory=deque)
    carriers: set[asyncio.Task[None]] = field(default_factory=set)
    places: int = 1  # as last asked


class Carriers:
    """`carry` takes a load and returns when its place is free again; `places` says how many an account has now. When
    they become fewer, who carries goes on to the end of its message.
    """

    def __init__(self, carry: Callable[[Claim, Ended], Awaitable[None]], places: Callable[[str], int]) -> None:
        self._carry = carry
        self._places = places
        self._lines: dict[str, _Line] = {}

    def hand(self, account: str, load: Load) -> None:
        """In its turn."""
        line = self._lines.get(account)
        if line is None:
            line = self._lines[account] = _Line()
        line.waiting.append(load)
        if len(line.carriers) < line.places:
            self._fill(account, line)

    def take_back(self) -> list[Load]:
        """What nobody carries yet, and nobody will."""
        loads = [load for line in self._lines.values() for load in line.waiting]
        for line in self._lines.values():
            line.waiting.clear()
        return loads

    async def cut_off(self) -> None:
        """End all carriers, wherever they are; those that do not end in time are left."""
        tasks = [each for line in self._lines.values() for each in line.carriers]
        for each in tasks:
            each.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    def _fill(self, account: str, line: _Line) -> None:
        line.places = self._places(account)
        while line.waiting and len(line.carriers) < line.places:
            task = asyncio.create_task(self._work(account, line, line.waiting.popleft()))
            line.carriers.add(task)
            task.add_done_callback(partial(self._gone, account, line))

    async def _work(self, account: str, line: _Line, load: Load) -> None:
        while True:
            claim, ended = load
            try:
                await self._carry(claim, ended)
            except Exception as error:  # it knows how its messages fail, so this is a mistake of ours
                log.error("id=%d: %s", claim.message_id, error, exc_info=error)
                ended(claim)
            line.places = self._places(account)  # they become more, and fewer
            if not line.waiting or len(line.carriers) > line.places:
                return
            load = line.waiting.popleft()
            if line.waiting and len(line.carriers) < line.places:
                self._fill(account, line)

    def _gone(self, account: str, line: _Line, task: asyncio.Task[None]) -> None:
        line.carriers.discard(task)
        if line.waiting:
            self._fill(account, line)
        elif not line.carriers:
            self._lines.pop(account, None)
