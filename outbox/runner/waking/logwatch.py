"""Hears of every write to a SQLite database, whoever makes it: Linux tells of writes to the log beside it (inotify)."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from outbox.runner.waking.hearing import Ear, Place, place_of

log = logging.getLogger("outbox.logwatch")

IN_MODIFY = 0x2


class LogWatch:
    """`on_write` is called on the event loop, when something has been written to ``<database>-wal``: before the COMMIT
    that it belongs to is visible, for some time before where it is written to the disk first; and also for our own.
    """

    def __init__(self, database: Path, on_write: Callable[[], None]) -> None:
        self._file = os.fsencode(database.resolve()) + b"-wal"
        self._on_write = on_write
        self._descriptor = -1
        self._ear: Ear | None = None
        self._place: Place | None = None
        self.proven = False
        """Whether anything has been heard of this log. Not every file system tells."""

    def attend(self) -> None:
        """See that the log that is there is watched. To be called every few seconds. Never raises."""
        if not sys.platform.startswith("linux"):
            return
        try:
            place = place_of(self._file)  # the last connection that closes deletes it
            if place != self._place:
                self.close()
                if place is not None:
                    self._watch(place)
        except (OSError, AttributeError) as error:  # too many are watched already; a C library without it
            log.debug("cannot watch %s: %s", os.fsdecode(self._file), error)

    def _watch(self, place: Place) -> None:
        system = ctypes.CDLL(None, use_errno=True)
        self._descriptor = system.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0 or system.inotify_add_watch(self._descriptor, self._file, IN_MODIFY) < 0:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, os.strerror(number))
        self._place, self._ear = place, Ear(self._descriptor, self._hear)

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._descriptor, 4096)  # they are all alike, and what is alike is kept once
        self.proven = True
        self._on_write()

    def close(self) -> None:
        if self._ear is not None:
            self._ear.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._ear, self._descriptor, self._place, self.proven = None, -1, None, False
