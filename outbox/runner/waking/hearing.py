"""Hearing that a descriptor has something to read, but not all the time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

DEAF = 0.005
"""Seconds for which nothing is heard again: whoever has heard something looks closely for longer than that, and what
sounds thousands of times a second does not wake a busy runner as often.
"""

Place = tuple[int, int]
"""Which file it is: its device and number."""


class Ear:
    """Calls `on_sound` on the event loop while `descriptor`, which is somebody else's, can be read."""

    def __init__(self, descriptor: int, on_sound: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._on_sound = on_sound
        self._loop = asyncio.get_running_loop()
        self._deaf: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """Before the descriptor is closed."""
        if self._deaf is not None:
            self._deaf.cancel()
        self._loop.remove_reader(self._descriptor)

    def _listen(self) -> None:
        self._loop.add_reader(self._descriptor, self._hear)

    def _hear(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._deaf = self._loop.call_later(DEAF, self._listen)
        self._on_sound()


def place_of(path: bytes) -> Place | None:
    """What file is there, if any; of a symbolic link, the link itself."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
