"""Hears of every write to a SQLite database, whoever makes it: Linux tells of writes to the log beside it (inotify)."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("outbox.logwatch")

IN_MODIFY = 0x2

DEAF = 0.005
"""Seconds for which it is not heard again: whoever has heard it looks closely for longer than that."""


class LogWatch:
    """`on_write` is called on the event loop, when something has been written to ``<database>-wal``: before the COMMIT
    that it belongs to is visible, for some time before where it is written to the disk first; and also for our own.
    """

    def __init__(self, database: Path, on_write: Callable[[], None]) -> None:
        self._file = os.fsencode(database.resolve()) + b"-wal"
        self._on_write = on_write
        self._descriptor = -1
        self._place: tuple[int, int] | None = None
        self._listening: asyncio.TimerHandle | None = None
        self.proven = False
        """Whether anything has been heard of this log. Not every file system tells."""

    def attend(self) -> None:
        """See that the log that is there is watched. To be called every few seconds. Never raises."""
        if not sys.platform.startswith("linux"):
            return
        try:
            place = self._where()
            if place != self._place:
                self.close()
                if place is not None:
                    self._watch(place)
        except (OSError, AttributeError) as error:  # too many are watched already; a C library without it
            log.debug("cannot watch %s: %s", os.fsdecode(self._file), error)

    def _where(self) -> tuple[int, int] | None:
        """What file is there: the last connection that closes deletes it."""
        try:
            found = os.stat(self._file)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _watch(self, place: tuple[int, int]) -> None:
        system = ctypes.CDLL(None, use_errno=True)
        self._descriptor = system.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0 or system.inotify_add_watch(self._descriptor, self._file, IN_MODIFY) < 0:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, os.strerror(number))
        self._place = place
        self._listen()

    def _listen(self) -> None:
        self._listening = None
        asyncio.get_running_loop().add_reader(self._descriptor, self._hear)

    def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._descriptor)
        self._listening = loop.call_later(DEAF, self._listen)
        with suppress(BlockingIOError):
            os.read(self._descriptor, 4096)  # they are all alike, and what is alike is kept once
        self.proven = True
        self._on_write()

    def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
        self._descriptor, self._place, self.proven = -1, None, False
