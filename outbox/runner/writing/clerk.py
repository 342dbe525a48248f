"""The clerk: whatever the runner asks of its database goes through it, over the one connection that writes (DESIGN
§3.6).

Whoever asks gets an asyncio future. What is asked is served (`desk.py`) by a thread of the clerk's own, which can wait:
for a database far away, for somebody's lock, for a slow disk. Where there is nothing to wait for, which on SQLite is
the rule, the event loop serves the mail itself: two threads that share an interpreter wait for each other three times a
mail, and that takes a sixth of the time of a drain.

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
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from outbox.clock import Clock
from outbox.core.settlement import Claim, Settlement
from outbox.errors import DatabaseError, UnusableDatabase
from outbox.runner.writing.at_hand import AtHand
from outbox.runner.writing.contents import Contents
from outbox.runner.writing.desk import RETRY_REFUSED, Desk
from outbox.runner.writing.gather import Gather
from outbox.runner.writing.glances import Glances
from outbox.runner.writing.others import Others
from outbox.runner.writing.patience import Patience
from outbox.runner.writing.request import (
    READS,
    WRITES,
    AbandonedError,
    Answer,
    Kind,
    Request,
    resolve,
    set_answer,
)
from outbox.store import Content, Mark, Settled, Store

log = logging.getLogger("outbox.clerk")

T = TypeVar("T")

BRIEF = 0.01
"""Seconds that transactions may have taken of late, on average, where the event loop runs the next one itself."""

LAST_WORDS = 0.5
"""Seconds in which the clerk writes what it can when it is hurried, and again that it has to end."""

DISTURBED = 10.0
"""For how many seconds after a broken connection we look for claims that we know nothing of."""


class Clerk:
    """See above. Made and asked on the event loop's thread. `store` is touched by whoever has the desk's `turn`."""

    def __init__(self, store: Store, clock: Clock, *, byte_budget: int, on_change: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._on_change = on_change
        self._contents = Contents(store, byte_budget)
        self._at_hand = AtHand(self.lighten)
        self._gather = Gather(self._hand_in)
        self._glances = Glances(self._glance)
        self._arrived = threading.Condition()
        self._waits = self._called = False
        self._mistake: Exception | None = None
        self._stopping = self._abandoned = self._serving = self._ended = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="outbox-clerk", daemon=True)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._gone = asyncio.Event()
        self.others = Others(store, clock, on_commit=lambda: self._call(self._on_change))
        self._patience = Patience(
            store,
            clock,
            is_abandoned=lambda: self._abandoned,
            on_wait=self.others.met,
            on_return=lambda: self._call(self._on_change),
        )
        self._desk = Desk(
            store,
            clock,
            self._contents,
            self.others,
            self._gather,
            deliver=self._deliver,
            deliver_claims=self._deliver_claims,
            deliver_contents=lambda answers: self._call(self._hand_over, answers),
            on_refused=lambda: self._call(self._on_change),
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
        return {(each.payload.message_id, each.payload.claim_no) for each in self._desk.refused}

    def now(self) -> datetime:
        """The database's clock, as last seen."""
        return self._clock.now() + self._desk.offset

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

    def look(self, verb: Callable[[Store], T]) -> asyncio.Future[T]:
        """Statements that only read, and are done in a moment as a rule: then the event loop may run them itself."""
        return self._gather.ask(Kind.LOOK, verb)

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
            self._call_thread()

    def expect(self) -> None:
        """Somebody is about to commit, or just has: look closely for a moment (SQLite)."""
        if self.others.may_be_ours():
            self._glances.begin()
            return
        self.others.expect()
        with self._arrived:
            self._arrived.notify()

    def _hand_in(self, asked: list[Request]) -> None:
        for each in asked:
            self._desk.queues[each.kind].append(each)
            if self._ended and each.kind is not Kind.SETTLE:
                set_answer(each.future, None, DatabaseError("the clerk has ended"))
        if asked:
            self._take()

    def _call_thread(self) -> None:
        """Without the lock, as a rule: the thread says that it waits before it looks for the last time."""
        self._called = True
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
            self._stopping = self._called = True
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
        unwritten = {id(each): each for each in (*self._desk.queues[Kind.SETTLE], *self._desk.refused)}
        return [each.payload for each in unwritten.values()]

    # -- serving, on the event loop

    def _take(self) -> None:
        """Serve what was asked, or have the thread do it."""
        try:
            served = self._may_serve_here() and self._serve_here()
        except Exception as error:  # noqa: BLE001 -- a mistake of ours, after a COMMIT: it ends the thread, and so us
            self._mistake, served = error, False
        if not served:
            self._call_thread()

    def _may_serve_here(self) -> bool:
        """Whether there is nothing to wait for, as far as one can tell."""
        return self._gather.lasts <= BRIEF and not self._desk.may_take_long and self._store.is_prompt()

    def _serve_here(self) -> bool:
        """Whether all that was asked has been served."""
        desk = self._desk
        if not desk.turn.acquire(blocking=False):
            return False
        try:
            if not self._serving or self._owes_others():
                return False
            desk.serve_once()
            return desk.is_empty
        finally:
            desk.turn.release()

    def _owes_others(self) -> bool:
        """Whether the lock is still left to others."""
        self.others.look()
        return self.others.left_free() > 0

    def _glance(self) -> bool:
        """Whether there was a look at what others do: not while the thread has the turn."""
        if not self._desk.turn.acquire(blocking=False):
            return False
        try:
            if self._serving:
                self.others.look()
        finally:
            self._desk.turn.release()
        return True

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
        self._serving = True
        self._call(set_answer, self._opened, None, None)
        try:
            while not self._finished():
                self._wait(self._interval())
                with self._desk.turn:
                    rest = self._serve()
                    is_left = self._desk.waiting
                if rest:
                    self._wait(rest)
                if is_left or self._called:
                    self._go_on()
        except AbandonedError:
            log.warning("the database did not answer in time; what was not written goes to the rescue file")
        except UnusableDatabase as error:
            self.fault = error
            log.critical("nothing more is sent: %s; %s", error, error.hint)
        finally:
            with self._desk.turn:
                self._dismiss()
                self._store.close()

    def _dismiss(self) -> None:
        """Nobody waits for us any more. Settlements stay where they are: they can still be rescued."""
        self._serving, self._ended = False, True
        self._deliver([(each, None, DatabaseError("the clerk has ended")) for each in self._desk.left()])

    def _finished(self) -> bool:
        with self._arrived:
            return self._abandoned or (self._stopping and self._desk.is_empty)

    def _wait(self, seconds: float | None) -> None:
        """So long, or until the event loop calls."""
        with self._arrived:
            self._waits = True
            if not self._called:
                self._arrived.wait(seconds)
            self._waits = False

    def _go_on(self) -> None:
        """With what has come meanwhile, or was too much; but where the event loop may serve it, that is asked first."""
        self._called = self._stopping or not self._may_serve_here()
        if not self._called:
            self._call(self._take)

    def _interval(self) -> float | None:
        """Seconds until there is something to do that nobody calls for."""
        pause = self.others.look_after()
        return RETRY_REFUSED if pause is None and self._desk.refused else pause

    def _serve(self) -> float:
        """One transaction for the writes, then the reads. Returns how long to rest, for the sake of others."""
        if self._mistake is not None:
            raise self._mistake
        desk, called = self._desk, self._called
        self._called = False
        again = not self._stopping and desk.try_refused_again()
        if not (called or again):
            self.others.look()
            return 0
        free = self.others.left_free()
        if not free and (group := desk.first(*WRITES)):
            desk.write(group, self._with_patience)
        has_read = desk.read(READS, self._patience.until_done)
        has_read |= desk.read_contents(self._patience.until_done)
        return 0 if has_read else free

    def _with_patience(self, transact: Callable[[], T]) -> T:
        def attempt() -> T:
            self.others.make_room()
            return transact()

        return self._patience.until_done(attempt)

    # -- answering

    def _deliver(self, answers: Sequence[Answer]) -> None:
        if answers:
            self._call(resolve, answers)

    def _deliver_claims(self, answer: Answer, ahead: Sequence[tuple[Claim, str, Content]]) -> None:
        self._call(self._hand_over_claims, answer, ahead)

    def _hand_over_claims(self, answer: Answer, ahead: Sequence[tuple[Claim, str, Content]]) -> None:
        self._at_hand.put(ahead)
        resolve([answer])

    def _hand_over(self, answers: Sequence[Answer]) -> None:
        self._gather.under_way += sum(content is not None for _, content, _ in answers)
        for request, content, error in answers:
            if request.future.cancelled() and content is not None:
                self.release(request.payload[1], content.size)
            else:
                set_answer(request.future, content, error)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        """On the event loop: at once, if that is where we are."""
        if threading.current_thread() is not self._thread:
            function(*arguments)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)
