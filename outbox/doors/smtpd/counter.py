"""The database behind the SMTP door: one connection, kept, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from outbox.core.user import User
from outbox.doors.own import connected, refusal, rows
from outbox.enqueue import enqueue_many
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

    async def refusal(self, addresses: Sequence[str], name: str) -> str:
        """Why mail of these senders is not taken, from the user of this name (empty: nobody has logged in). Empty where
        it is.
        """
        return await self._ask(lambda connection: _refusal(connection, addresses, name))

    async def commit(self, mails: Sequence[Mail]) -> list[int | None]:
        """Their ids, when all of them are committed, in one transaction. Raises, besides, what the database refuses."""
        return await self._ask(lambda connection: enqueue_many(connection, mails, source=self._source))

    async def user(self, name: str) -> User | None:
        return await self._ask(lambda connection: _user(connection, name))

    async def close(self) -> None:
        await self._in_thread(self._hang_up)
        self._thread.shutdown()

    async def _ask(self, verb: Callable[[Any], T]) -> T:
        return await self._in_thread(lambda: self._served(verb))

    async def _in_thread(self, verb: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, verb)

    def _served(self, verb: Callable[[Any], T]) -> T:
        if self._open is None:
            opening = connected(self._url, patience=PATIENCE)
            self._connection = opening.__enter__()
            self._open = opening
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
            opened, self._open = self._open, None
            opened.__exit__(None, None, None)


def _refusal(connection: Any, addresses: Sequence[str], name: str) -> str:
    why = refusal(connection, addresses)
    if why or not name:
        return why
    user = _user(connection, name)  # who was removed since the login has nothing to say any more
    if user is None:
        return f"{name} is no user any more"
    return next((f"{name} may not send from {each}" for each in addresses if not user.may_send(each)), "")


def _user(connection: Any, name: str) -> User | None:
    found = rows(connection, "SELECT name, password_hash, senders FROM outbox_user WHERE name = ?", name)
    return next((User(each, stored, tuple((senders or "").split())) for each, stored, senders in found), None)
