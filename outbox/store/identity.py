"""Is the file at the path still the one that we have open?

A SQLite file that is renamed, deleted or replaced under an open connection goes on to be read and written without any
error, and nobody else sees it: mail would be marked as sent in a file that is thrown away, and sent again from the one
that took its place. So before each transaction the path is looked at (two stats, some microseconds).

What cannot be seen is a file that is written over in place (`cp backup.db shop.db`): it is the same file.
"""

from __future__ import annotations

import os

Key = tuple[int, int]

LOG_TOO_LARGE = 64 * 1024 * 1024
"""Octets of a write-ahead log that something keeps from being emptied."""


class OpenFile:
    """A SQLite file that is being opened: made before it is opened, and `settle`d when it has been read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._log = path + "-wal"
        self._keys: tuple[Key | None, Key | None] = (key_of(path), None)
        self._grown = LOG_TOO_LARGE

    def settle(self) -> bool:
        """Whether it is still the file that was there before it was opened. What is there now must stay."""
        before, _ = self._keys
        self._keys = (key_of(self.path), key_of(self._log))
        return before is not None and before == self._keys[0]

    def is_in_place(self) -> bool:
        """Whether the path, and that of its log, still lead to what was opened."""
        file, log = self._keys
        return key_of(self.path) == file and (log is None or key_of(self._log) == log)

    def log_size(self) -> int:
        """Octets of its write-ahead log; 0 where there is none."""
        try:
            return os.stat(self._log).st_size
        except OSError:
            return 0

    def has_grown(self) -> int:
        """The size of the log when it is too large, and twice as large as when this was last said; else 0."""
        size = self.log_size()
        if size < LOG_TOO_LARGE:
            self._grown = LOG_TOO_LARGE
        if size < self._grown:
            return 0
        self._grown = size * 2
        return size


def key_of(path: str) -> Key | None:
    """Device and number of the file that a path leads to; None where it leads to none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
