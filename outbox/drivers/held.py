"""Several statements held together, as the head of this room says, by what they can be run with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

_SAVEPOINT = "SAVEPOINT outbox_enqueue"
_ROLLBACK_TO = "ROLLBACK TO outbox_enqueue"
_RELEASE = "RELEASE outbox_enqueue"


def is_autocommit(connection: Any) -> bool:
    """Whether an INSERT outside a transaction commits by itself. Python 3.12's `autocommit` is True, False, or −1 for
    the older rule, by which `isolation_level` decides.
    """
    mode = getattr(connection, "autocommit", -1)
    return bool(mode) if mode in (True, False) else connection.isolation_level is None


@contextmanager
def on_sqlite(
    connection: Any, run: Callable[[str], Any], autocommit: Callable[[Any], bool] = is_autocommit
) -> Iterator[None]:
    """On this sqlite3 connection, by statements that `run` runs on it. `autocommit` asks it, as `is_autocommit` does,
    where that takes more.
    """

    def is_open() -> bool:
        return bool(connection.in_transaction)

    if is_open():
        with savepoint(run, is_open):
            yield
    elif autocommit(connection):
        with transaction(run, is_open):
            yield
    else:
        # The connection would begin before the first INSERT by itself, but not before a SAVEPOINT, whose RELEASE would
        # then commit. So begin as it would; the commit is the application's.
        run(f"BEGIN {connection.isolation_level}")
        with savepoint(run, is_open):
            yield


@contextmanager
def transaction(run: Callable[[str], Any], is_open: Callable[[], bool]) -> Iterator[None]:
    """A transaction of our own on a connection in autocommit, rolled back if anything fails in it."""
    run("BEGIN")
    try:
        yield
        run("COMMIT")
    except BaseException:
        with suppress(Exception):  # what went wrong first is what matters
            if is_open():  # some errors (disk full) have ended it already
                run("ROLLBACK")
        raise


@contextmanager
def savepoint(run: Callable[[str], Any], is_open: Callable[[], bool]) -> Iterator[None]:
    """All or nothing inside the application's transaction, which goes on either way."""
    run(_SAVEPOINT)
    try:
        yield
    except BaseException:
        with suppress(Exception):
            if is_open():
                run(_ROLLBACK_TO)
                run(_RELEASE)
        raise
    run(_RELEASE)


@asynccontextmanager
async def on_sqlite_async(
    connection: Any, run: Callable[[str], Awaitable[Any]], autocommit: Callable[[], Awaitable[bool]]
) -> AsyncIterator[None]:
    """`on_sqlite`, where what is asked of the connection is to be awaited."""
    own = not connection.in_transaction and await autocommit()
    if own:
        begin, done, undo = "BEGIN", "COMMIT", ["ROLLBACK"]
    else:
        if not connection.in_transaction:
            await run(f"BEGIN {connection.isolation_level}")
        begin, done, undo = _SAVEPOINT, _RELEASE, [_ROLLBACK_TO, _RELEASE]
    await run(begin)
    try:
        yield
        if own:
            await run(done)
    except BaseException:
        with suppress(Exception):
            if connection.in_transaction:
                for statement in undo:
                    await run(statement)
        raise
    if not own:
        await run(done)
