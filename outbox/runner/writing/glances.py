"""Looking whether somebody else has committed, on the event loop: a few times after something told of a write which may
have been our own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

FIRST, LAST = 0.001, 0.008
"""Seconds after which to look; each time twice as many. A commit comes soon after its first write, and a runner that
works looks before each transaction as well.
"""


class Glances:
    """Belongs to the event loop. `look` says whether it could; else it is tried again after the same time."""

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._after = FIRST
        self._planned: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Something told of a write just now."""
        if self._planned is not None and self._after > FIRST:
            self._planned.cancel()
            self._planned = None
        if self._planned is None:
            self._after = FIRST
            self._plan()

    def _plan(self) -> None:
        self._planned = self._loop.call_later(self._after, self._glance)

    def _glance(self) -> None:
        self._planned = None
        if self._look():
            self._after *= 2
        if self._after <= LAST:
            self._plan()
