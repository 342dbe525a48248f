"""Mail that waits behind a pause for so long that it is delayed (see `outbox.store.events.Kind`).

One runner at a time looks. It remembers how far it has come in each lane that is held up, so that a million messages
that wait are looked at once, and not every minute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from outbox.runner.writing.clerk import Clerk
from outbox.store import Lane, Place, Store, accounts, leases
from outbox.store.events import Kind, Recording

NAME = "overdue"
LEASE = timedelta(minutes=3)
LANES = 200
BATCH = 200

Held = tuple[Lane, str]
"""A lane, and what its mail waits for."""


class Overdue:
    """`owner()` names the runner in the lease."""

    def __init__(self, clerk: Clerk, recording: Recording, *, owner: Callable[[], str]) -> None:
        self._clerk = clerk
        self._recording = recording
        self._owner = owner
        self._come_to: dict[tuple[str, int], Place] = {}

    async def tell(self) -> None:
        """Record what has become delayed since it was last called."""
        if not self._recording.wants(Kind.DELAYED):
            return
        until = self._clerk.now() - self._recording.delayed_after
        held = await self._held_up(until)
        keys = {(lane.sender, lane.priority) for lane, _ in held}
        self._come_to = {key: place for key, place in self._come_to.items() if key in keys}
        for lane, reason in held:
            if not await self._tell_lane(lane, reason, until):
                return

    async def _held_up(self, until: datetime) -> list[Held]:
        """The lanes that have mail due since then, and may not send."""
        found: list[Held] = []
        after = ""
        while lanes := await self._clerk.read(partial(_lanes, after)):
            if len(lanes) == LANES:  # the priorities of the last sender may be cut
                lanes = [lane for lane in lanes if lane.sender != lanes[-1].sender]
            old = [lane for lane in lanes if lane.due_at <= until]
            found += await self._clerk.read(partial(_blocked, old, self._clerk.now())) if old else []
            after = lanes[-1].sender
        return found

    async def _tell_lane(self, lane: Lane, reason: str, until: datetime) -> bool:
        """False when another runner is at it."""
        key = (lane.sender, lane.priority)
        while places := await self._clerk.read(partial(_overdue, lane, self._come_to.get(key), until)):
            ids = [message_id for _, message_id in places]
            if not await self._clerk.upkeep(partial(_tell, self._owner(), ids, reason)):
                self._come_to.clear()  # when it is our turn, what the other had not told yet is still to be told
                return False
            self._come_to[key] = places[-1]
        return True


def _lanes(after: str, store: Store) -> list[Lane]:
    return store.lanes(after, LANES)


def _blocked(lanes: Sequence[Lane], now: datetime, store: Store) -> list[Held]:
    registry = accounts.registry(store.db)
    routes = [(lane, registry.resolve(lane.sender)) for lane in lanes]
    return [(lane, reason) for lane, route in routes if route is not None and (reason := route.blocked(now))]


def _overdue(lane: Lane, after: Place | None, until: datetime, store: Store) -> list[Place]:
    return store.overdue(lane, after, until, BATCH)


def _tell(owner: str, messages: Sequence[int], reason: str, store: Store, now: datetime) -> bool:
    if not leases.take(store.db, NAME, owner, now, LEASE):
        return False
    store.tell_delayed(messages, reason, now)
    return True
