"""The mails of a connection that were not there before: as it sees them, so also those that are not committed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, overload

from outbox.testing.mails import ALL, Enqueued, contents, files, read
from outbox.testing.reading import aselect, is_async, select


class Captured(Sequence[Enqueued]):
    """The mails that have come since, in the order of their ids. Every look at it asks the connection anew, until the
    end of the block; then it stays as it was. What is rolled back is gone.

    On an asynchronous connection it is what it was when `refresh` was last awaited, or at the end of the block.
    """

    def __init__(self, connection: Any, known: frozenset[tuple[int, str]] = frozenset()) -> None:
        self._connection = connection
        self._known = known
        self._kept: list[Enqueued] | None = [] if is_async(connection) else None

    def __len__(self) -> int:
        return len(self._now())

    @overload
    def __getitem__(self, index: int) -> Enqueued: ...
    @overload
    def __getitem__(self, index: slice) -> list[Enqueued]: ...
    def __getitem__(self, index: int | slice) -> Enqueued | list[Enqueued]:
        return self._now()[index]

    def __iter__(self) -> Iterator[Enqueued]:
        return iter(self._now())

    def __repr__(self) -> str:
        return f"<{len(self._now())} mails: {'; '.join(map(str, self._now()))}>"

    async def refresh(self) -> Captured:
        """Look again on an asynchronous connection."""
        ids = self._new(await aselect(self._connection, ALL))
        rows = await aselect(self._connection, contents(ids))
        self._kept = list(read(rows, await aselect(self._connection, files(ids))))
        return self

    def keep(self) -> None:
        """Stay as it is now. What cannot be read any more (the connection is closed) is said at the next look."""
        with suppress(Exception):
            self._kept = self._now()

    def _now(self) -> list[Enqueued]:
        if self._kept is not None:
            return self._kept
        ids = self._new(select(self._connection, ALL))
        return list(read(select(self._connection, contents(ids)), select(self._connection, files(ids)))) if ids else []

    def _new(self, rows: list[tuple[Any, ...]]) -> list[int]:
        """By id and token: SQLite gives an id again, after a ROLLBACK."""
        return [message_id for message_id, token in _identities(rows) if (message_id, token) not in self._known]


@contextmanager
def captured(connection: Any) -> Iterator[Captured]:
    """The mails that are inserted from now on, as `connection` sees them: its own, also before they are committed, and
    those that others have committed. It takes what `enqueue` takes, a Django connection among them.
    """
    mails = Captured(connection, frozenset(_identities(select(connection, ALL))))
    try:
        yield mails
    finally:
        mails.keep()


@asynccontextmanager
async def acaptured(connection: Any) -> AsyncIterator[Captured]:
    """`captured` for what `aenqueue` takes. Within the block, ``await mails.refresh()`` looks again."""
    mails = Captured(connection, frozenset(_identities(await aselect(connection, ALL))))
    try:
        yield mails
    finally:
        with suppress(Exception):
            await mails.refresh()


def _identities(rows: list[tuple[Any, ...]]) -> Iterator[tuple[int, str]]:
    for message_id, token in rows:
        yield int(message_id), token.decode() if isinstance(token, bytes) else str(token)
