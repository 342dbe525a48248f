"""Places among an account's connections: so many of its messages are at its relay at the same time, the others wait."""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """A semaphore whose size may change while it is in use: what is in use counts against the new size, too."""

    def __init__(self) -> None:
        self._most = 0
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def limit(self, most: int) -> Places:
        """So many there are from now on."""
        if most != self._most:
            self._most = most
            self._admit()
        return self

    async def __aenter__(self) -> None:
        if self._taken < self._most and not self._waiting:
            self._taken += 1
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(admitted)
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self._taken -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and (self._taken < self._most or self._waiting[0].done()):
            admitted = self._waiting.popleft()
            if not admitted.done():  # or whoever waited was cancelled
                self._taken += 1
                admitted.set_result(None)
