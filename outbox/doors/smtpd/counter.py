"""The database behind the SMTP door: one connection, kept, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from outbox.core.user import User
from outbox.doors.own import connected, is_registered, rows
from outbox.enqueue import enqueue
from outbox.errors import DatabaseError
from outbox.mail import Mail

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds to wait for a lock, or for the server; the client is told to come again after that."""


class Counter:
    """Everything that is asked of the database. Each call may raise DatabaseError, and the next one connects anew."""

    def __init__(self, url: str, source: str) -> None:
        self._url = url
        self._source = source
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox-smtpd")
        self._open: AbstractContextManager[Any] | None = None
        self._connection: Any = None

    async def is_registered(self, address: str) -> bool:
        return await self._ask(lambda connection: is_registered(connection, address))

    async def commit(self, mail: Mail) -> int | None:
        """Its id, when it is committed. Raises, besides, what the database refuses of it."""
        return await self._ask(lambda connection: enqueue(connection, mail, source=self._source))

    async def users(self) -> dict[str, User]:
        return await self._ask(_users)

    async def close(self) -> None:
        await self._in_thread(self._hang_up)
        self._thread.shutdown()

    async def _ask(self, verb: Callable[[Any], T]) -> T:
        return await self._in_thread(lambda: self._served(verb))

    async def _in_thread(self, verb: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, verb)

    def _served(self, verb: Callable[[Any], T]) -> T:
        if self._open is None:
            self._open = connected(self._url, patience=PATIENCE)
            try:
                self._connection = self._open.__enter__()
            except BaseException:
                self._open = None
                raise
        try:
            return verb(self._connection)
        except Exception as error:
            # Whatever it was, the next one begins on a fresh connection; and `connected` says in words what it was.
            opened, self._open = self._open, None
            if not opened.__exit__(type(error), error, error.__traceback__):
                raise
            raise DatabaseError(str(error)) from error

    def _hang_up(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None


def _users(connection: Any) -> dict[str, User]:
    found = rows(connection, "SELECT name, password_hash, senders FROM outbox_user")
    return {name: User(name, password_hash, tuple((senders or "").split())) for name, password_hash, senders in found}
