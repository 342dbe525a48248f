"""The clerk: one thread that owns the runner's only writing connection (DESIGN §3.6).

What arrives together shares a transaction, in the order marks, settlements, claims, upkeep: a mark holds up a relay, a
settlement frees a place, a claim fills it, and upkeep can wait. Whoever asks gets an asyncio future.

A fault that passes (locked, restarting, full) is met by trying the same group again, for as long as the clerk lives: a
result is kept until it is written. Any other error replays the group member by member, and only the culprit fails.

On SQLite the clerk shares the file's one lock with applications that wait for it with SQLite's own busy handler, which
starves. So it takes the lock in a rhythm of its own, and while others write it leaves the lock free for a millisecond
after each COMMIT.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from outbox.clock import Clock
from outbox.core.settlement import Claim, Settlement
from outbox.errors import DatabaseError
from outbox.store import Content, Mark, Settled, Store, TransientError

log = logging.getLogger("outbox.clerk")

T = TypeVar("T")

GROUP = 200
"""At most so many of a kind in one transaction, so that it stays short (≤ 5 ms on SQLite)."""

LOOK_EVERY = 0.02
"""Seconds between looks at whether somebody else has committed (SQLite)."""

COURTESY = 0.001
"""Seconds that the lock is left free after a COMMIT while others write."""

OTHERS_ACTIVE = 1.0
"""For how many seconds after the last sign of another writer we are courteous."""

LAST_WORDS = 0.5
"""Seconds in which the clerk writes what it can when it is hurried, and again that it has to end."""

DISTURBED = 10.0
"""For how many seconds after a broken connection we look for claims that we know nothing of."""


class Kind(IntEnum):
    """The order within a group."""

    MARK = 0
    SETTLE = 1
    CLAIM = 2
    UPKEEP = 3
    READ = 4


@dataclass(slots=True)
class _Request:
    kind: Kind
    payload: Any
    future: asyncio.Future[Any]


WRITES = (Kind.MARK, Kind.SETTLE, Kind.CLAIM, Kind.UPKEEP)

Outcome = tuple[_Request, Any, BaseException | None]


class Clerk:
    """See above. Made and asked on the event loop's thread; everything that touches `store` runs in the clerk's."""

    def __init__(self, store: Store, clock: Clock, *, byte_budget: int, on_change: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._on_change = on_change
        self._queues: dict[Kind, deque[_Request]] = {kind: deque() for kind in Kind}
        self._contents: deque[_Request] = deque()
        self._room = byte_budget
        self._arrived = threading.Condition()
        self._stopping = False
        self._abandoned = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="outbox-clerk", daemon=True)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._gone = asyncio.Event()
        self._offset = timedelta()
        self._changes: int | None = None
        self._others_until = 0.0
        self._committed_at = 0.0
        self._broken_at = float("-inf")

    async def start(self) -> None:
        """Connect. Raises DatabaseError."""
        self._thread.start()
        await self._opened

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def disturbed(self) -> bool:
        """Whether a connection broke lately: then there may be claims of ours whose COMMIT was not acknowledged."""
        return self._clock.monotonic() - self._broken_at < DISTURBED

    def now(self) -> datetime:
        """The database's clock, as last seen."""
        return self._clock.now() + self._offset

    # -- asking

    def mark(self, mark: Mark) -> asyncio.Future[bool]:
        """The dot mark. Done only when it is committed (True), or when the claim turns out to be lost (False)."""
        return self._ask(Kind.MARK, mark)

    def settle(self, settlement: Settlement) -> asyncio.Future[Settled]:
        return self._ask(Kind.SETTLE, settlement)

    def claim(self, verb: Callable[[Store, datetime], list[Claim]]) -> asyncio.Future[list[Claim]]:
        return self._ask(Kind.CLAIM, verb)

    def upkeep(self, verb: Callable[[Store, datetime], T]) -> asyncio.Future[T]:
        """Any other statements, in a transaction."""
        return self._ask(Kind.UPKEEP, verb)

    def read(self, verb: Callable[[Store], T]) -> asyncio.Future[T]:
        """Statements that only read, outside any transaction."""
        return self._ask(Kind.READ, verb)

    def content(self, claim: Claim) -> asyncio.Future[Content]:
        """What a claimed message says, as soon as the byte budget has room. Give the room back with `release`."""
        request = _Request(Kind.READ, claim, self._loop.create_future())
        with self._arrived:
            self._contents.append(request)
            self._arrived.notify()
        return request.future

    def release(self, size: int) -> None:
        """A message of this many bytes is no longer in memory."""
        with self._arrived:
            self._room += size
            if self._contents:
                self._arrived.notify()

    def _ask(self, kind: Kind, payload: Any) -> asyncio.Future[Any]:
        request = _Request(kind, payload, self._loop.create_future())
        with self._arrived:
            self._queues[kind].append(request)
            self._arrived.notify()
        return request.future

    # -- ending

    async def stop(self, patience: float, hurry: asyncio.Event | None = None) -> list[Settlement]:
        """Write what is left, for at most `patience` seconds or until `hurry` is set; return the settlements that could
        not be written.
        """
        with self._arrived:
            self._stopping = True
            self._contents.clear()
            self._arrived.notify()
        gone = asyncio.ensure_future(self._gone.wait())
        hurried = asyncio.ensure_future((hurry or self._gone).wait())
        await asyncio.wait({gone, hurried}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({gone}, timeout=LAST_WORDS)
        with self._arrived:
            self._abandoned = True
            self._arrived.notify()
        # PostgreSQL may keep the thread waiting for somebody's lock: it is a daemon, and never comes to its COMMIT.
        await asyncio.wait({gone}, timeout=LAST_WORDS)
        for each in (gone, hurried):
            each.cancel()
        return [each.payload for each in self._queues[Kind.SETTLE]]

    # -- the clerk's thread

    def _run(self) -> None:
        try:
            self._live()
        finally:
            self._call(self._gone.set)

    def _live(self) -> None:
        try:
            self._store.open()
            self._changes = self._store.changes()
        except BaseException as error:  # noqa: BLE001 -- whoever awaits start() is told, whatever it is
            self._answer(self._opened, None, error)
            return
        self._answer(self._opened, None, None)
        try:
            while not self._finished():
                self._serve()
        except _AbandonedError:
            log.warning("the database did not answer in time; what was not written goes to the rescue file")
        finally:
            self._store.close()

    def _finished(self) -> bool:
        with self._arrived:
            idle = not any(self._queues.values()) and not self._contents
            return self._abandoned or (self._stopping and idle)

    def _serve(self) -> None:
        """Wait for requests; then one transaction for the writes among them, then the reads."""
        with self._arrived:
            if not self._waiting():
                self._arrived.wait(LOOK_EVERY if self._changes is not None else None)
            if not self._waiting():
                group, reads, idle = [], [], True
            else:
                group = [each for kind in WRITES for each in islice(self._queues[kind], GROUP)]
                reads, idle = list(islice(self._queues[Kind.READ], GROUP)), False
        if idle:
            self._look()
            return
        if group:
            self._write(group)
        if reads:
            self._deliver([self._patiently(partial(self._read, each, each.payload)) for each in reads])
            self._forget(reads)
        self._read_contents()

    def _waiting(self) -> bool:
        return any(self._queues.values()) or (bool(self._contents) and self._room > 0)

    def _look(self) -> None:
        """Has somebody else committed? `data_version` says so for 3.5 µs and does not move on our own commits."""
        try:
            changes = self._store.changes()
        except TransientError:
            return
        if changes != self._changes:
            self._changes = changes
            self._others_until = self._clock.monotonic() + OTHERS_ACTIVE
            self._call(self._on_change)

    # -- writing

    def _write(self, group: list[_Request]) -> None:
        """Serve a group in one transaction; on an error that does not pass, one by one. The requests leave the queue
        only when they have been answered, so that what is abandoned can still be rescued.
        """
        try:
            outcomes = self._patiently(lambda: self._transact(group))
        except _AbandonedError:
            raise
        except Exception as error:  # noqa: BLE001 -- anything a statement can raise; the culprit is found below
            if len(group) == 1:
                outcomes = [(group[0], None, error)]
            else:
                for request in group:
                    self._write([request])
                return
        self._forget(group)
        self._deliver(outcomes)

    def _forget(self, answered: Sequence[_Request]) -> None:
        """Only this thread removes, and always from the front, so what was answered is still there."""
        with self._arrived:
            for request in answered:
                self._queues[request.kind].popleft()

    def _transact(self, group: Sequence[_Request]) -> list[Outcome]:
        """One transaction. Members of one kind that have a batch verb go through it together."""
        self._be_courteous()
        store = self._store
        with store.transaction():
            now = store.now()
            self._offset = now - self._clock.now()
            outcomes: list[Outcome] = []
            marks = [each for each in group if each.kind is Kind.MARK]
            if marks:
                granted = store.mark([each.payload for each in marks], now)
                outcomes += [(each, ok, None) for each, ok in zip(marks, granted, strict=True)]
            settlements = [each for each in group if each.kind is Kind.SETTLE]
            if settlements:
                settled = store.settle([each.payload for each in settlements], now)
                outcomes += [(each, word, None) for each, word in zip(settlements, settled, strict=True)]
            verbs = [each for each in group if each.kind in (Kind.CLAIM, Kind.UPKEEP)]
            # Nobody waits any more for what was cancelled, and a claim that nobody hears of would be a lost one.
            outcomes += [(each, None if each.future.cancelled() else each.payload(store, now), None) for each in verbs]
        self._committed_at = self._clock.monotonic()
        return outcomes

    def _be_courteous(self) -> None:
        changes = self._store.changes()
        now = self._clock.monotonic()
        if changes is not None and changes != self._changes:
            self._changes = changes
            self._others_until = now + OTHERS_ACTIVE
            self._call(self._on_change)
        if now < self._others_until and (free := now - self._committed_at) < COURTESY:
            self._clock.sleep(COURTESY - free)

    # -- reading

    def _read(self, request: _Request, verb: Callable[[Store], Any]) -> Outcome:
        try:
            with self._store.reading():
                return (request, verb(self._store), None)
        except TransientError:
            raise
        except Exception as error:  # noqa: BLE001 -- belongs to whoever asked: one unreadable row is that row's trouble
            return (request, None, error)

    def _read_contents(self) -> None:
        """Row by row within the byte budget: at most one message more than fits is in memory."""
        outcomes: list[Outcome] = []
        while len(outcomes) < GROUP:
            with self._arrived:
                if not self._contents or self._room <= 0:
                    break
                request = self._contents.popleft()
            outcome = self._patiently(partial(self._read, request, partial(_content, request.payload)))
            if isinstance(outcome[1], Content):
                with self._arrived:
                    self._room -= outcome[1].size
            outcomes.append(outcome)
        self._deliver(outcomes)

    # -- patience

    def _patiently(self, verb: Callable[[], T]) -> T:
        """Try until it works: 0.2 ms at first (a lock is short), a second at last. Raises what does not pass."""
        delay, complained, broken = 0.0002, False, False
        since = self._clock.monotonic()
        while True:
            try:
                if broken:
                    self._reconnect()
                return verb()
            except TransientError as error:
                if self._abandoned:
                    raise _AbandonedError from error
                broken = error.reconnect
                if broken:
                    self._broken_at = self._clock.monotonic()
                    delay = max(delay, 0.05)
                self._others_until = self._clock.monotonic() + OTHERS_ACTIVE
                if not complained and self._clock.monotonic() - since > 5:
                    complained = True
                    log.warning("waiting for the database: %s", error)
                self._clock.sleep(delay)
                # While the fault looks like another writer's lock, look again soon: waiting longer is how one starves.
                delay = min(delay * 2, 0.001 if self._clock.monotonic() - since < 1 else 1.0)

    def _reconnect(self) -> None:
        try:
            self._store.close()
            self._store.open()
        except DatabaseError as error:
            raise TransientError(str(error), reconnect=True) from error

    # -- answering

    def _deliver(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            self._call(_resolve, outcomes)

    def _answer(self, future: asyncio.Future[None], result: None, error: BaseException | None) -> None:
        self._call(_set, future, result, error)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


class _AbandonedError(Exception):
    """The runner is ending and the database has not come back."""


def _content(claim: Claim, store: Store) -> Content:
    return store.content(claim)


def _resolve(outcomes: Sequence[Outcome]) -> None:
    for request, result, error in outcomes:
        _set(request.future, result, error)


def _set(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled by whoever asked
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
