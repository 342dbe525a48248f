"""What claimed messages say, read in batches within the byte budget."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from outbox.core.settlement import Claim
from outbox.errors import UnusableDatabase
from outbox.runner.budget import ByteBudget
from outbox.runner.request import Answer, Request
from outbox.store import Content, Store, TransientError

log = logging.getLogger("outbox.clerk")

BATCH = 64
"""Contents read at a time."""

LONG_READ = 1024 * 1024
"""Octets of contents for which a dot mark has to wait."""


class Contents:
    """Requests for content, (claim, account) each: made and given back by the event loop, read by the clerk."""

    def __init__(self, store: Store, byte_budget: int) -> None:
        self.asked: deque[Request] = deque()
        self._store = store
        self._budget = ByteBudget(byte_budget)
        self._released: deque[tuple[str, int]] = deque()
        self._lock = threading.Lock()  # nothing is removed while they are looked through

    def release(self, account: str, size: int) -> None:
        """A message of this many bytes is no longer in memory."""
        self._released.append((account, size))

    def clear(self) -> None:
        with self._lock:
            self.asked.clear()

    def next(self, most: int = BATCH) -> list[Request]:
        """The first, at most so many, that the budget may have room for. Of an account that holds nothing, one is read
        whatever it has.
        """
        while self._released:
            self._budget.give(*self._released.popleft())
        found: list[Request] = []
        owners = set[str]()
        with self._lock:
            for place in range(len(self.asked)):  # by its place: whoever asks appends meanwhile
                request = self.asked[place]
                _, account = request.payload
                if self._budget.has_room or (account not in owners and self._budget.admits(account)):
                    owners.add(account)
                    found.append(request)
                    if len(found) == most:
                        break
        return found

    def read(self, asked: dict[int, Request], answers: list[Answer], is_urgent: Callable[[], bool]) -> None:
        """Into `answers`, from `asked` (by message), as far as the budget goes. What a fault interrupts goes on where
        it was; behind large ones, what `is_urgent` goes first. Raises TransientError.
        """
        try:
            with self._store.reading():
                octets = 0
                for claim, content in self._store.contents([each.payload[0] for each in asked.values()]):
                    answers.append(self._take(asked.pop(claim.message_id), content))
                    octets += content.size
                    if not self._budget.has_room or (octets > LONG_READ and is_urgent()):
                        return
        except (TransientError, UnusableDatabase):
            raise
        except Exception:  # one of them cannot be read; by itself, it fails by itself
            log.debug("a content cannot be read with others", exc_info=True)
            message_id = next(iter(asked))
            answers.append(self._read_one(asked.pop(message_id)))

    def _read_one(self, request: Request) -> Answer:
        claim: Claim = request.payload[0]
        try:
            with self._store.reading():
                return self._take(request, self._store.content(claim))
        except (TransientError, UnusableDatabase):
            raise
        except Exception as error:  # noqa: BLE001 -- belongs to whoever asked: one unreadable row is that row's trouble
            return (request, None, error)

    def _take(self, request: Request, content: Content) -> Answer:
        self._budget.take(request.payload[1], content.size)
        return (request, content, None)

    def forget(self, answered: set[int]) -> None:
        """Those with these `id()`: mostly the first ones."""
        with self._lock:
            while self.asked and id(self.asked[0]) in answered:
                answered.discard(id(self.asked.popleft()))
            for _ in range(len(self.asked) if answered else 0):  # once around: the order stays
                request = self.asked.popleft()
                if id(request) not in answered:
                    self.asked.append(request)
