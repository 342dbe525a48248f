"""What claimed messages say, read within the byte budget: small ones along with their claim or in batches, a large one
when it fits.

A large one is measured before it is read. As long as it does not fit, what its account has asked for after it waits,
too: else small mail could keep it waiting for ever.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from outbox.core.settlement import Claim
from outbox.errors import InvalidMessage, UnusableDatabase
from outbox.runner.writing.budget import ByteBudget, under_way
from outbox.runner.writing.memory import return_large_blocks
from outbox.runner.writing.request import Answer, Request
from outbox.store import Content, Store, TransientError

log = logging.getLogger("outbox.clerk")

BATCH = 64
"""Contents read at a time."""

LONG_READ = 1024 * 1024
"""Octets of contents for which a dot mark has to wait."""


class Contents:
    """Requests for content, (claim, account) each: made and given back by the event loop, read by whoever has the turn
    to use the store.
    """

    def __init__(self, store: Store, byte_budget: int) -> None:
        self.asked: deque[Request] = deque()
        self._store = store
        self._budget = ByteBudget(byte_budget)
        self._released: deque[tuple[str, int]] = deque()
        self._lock = threading.Lock()  # nothing is removed while they are looked through
        self._octets: dict[int, int] = {}  # of large messages that wait for room

    def release(self, account: str, size: int) -> None:
        """So many bytes of a message are no longer in memory."""
        self._released.append((account, size))

    def clear(self) -> None:
        with self._lock:
            self.asked.clear()

    def ahead(
        self, claims: Sequence[Claim], owner: Callable[[str], str], is_enough: Callable[[int], bool]
    ) -> list[tuple[Claim, str, Content]]:
        """What these say, before it is asked for: as far as half of the budget goes, up to the first large one, and
        until so many octets `is_enough`; each with its account. A fault ends it: whoever asks for the rest meets it
        again, and knows what to do.
        """
        self._take_back()
        found: list[tuple[Claim, str, Content]] = []
        octets = 0
        try:
            with self._store.reading():
                for claim, content in self._store.contents(claims):
                    if isinstance(content, int) or not self._budget.is_half_free:
                        break
                    account = owner(claim.sender)
                    self._budget.take(account, content.size)
                    found.append((claim, account, content))
                    octets += content.size
                    if is_enough(octets):
                        break
        except Exception:
            log.debug("not everything could be read ahead", exc_info=True)
        return found

    def _take_back(self) -> None:
        while self._released:
            self._budget.give(*self._released.popleft())

    def next(self, most: int = BATCH) -> list[Request]:
        """The first, at most so many, that the budget may have room for. Of an account that holds nothing, one is read
        whatever it has.
        """
        self._take_back()
        found: list[Request] = []
        owners, blocked = set[str](), set[str]()
        with self._lock:
            for place in range(len(self.asked)):  # by its place: whoever asks appends meanwhile
                request = self.asked[place]
                claim, account = request.payload
                if account in blocked:
                    continue
                if claim.message_id in self._octets:
                    if self._fits(request):
                        found.append(request)
                        break  # it is read by itself
                    blocked.add(account)
                elif self._budget.has_room or (account not in owners and self._budget.admits(account)):
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
                small = [each.payload[0] for each in asked.values() if each.payload[0].message_id not in self._octets]
                for claim, content in self._store.contents(small):
                    if isinstance(content, int):
                        return_large_blocks()
                        self._octets[claim.message_id] = content
                        return
                    answers.append(self._take(asked.pop(claim.message_id), content))
                    octets += content.size
                    if not self._budget.has_room or (octets > LONG_READ and is_urgent()):
                        return
                if asked and self._fits(large := next(iter(asked.values()))):
                    content = self._store.content(large.payload[0])
                    answers.append(self._take(asked.pop(large.payload[0].message_id), content))
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

    def _fits(self, request: Request) -> bool:
        claim, account = request.payload
        return self._budget.admits(account, under_way(self._octets.get(claim.message_id, 0)))

    def _take(self, request: Request, content: Content) -> Answer:
        octets = self._octets.pop(request.payload[0].message_id, 0)
        if octets:
            content = replace(content, size=under_way(octets) - octets + max(octets, _stored(content)))
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
            if not self.asked:
                self._octets.clear()


def _stored(content: Content) -> int:
    """What its parts take in memory: a text with one character beyond Latin-1 takes two or four times its octets."""
    message = content.message
    if isinstance(message, InvalidMessage):
        return 0
    parts = (message.text_body, message.html_body, message.raw, *(each.content for each in message.attachments))
    return sum(sys.getsizeof(each) for each in parts if each)
