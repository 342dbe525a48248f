"""The clerk: one thread that owns the runner's only writing connection (DESIGN §3.6).

What arrives together shares a transaction, in the order marks, settlements, claims, upkeep: a mark holds up a relay, a
settlement frees a place, a claim fills it, and upkeep can wait. Whoever asks gets an asyncio future.

A fault that passes (locked, restarting, full) is met by trying the same group again, for as long as the clerk lives: a
result is kept until it is written. Any other error replays the group member by member, and only the culprit fails; if
it is a result, it is put aside, tried again, and at the end handed back to be rescued.

On SQLite the clerk shares the file's one lock with applications that wait for it with SQLite's own busy handler, which
starves. So it takes the lock in a rhythm of its own, and while others write it leaves the lock free after each COMMIT
(`others.py`), and reads meanwhile, which needs no lock.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from outbox.clock import Clock
from outbox.core.settlement import Claim, Settlement
from outbox.errors import DatabaseError, UnusableDatabase
from outbox.runner.writing.at_hand import AtHand
from outbox.runner.writing.contents import Contents
from outbox.runner.writing.gather import Gather
from outbox.runner.writing.others import Others
from outbox.runner.writing.patience import Patience
from outbox.runner.writing.request import (
    WRITES,
    AbandonedError,
    Answer,
    Claiming,
    Kind,
    Request,
    is_one_claim,
    is_single,
    resolve,
    set_answer,
)
from outbox.store import Content, Mark, Settled, Store, TransientError

log = logging.getLogger("outbox.clerk")

T = TypeVar("T")

GROUP = 200
"""At most so many of a kind in one transaction, so that it stays short (≤ 5 ms on SQLite)."""

RETRY_REFUSED = 5.0
"""Seconds until a result that the database refused is tried again."""

LAST_WORDS = 0.5
"""Seconds in which the clerk writes what it can when it is hurried, and again that it has to end."""

DISTURBED = 10.0
"""For how many seconds after a broken connection we look for claims that we know nothing of."""


class Clerk:
    """See above. Made and asked on the event loop's thread; everything that touches `store` runs in the clerk's."""

    def __init__(self, store: Store, clock: Clock, *, byte_budget: int, on_change: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._on_change = on_change
        self._queues: dict[Kind, deque[Request]] = {kind: deque() for kind in Kind}
        self._contents = Contents(store, byte_budget)
        self._queues[Kind.CONTENT] = self._contents.asked
        self._at_hand = AtHand(self.lighten)
        self._gather = Gather(self._hand_in)
        self._refused: list[Request] = []
        self._retry_at = 0.0
        self._arrived = threading.Condition()
        self._waits = False
        self._stopping = self._abandoned = self._ended = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="outbox-clerk", daemon=True)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._gone = asyncio.Event()
        self._offset = timedelta()
        self.others = Others(store, clock, on_commit=lambda: self._call(self._on_change))
        self._patience = Patience(
            store,
            clock,
            is_abandoned=lambda: self._abandoned,
            on_wait=self.others.met,
            on_return=lambda: self._call(self._on_change),
        )
        self.fault: UnusableDatabase | None = None
        """What has ended the clerk, and would end it again."""

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
        return self._clock.monotonic() - self._patience.broken_at < DISTURBED

    @property
    def absent_for(self) -> float:
        """See `Store.absent_for`."""
        return self._store.absent_for

    @property
    def database_uuid(self) -> str:
        return self._store.database_uuid

    @property
    def refused(self) -> set[tuple[int, int]]:
        """The claims, (message_id, claim_no), whose results the database refuses: they are kept, and tried again."""
        return {(each.payload.message_id, each.payload.claim_no) for each in self._refused}

    def now(self) -> datetime:
        """The database's clock, as last seen."""
        return self._clock.now() + self._offset

    # -- asking

    def mark(self, mark: Mark) -> asyncio.Future[datetime | None]:
        """The dot mark. Done when it is committed, with its moment, or when the claim turns out to be lost (None)."""
        return self._gather.ask(Kind.MARK, mark)

    def settle(self, settlement: Settlement) -> asyncio.Future[Settled]:
        self._at_hand.drop(settlement.message_id, settlement.claim_no)
        return self._gather.ask(Kind.SETTLE, settlement)

    def claim(self, verb: Callable[[Store, datetime], list[Claim]]) -> asyncio.Future[list[Claim]]:
        return self._gather.ask(Kind.CLAIM, verb)

    def upkeep(self, verb: Callable[[Store, datetime], T]) -> asyncio.Future[T]:
        """Any other statements, in a transaction."""
        return self._gather.ask(Kind.UPKEEP, verb)

    def read(self, verb: Callable[[Store], T]) -> asyncio.Future[T]:
        """Statements that only read, outside any transaction."""
        return self._gather.ask(Kind.READ, verb)

    def content(self, claim: Claim, account: str) -> asyncio.Future[Content]:
        """What a claimed message says: at once, if it was read along with its claim, else as soon as the byte budget
        has room for one more of this account. Give the room back with `release`.
        """
        content = self._at_hand.take(claim, account)
        if content is None:
            return self._gather.ask(Kind.CONTENT, (claim, account))
        self._gather.under_way += 1
        taken = self._loop.create_future()
        taken.set_result(content)
        return taken

    def release(self, account: str, size: int) -> None:
        """A message of this many bytes is no longer in memory."""
        self._gather.under_way -= 1
        self.lighten(account, size)

    def lighten(self, account: str, size: int) -> None:
        """A message that is under way takes this many bytes less."""
        self._contents.release(account, size)
        if self._contents.asked:
            self._wake()

    def expect(self) -> None:
        """Somebody else is about to commit, or just has: look closely for a moment (SQLite)."""
        self.others.expect()
        with self._arrived:
            self._arrived.notify()

    def _hand_in(self, asked: list[Request]) -> None:
        for each in asked:
            self._queues[each.kind].append(each)
            if self._ended and each.kind is not Kind.SETTLE:
                set_answer(each.future, None, DatabaseError("the clerk has ended"))
        self._wake()

    def _wake(self) -> None:
        """Without the lock, as a rule: the clerk says that it waits before it looks for the last time."""
        if self._waits:
            with self._arrived:
                self._arrived.notify()

    # -- ending

    async def stop(self, patience: float, hurry: asyncio.Event | None = None) -> list[Settlement]:
        """Write what is left, for at most `patience` seconds or until `hurry` is set; return the settlements that could
        not be written.
        """
        self._gather.hand_in()
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
        self._gather.hand_in()
        with self._arrived:
            return [each.payload for each in (*self._queues[Kind.SETTLE], *self._refused)]

    # -- the clerk's thread

    def _run(self) -> None:
        try:
            self._live()
        finally:
            self._call(self._gone.set)

    def _live(self) -> None:
        try:
            self._store.open()
            self.others.begin()
        except BaseException as error:  # noqa: BLE001 -- whoever awaits start() is told, whatever it is
            self._call(set_answer, self._opened, None, error)
            return
        self._call(set_answer, self._opened, None, None)
        try:
            while not self._finished():
                self._serve()
        except AbandonedError:
            log.warning("the database did not answer in time; what was not written goes to the rescue file")
        except UnusableDatabase as error:
            self.fault = error
            log.critical("nothing more is sent: %s; %s", error, error.hint)
        finally:
            self._dismiss()
            self._store.close()

    def _dismiss(self) -> None:
        """Nobody waits for us any more. Settlements stay where they are: they can still be rescued."""
        self._ended = True
        left = [each for kind, queue in self._queues.items() if kind is not Kind.SETTLE for each in queue]
        self._deliver([(each, None, DatabaseError("the clerk has ended")) for each in left])

    def _finished(self) -> bool:
        with self._arrived:
            return self._abandoned or (self._stopping and not any(self._queues.values()))

    def _serve(self) -> None:
        """Wait for requests; then one transaction for the writes among them, then the reads."""
        if not self._waiting():
            with self._arrived:
                self._waits = True
                if not self._waiting():
                    self._arrived.wait(self._interval())
                self._waits = False
        self._try_refused_again()
        if not self._waiting():
            self.others.look()
            return
        free = self.others.left_free()
        group = [] if free else [each for kind in WRITES for each in self._first(kind)]
        reads = self._first(Kind.READ)
        if group:
            self._write(group)
        elif not reads and not self._contents.next(1):
            self._rest(free)
        if reads:
            self._deliver([self._patience.until_done(partial(self._read, each, each.payload)) for each in reads])
            self._forget(reads)
        self._read_contents()

    def _first(self, kind: Kind) -> list[Request]:
        """The first of a queue, by their places: whoever asks appends meanwhile, and only this thread removes."""
        queue = self._queues[kind]
        return [queue[place] for place in range(min(len(queue), GROUP))]

    def _waiting(self) -> bool:
        return any(self._queues[kind] for kind in (*WRITES, Kind.READ)) or bool(self._contents.next(1))

    def _interval(self) -> float | None:
        pause = self.others.look_after()
        return RETRY_REFUSED if pause is None and self._refused else pause

    # -- writing

    def _write(self, group: list[Request]) -> None:
        """Serve a group in one transaction; on an error that does not pass, one by one. The requests leave the queue
        only when they have been answered, so that what is abandoned can still be rescued.
        """
        try:
            answers = self._patience.until_done(lambda: self._transact(group))
        except (AbandonedError, UnusableDatabase):
            raise
        except Exception as error:  # noqa: BLE001 -- anything a statement can raise; the culprit is found below
            if len(group) > 1:
                for request in group:
                    self._write([request])
                return
            if group[0].kind is Kind.SETTLE:
                self._put_aside(group[0], error)
                return
            answers = [(group[0], None, error)]
        self._forget(group)
        claims = [each for each in answers if isinstance(each[0].payload, Claiming) and each[1]]
        self._deliver([each for each in answers if each not in claims] if claims else answers)
        for each in claims:
            self._deliver_claims(each)

    def _put_aside(self, request: Request, error: Exception) -> None:
        """A result that the database refuses is kept, and tried again; at the end it goes to the rescue file."""
        log.error("id=%d: its result is refused, and kept: %s", request.payload.message_id, error)
        with self._arrived:
            self._queues[Kind.SETTLE].popleft()
            self._refused.append(request)
            self._retry_at = self._clock.monotonic() + RETRY_REFUSED
        self._call(self._on_change)

    def _try_refused_again(self) -> None:
        if self._refused and self._clock.monotonic() >= self._retry_at and not self._stopping:
            self._queues[Kind.SETTLE].extend(self._refused)
            self._refused.clear()

    def _forget(self, answered: Sequence[Request]) -> None:
        """Only this thread removes, and always from the front, so what was answered is still there."""
        for request in answered:
            self._queues[request.kind].popleft()

    def _transact(self, group: Sequence[Request]) -> list[Answer]:
        """One transaction. Members of one kind that have a batch verb go through it together."""
        self.others.make_room()
        store, began = self._store, self._clock.monotonic()
        with store.single(durable=not is_one_claim(group)) if is_single(group) else store.transaction():
            now = store.now()
            self._offset = now - self._clock.now()
            answers: list[Answer] = []
            marks = [each for each in group if each.kind is Kind.MARK]
            if marks:
                granted = store.mark([each.payload for each in marks], now)
                answers += [(each, now if ok else None, None) for each, ok in zip(marks, granted, strict=True)]
            settlements = [each for each in group if each.kind is Kind.SETTLE]
            if settlements:
                settled = store.settle([each.payload for each in settlements], now)
                answers += [(each, word, None) for each, word in zip(settlements, settled, strict=True)]
            verbs = [each for each in group if each.kind in (Kind.CLAIM, Kind.UPKEEP)]
            # Nobody waits any more for what was cancelled, and a claim that nobody hears of would be a lost one.
            answers += [(each, None if each.future.cancelled() else each.payload(store, now), None) for each in verbs]
        committed = self._clock.monotonic()
        self.others.had_lock(began, committed)
        self._gather.lasts += (committed - began - self._gather.lasts) / 4
        return answers

    def _rest(self, seconds: float) -> None:
        """So long, or until somebody asks."""
        with self._arrived:
            self._waits = True
            self._arrived.wait(seconds)
            self._waits = False

    # -- reading

    def _read(self, request: Request, verb: Callable[[Store], Any]) -> Answer:
        try:
            with self._store.reading():
                return (request, verb(self._store), None)
        except (TransientError, UnusableDatabase):
            raise
        except Exception as error:  # noqa: BLE001 -- belongs to whoever asked: one unreadable row is that row's trouble
            return (request, None, error)

    def _read_contents(self) -> None:
        asked = {each.payload[0].message_id: each for each in self._contents.next()}
        if not asked:
            return
        answers: list[Answer] = [(each, None, None) for each in asked.values() if each.future.cancelled()]
        for request, _, _ in answers:
            del asked[request.payload[0].message_id]
        self._patience.until_done(lambda: self._contents.read(asked, answers, self._is_urgent))
        self._contents.forget({id(request) for request, _, _ in answers})
        self._call(self._hand_over, answers)

    def _is_urgent(self) -> bool:
        return bool(self._queues[Kind.MARK])

    def _hand_over(self, answers: Sequence[Answer]) -> None:
        self._gather.under_way += sum(content is not None for _, content, _ in answers)
        for request, content, error in answers:
            if request.future.cancelled() and content is not None:
                self.release(request.payload[1], content.size)
            else:
                set_answer(request.future, content, error)

    # -- answering

    def _deliver(self, answers: Sequence[Answer]) -> None:
        if answers:
            self._call(resolve, answers)

    def _deliver_claims(self, answer: Answer) -> None:
        """With what they say. Those who wait for marks and settlements have had their answers."""
        request, claims, _ = answer
        ahead = self._contents.ahead(claims, request.payload.owner, self._is_urgent)
        self._call(self._hand_over_claims, answer, ahead)

    def _hand_over_claims(self, answer: Answer, ahead: Sequence[tuple[Claim, str, Content]]) -> None:
        self._at_hand.put(ahead)
        resolve([answer])

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)
