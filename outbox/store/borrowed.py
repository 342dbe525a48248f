"""A SQLite connection that an application has opened, as a peewee Database: for an operator who clicks in the
application's own pages, within its transaction.

A connection of our own would wait there for the lock that the application itself holds; and two copies of the SQLite
library must not open one file (see `engine`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import peewee


class Borrowed(peewee.SqliteDatabase):
    """`connection` is in autocommit outside of the blocks that `atomic` opens, which may be nested. It stays open."""

    def __init__(self, connection: Any, atomic: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__(":memory:", autoconnect=False, returning_clause=True)  # the name is not opened
        self._connection = connection
        self._atomic = atomic
        self.connect()

    def _connect(self) -> Any:
        return self._connection

    def _close(self, conn: Any) -> None:
        """It stays the application's."""

    def atomic(self, *_: Any, **__: Any) -> Any:
        return self._atomic()
