"""What the event loop has asked of the clerk, and how it is served: one transaction for the writes among it, then the
reads (DESIGN §3.6).

What arrives together shares a transaction, in the order marks, settlements, claims, upkeep: a mark holds up a relay, a
settlement frees a place, a claim fills it, and upkeep can wait.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from outbox.clock import Clock
from outbox.core.settlement import Claim
from outbox.errors import UnusableDatabase
from outbox.runner.writing.contents import LONG_READ, Contents
from outbox.runner.writing.gather import Gather
from outbox.runner.writing.others import Others
from outbox.runner.writing.request import (
    READS,
    WRITES,
    AbandonedError,
    Answer,
    Claiming,
    Kind,
    Request,
    is_one_claim,
    is_single,
)
from outbox.store import Content, Store, TransientError

log = logging.getLogger("outbox.clerk")

T = TypeVar("T")

Attempt = Callable[[Callable[[], Any]], Any]
"""Runs a transaction: once, or until a fault that passes has passed."""

GROUP = 200
"""At most so many of a kind in one transaction, so that it stays short (≤ 5 ms on SQLite)."""

QUICK_LOOK = 0.002
"""Seconds that a look may take where nothing else goes on meanwhile."""

AT_ONCE = 256 * 1024
"""Octets of contents that the event loop reads along with their claims. The thread reads the others."""

RETRY_REFUSED = 5.0
"""Seconds until a result that the database refused is tried again."""


class Desk:
    """The event loop appends to `queues`; all else belongs to whoever has the `turn`, which is the event loop, for a
    moment, or the clerk's thread. (`is_empty`, `refused` and `offset` may be read at any time.)

    `deliver(answers)`, `deliver_claims(answer, contents)` and `deliver_contents(answers)` pass on what came of it.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        contents: Contents,
        others: Others,
        gather: Gather,
        *,
        deliver: Callable[[Sequence[Answer]], None],
        deliver_claims: Callable[[Answer, Sequence[tuple[Claim, str, Content]]], None],
        deliver_contents: Callable[[Sequence[Answer]], None],
        on_refused: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._contents = contents
        self._others = others
        self._gather = gather
        self._deliver, self._deliver_claims, self._deliver_contents = deliver, deliver_claims, deliver_contents
        self._on_refused = on_refused
        self._retry_at = 0.0
        self._looked_for = 0.0  # seconds
        self.turn = threading.Lock()
        self.queues: dict[Kind, deque[Request]] = {kind: deque() for kind in Kind}
        self.queues[Kind.CONTENT] = contents.asked
        self.refused: list[Request] = []
        """Results that the database refuses."""
        self.offset = timedelta()
        """How far the database's clock is ahead of ours."""

    @property
    def waiting(self) -> bool:
        return any(self.queues[kind] for kind in (*WRITES, *READS)) or bool(self._contents.next(1))

    @property
    def is_empty(self) -> bool:
        return not any(self.queues.values())

    @property
    def may_take_long(self) -> bool:
        """Marks, settlements and claims do not: they touch a set of rows, whatever else is in the database. Of looks
        the last one tells: a thousand senders take a thousand seeks.
        """
        slow_look = self._looked_for > QUICK_LOOK and self.queues[Kind.LOOK]
        return bool(self.queues[Kind.UPKEEP] or self.queues[Kind.READ] or slow_look)

    def first(self, *kinds: Kind) -> list[Request]:
        """The first of these queues, by their places: whoever asks appends meanwhile."""
        found = []
        for queue in map(self.queues.__getitem__, kinds):
            found += [queue[place] for place in range(min(len(queue), GROUP))]
        return found

    def left(self) -> list[Request]:
        """What nobody has served, but settlements."""
        return [each for kind, queue in self.queues.items() if kind is not Kind.SETTLE for each in queue]

    # -- on the event loop

    def serve_once(self) -> None:
        """The writes in one transaction, and the looks, without waiting for anything. What an error keeps from being
        served stays: the thread meets it again, and knows what to do.
        """
        group = self.first(*WRITES)
        try:
            answers = self._transact(group) if group else []
        except Exception as error:  # noqa: BLE001 -- it is nobody's answer yet
            log.debug("the event loop leaves it to the thread: %s", error)
        else:
            self._conclude(group, answers, lambda octets: octets > AT_ONCE)
        with suppress(TransientError, UnusableDatabase):
            self.read((Kind.LOOK,), lambda verb: verb())

    # -- writing, with patience

    def write(self, group: list[Request], attempt: Attempt) -> None:
        """Serve a group in one transaction; on an error that does not pass, one by one. The requests leave the queue
        only when they have been answered, so that what is abandoned can still be rescued.
        """
        try:
            answers: list[Answer] = attempt(partial(self._transact, group))
        except (AbandonedError, UnusableDatabase):
            raise
        except Exception as error:  # noqa: BLE001 -- anything a statement can raise; the culprit is found below
            if len(group) > 1:
                for request in group:
                    self.write([request], attempt)
                return
            if group[0].kind is Kind.SETTLE:
                self._put_aside(group[0], error)
                return
            answers = [(group[0], None, error)]
        self._conclude(group, answers, lambda octets: octets > LONG_READ and self._is_urgent())

    def _conclude(self, group: list[Request], answers: list[Answer], is_enough: Callable[[int], bool]) -> None:
        """Pass on what a transaction has come to; claims with what they say, until so many octets `is_enough`."""
        self._forget(group)
        claims = [each for each in answers if isinstance(each[0].payload, Claiming) and each[1]]
        self._deliver([each for each in answers if each not in claims] if claims else answers)
        for each in claims:
            request, claimed, _ = each
            self._deliver_claims(each, self._contents.ahead(claimed, request.payload.owner, is_enough))

    def _put_aside(self, request: Request, error: Exception) -> None:
        """A result that the database refuses is kept, and tried again; at the end it goes to the rescue file."""
        log.error("id=%d: its result is refused, and kept: %s", request.payload.message_id, error)
        self.refused.append(request)
        self.queues[Kind.SETTLE].popleft()
        self._retry_at = self._clock.monotonic() + RETRY_REFUSED
        self._on_refused()

    def try_refused_again(self) -> bool:
        """What the database has refused goes into its queue again, when it is time to. Whether it is."""
        if not self.refused or self._clock.monotonic() < self._retry_at:
            return False
        self.queues[Kind.SETTLE].extend(self.refused)
        self.refused.clear()
        return True

    def _forget(self, answered: Sequence[Request]) -> None:
        """Only who has the turn removes, and always from the front, so what was answered is still there."""
        for request in answered:
            self.queues[request.kind].popleft()

    def _transact(self, group: Sequence[Request]) -> list[Answer]:
        """One transaction. Members of one kind that have a batch verb go through it together. Raises whatever a
        statement can raise; then nothing has been done.
        """
        store, began = self._store, self._clock.monotonic()
        with store.single(durable=not is_one_claim(group)) if is_single(group) else store.transaction():
            now = store.now()
            self.offset = now - self._clock.now()
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
        self._others.had_lock(began, committed)
        self._gather.lasts += (committed - began - self._gather.lasts) / 4
        return answers

    # -- reading

    def read(self, kinds: Sequence[Kind], attempt: Attempt) -> bool:
        """Serve what only reads. Whether there was something."""
        requests = self.first(*kinds)
        if requests:
            self._deliver([attempt(partial(self._read, each)) for each in requests])
            self._forget(requests)
        return bool(requests)

    def _read(self, request: Request) -> Answer:
        began = self._clock.monotonic()
        try:
            with self._store.reading():
                answer = request.payload(self._store)
            if request.kind is Kind.LOOK:
                self._looked_for = self._clock.monotonic() - began
            return (request, answer, None)
        except (TransientError, UnusableDatabase):
            raise
        except Exception as error:  # noqa: BLE001 -- belongs to whoever asked: one unreadable row is that row's trouble
            return (request, None, error)

    def read_contents(self, attempt: Attempt) -> bool:
        """What messages say, as far as the byte budget goes. Whether there was something."""
        asked = {each.payload[0].message_id: each for each in self._contents.next()}
        if not asked:
            return False
        answers: list[Answer] = [(each, None, None) for each in asked.values() if each.future.cancelled()]
        for request, _, _ in answers:
            del asked[request.payload[0].message_id]
        attempt(lambda: self._contents.read(asked, answers, self._is_urgent))
        self._contents.forget({id(request) for request, _, _ in answers})
        self._deliver_contents(answers)
        return True

    def _is_urgent(self) -> bool:
        return bool(self.queues[Kind.MARK])
