"""What the event loop asks of the clerk, gathered: what is handed in together shares a COMMIT.

A COMMIT costs 500 µs whatever is in it. So a request waits until half of the messages under way have asked, and then
for as long as each turn of the event loop brings more: what relays have said meanwhile is heard first. But it waits no
longer than is worth it: some times what a transaction has taken of late. Who is alone does not wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from outbox.runner.writing.request import Kind, Request

SHORTEST, LONGEST = 0.001, 0.01
"""Seconds for which requests are gathered …"""

TRANSACTIONS = 3
"""… within these bounds: so many times what a transaction takes, so that it takes a quarter of the time at most."""


class Gather:
    """Belongs to the event loop. `hand_in` is given what was asked, in order, at the end of a turn of the loop: the
    clerk's thread would take the interpreter from it in the middle.
    """

    def __init__(self, hand_in: Callable[[list[Request]], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._pass_on = hand_in
        self._asked: list[Request] = []
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.under_way = 0
        """Messages that may ask for something."""
        self.lasts = 0.0
        """Seconds that a transaction has taken of late."""

    def ask(self, kind: Kind, payload: Any) -> asyncio.Future[Any]:
        request = Request(kind, payload, self._loop.create_future())
        self._asked.append(request)
        if self._soon is None and len(self._asked) * 2 >= self.under_way:
            self._soon = self._loop.call_soon(self._unless_more, 0)
        elif self._soon is None and self._timer is None:
            wait = min(LONGEST, max(SHORTEST, TRANSACTIONS * self.lasts))
            self._timer = self._loop.call_later(wait, self.hand_in)
        return request.future

    def _unless_more(self, before: int) -> None:
        """Hand it in, unless the last turn of the loop has brought more, and there is more to come."""
        if before < len(self._asked) < self.under_way:
            self._soon = self._loop.call_soon(self._unless_more, len(self._asked))
        else:
            self.hand_in()

    def hand_in(self) -> None:
        """Now."""
        for planned in (self._soon, self._timer):
            if planned is not None:
                planned.cancel()
        self._soon = self._timer = None
        asked, self._asked = self._asked, []
        self._pass_on(asked)
