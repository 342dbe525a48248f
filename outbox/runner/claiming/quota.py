"""Limits, as a runner keeps them: what may go now, what waits until when, and how many connections are ours.

    quota.load(snapshot)                               with every snapshot of the registry
    quota.blocked(route, now) · room(route, now)       before a claim: may this sender send, and how many messages
    quota.places(account)                              connections at a time
    await quota.reserve(claim, route, addresses)       before a message is tried: a Reservation, or Postponed
    reservation.release(tried=…)                       after it

Recipients are counted, for the account, the sender (and its ``*@domain``, where that is registered beside it) and every
recipient domain; the counters are in the database and shared by all runners. A limit never holds mail and never fails
it. A message bigger than a limit uses the whole of it.

That a backlog is not claimed again and again:

- An account or a sender whose limit is used up is `blocked` until enough is free for a round of claims, but at most
  BATCH_PATIENCE longer than until something is. Its messages stay due, and keep their order.
- A domain cannot be blocked, for its mail stands among others'. Its messages are put into slots, one after the other
  at the rate of the limit, so that each is postponed about once. Urgent messages (a priority before 5) have slots of
  their own.
- A runner without a connection to a domain leaves the whole sender to those that have one, for longer each time.
- A message that has come back TIRED times, each time finding too little for all its recipients, goes as soon as one is
  free; those behind it wait for what it took too much.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from outbox.clock import Clock
from outbox.core.account import Account, Route
from outbox.core.address import ascii_domain
from outbox.core.limits import Limit, Limited, Span, connections, free, need, next_free, share
from outbox.core.settlement import Claim
from outbox.runner.writing.clerk import Clerk
from outbox.store import Store, limits
from outbox.store.limits import Shortage, Snapshot, Want

log = logging.getLogger("outbox.quota")

Key = tuple[Limited, str]

BATCH = 4
"""Messages for each connection of ours for which a limit should have room before it is asked again; but no more than
a tenth of the limit, for what is left over at the end of a span is lost.
"""

BATCH_PATIENCE = timedelta(seconds=30)
"""How much longer we wait for so many than for the first one."""

TIRED = 4

OPEN_AGAIN = 256
"""A gate that lets so many pass at once is none any more."""

TOGETHER = 100
"""So many requests share a transaction."""

HORIZON = timedelta(days=365)
"""Nothing is put off for longer; whoever has no slot by then is put off again."""

LEAVE, LEAVE_MOST = timedelta(seconds=5), timedelta(minutes=5)
"""For how long a sender is left to other runners, at first and at most."""

GUESS = 1.0
"""Seconds that a transaction takes, as long as none has been seen."""

NORMAL = 5
"""The priority from which on a message is not urgent."""


@dataclass(frozen=True, slots=True)
class Postponed:
    """The message may not go now. `until` is its new due time; None, when it keeps its own, because all of its sender's
    mail is blocked. `reason` is for people.
    """

    until: datetime | None
    reason: str


@dataclass(slots=True)
class Reservation:
    """What a message may use. Released once, when it has been tried or given up."""

    wants: tuple[Want, ...] = ()
    at: datetime | None = None
    began: float = 0.0
    _quota: Quota | None = field(default=None, repr=False)

    def release(self, *, tried: bool = True) -> None:
        """The message is not under way any more. `tried` is False when the relay has not seen it: then what it took is
        given back.
        """
        quota, self._quota = self._quota, None
        if quota is not None:
            quota.released(self, tried=tried)


@dataclass(slots=True)
class _Gate:
    """An account's or a sender's limit that was found used up. From `until` on `left` are thought to be free; when
    they have gone, one is tried, then two, and so on.
    """

    until: datetime
    reason: str
    left: int
    step: int = 1

    def take(self, count: int) -> None:
        self.left -= count
        if self.left <= 0:
            self.left = self.step
            self.step *= 2


class Quota:
    """See above. Everything is called on the event loop."""

    def __init__(self, clerk: Clerk, clock: Clock) -> None:
        self._clerk = clerk
        self._clock = clock
        self._snapshot = Snapshot()
        self._limits: dict[Key, Limit] = {}
        self._domains = False
        self._gates: dict[Key, _Gate] = {}
        self._left: dict[str, tuple[datetime, timedelta, str]] = {}  # senders left to others: until, for how long, why
        self._slots: dict[tuple[Key, str, bool], datetime] = {}
        self._under_way: Counter[Key] = Counter()
        self._seconds: dict[Key, float] = {}
        self._asked: list[tuple[tuple[Want, ...], asyncio.Future[tuple[Shortage, ...]]]] = []
        self._unused: list[tuple[tuple[Want, ...], datetime]] = []
        self._serving: asyncio.Task[None] | None = None

    def load(self, snapshot: Snapshot) -> None:
        """What the database says now. Where limits have changed, what was found out under the old ones is forgotten."""
        if snapshot.limits != self._snapshot.limits:
            self._limits = {each.key: each for each in snapshot.limits}
            self._domains = any(each.scope is Limited.DOMAIN for each in snapshot.limits)
            self._gates.clear()
            self._slots.clear()
        if snapshot != self._snapshot:
            self._left.clear()
        self._snapshot = snapshot

    # -- before a claim

    def places(self, account: Account) -> int:
        """How many connections this runner may have to the account's relay: its share of the limit among all living
        runners, and never more than `max_connections`. 0 when there are more runners than connections: then the
        account is blocked here.
        """
        ours = self._share((Limited.ACCOUNT, account.name))
        return account.max_connections if ours is None else min(account.max_connections, ours)

    def blocked(self, route: Route, now: datetime) -> str:
        """Why nothing of this sender may go now, in words; empty if it may."""
        if not self._limits:
            return ""
        left = self._left.get(route.sender.address)
        if left is not None and now < left[0]:
            return left[2]
        for key in _keys(route):
            gate = self._gates.get(key)
            if gate is not None and now < gate.until:
                return gate.reason
            if self._share(key) == 0:
                return f"{_all_under_way(self._limits[key])} by other runners"
        return ""

    def room(self, route: Route, now: datetime) -> int | None:
        """How many messages of this sender it is worth to claim now; None for any number."""
        if not self._limits:
            return None
        if self.blocked(route, now):
            return 0
        rooms = [max(1, self._gates[key].left) for key in _keys(route) if key in self._gates]
        rooms += [1] * (route.sender.address in self._left)
        for key in _keys(route):
            ours = self._share(key)
            if ours is not None and key[0] is Limited.SENDER:
                rooms.append(max(0, ours - self._under_way[key]))
        return min(rooms, default=None)

    # -- one message

    async def reserve(self, claim: Claim, route: Route, addresses: Sequence[str]) -> Reservation | Postponed:
        """Room for this message to these recipients. What is reserved must be released. Raises DatabaseError when the
        clerk has ended.
        """
        wants = self._wants(claim, route, addresses) if self._limits else ()
        if not wants:
            self._welcome(route)
            return Reservation()
        now = self._clerk.now()
        if reason := self.blocked(route, now):
            return Postponed(None, reason)
        postponed = self._elsewhere(wants, route, now)
        postponed = postponed or self._queued(wants, claim, now) or self._crowded(wants, claim, now)
        if postponed is not None:
            return postponed
        self._welcome(route)
        self._count(wants, 1)
        try:
            short = await self._ask(wants)
        except BaseException:
            self._count(wants, -1)
            raise
        if not short:
            return Reservation(wants, self._clerk.now(), self._clock.monotonic(), self)
        self._count(wants, -1)
        return self._refuse(short, wants, claim, route)

    def released(self, reservation: Reservation, *, tried: bool) -> None:
        """See `Reservation.release`."""
        self._count(reservation.wants, -1)
        if not tried and reservation.at is not None:
            self._unused.append((reservation.wants, reservation.at))
            self._serve()
            return
        seconds = self._clock.monotonic() - reservation.began
        for each in reservation.wants:
            if each.limit.connections is not None:
                known = self._seconds.get(each.limit.key, seconds)
                self._seconds[each.limit.key] = known + (seconds - known) / 8

    def _wants(self, claim: Claim, route: Route, addresses: Sequence[str]) -> tuple[Want, ...]:
        if not self._limits or not addresses:
            return ()
        insist = claim.claim_no - 1 - claim.failures - claim.doubts - claim.crashes >= TIRED
        counts: Counter[Key] = Counter({key: len(addresses) for key in _keys(route)})
        if self._domains:
            counts.update((Limited.DOMAIN, _domain(each)) for each in addresses)
        return tuple(Want(self._limits[key], count, insist) for key, count in counts.items() if key in self._limits)

    def _queued(self, wants: Iterable[Want], claim: Claim, now: datetime) -> Postponed | None:
        """Behind the others, if others wait for a slot of one of its domains, and it has had none yet."""
        if claim.claim_no > 1 or claim.priority < NORMAL:
            return None
        until: dict[str, datetime] = {}
        for each in wants:
            for span, most in each.limit.rates():
                at = self._slots.get((each.limit.key, span, False), now)
                if at > now:
                    until[_used_up(each.limit, span, most)] = self._slot(each, span, most, now, urgent=False)
        return _latest(until)

    def _elsewhere(self, wants: Iterable[Want], route: Route, now: datetime) -> Postponed | None:
        """Left to other runners, where we have no connection to one of its domains: it stays due for them."""
        none = next((each.limit for each in wants if self._share(each.limit.key) == 0), None)
        if none is None:
            return None
        known = self._left.get(route.sender.address)
        span = min(known[1] * 2, LEAVE_MOST) if known is not None else LEAVE
        reason = f"{_all_under_way(none)} by other runners"
        self._left[route.sender.address] = now + span, span, reason
        return Postponed(None, reason)

    def _welcome(self, route: Route) -> None:
        """The sender's mail is not only for where we have no connection."""
        left = self._left.get(route.sender.address)
        if left is not None and left[0] <= self._clerk.now():
            del self._left[route.sender.address]

    def _crowded(self, wants: Iterable[Want], claim: Claim, now: datetime) -> Postponed | None:
        """Later, if as many messages as may be of its sender, or to one of its domains, are under way."""
        until: dict[str, datetime] = {}
        for each in wants:
            key = each.limit.key
            ours = self._share(key)
            if ours is None or key[0] is Limited.ACCOUNT or self._under_way[key] < ours:
                continue
            pace = timedelta(seconds=self._seconds.get(key, GUESS)) / ours
            until[_all_under_way(each.limit)] = self._advance(
                (key, "connections", claim.priority < NORMAL), now + pace, pace
            )
        return _latest(until)

    def _refuse(self, short: Sequence[Shortage], wants: Iterable[Want], claim: Claim, route: Route) -> Postponed:
        counts = {each.limit.key: each for each in wants}
        gates = [each for each in short if each.limit.scope is not Limited.DOMAIN]
        if gates:
            return Postponed(None, [self._close(each, counts[each.limit.key], route) for each in gates][-1])
        urgent = claim.priority < NORMAL
        until = {
            _used_up(each.limit, each.span, each.most): self._slot(
                counts[each.limit.key], each.span, each.most, each.until, urgent=urgent
            )
            for each in short
        }
        latest = _latest(until)
        assert latest is not None
        return latest

    # -- waiting

    def _close(self, short: Shortage, want: Want, route: Route) -> str:
        """Ask for nothing of this limit until there is enough for a round of all runners. Why, in words."""
        now = self._clerk.now()
        runners = self._snapshot.runners
        batch = max(want.count, min(BATCH * max(1, self.places(route.account)) * runners, short.most // 10))
        until = next_free(short.window, short.span, short.most, batch, now)
        until = min(until, short.until + BATCH_PATIENCE)
        known = self._gates.get(short.limit.key)
        if known is None or known.until < until:
            left = max(1, free(short.window, short.span, short.most, until) // runners)
            reason = f"{_used_up(short.limit, short.span, short.most)} until {until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
            known = self._gates[short.limit.key] = _Gate(until, reason, left)
        return known.reason

    def _slot(self, want: Want, span: Span, most: int, earliest: datetime, *, urgent: bool) -> datetime:
        """The next slot of a domain for all of its recipients in this message. Each runner hands out its own part."""
        pace = span.length / most * self._snapshot.runners
        count = need(want.count, most)
        return self._advance((want.limit.key, span, urgent), earliest, pace, count)

    def _advance(self, line: tuple[Key, str, bool], earliest: datetime, pace: timedelta, count: int = 1) -> datetime:
        """The next moment of a line whose moments are `pace` apart; a message takes `count` of them, and the last."""
        at = max(earliest, self._slots.get(line, earliest) + pace * (count - 1))
        at = min(at, earliest + HORIZON)
        self._slots[line] = at + pace
        return at

    def _share(self, key: Key) -> int | None:
        limit = self._limits.get(key)
        if limit is None or limit.connections is None:
            return None
        return share(limit.connections, self._snapshot.rank, self._snapshot.runners)

    def _count(self, wants: Iterable[Want], by: int) -> None:
        for each in wants:
            if each.limit.connections is not None:
                self._under_way[each.limit.key] += by

    # -- the database

    async def _ask(self, wants: tuple[Want, ...]) -> tuple[Shortage, ...]:
        if not any(True for each in wants for _ in each.limit.rates()):
            return ()
        future: asyncio.Future[tuple[Shortage, ...]] = asyncio.get_running_loop().create_future()
        self._asked.append((wants, future))
        self._serve()
        short = await future
        for each in wants:
            gate = self._gates.get(each.limit.key)
            if gate is not None and not short:
                gate.take(each.count)
                if gate.step >= OPEN_AGAIN:
                    del self._gates[each.limit.key]
        return short

    def _serve(self) -> None:
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._settle_up())

    async def _settle_up(self) -> None:
        """One transaction after the other, each with what has come meanwhile: two of them in one could lock counters
        in another order than those of another runner.
        """
        while self._asked or self._unused:
            asked, self._asked = self._asked[:TOGETHER], self._asked[TOGETHER:]
            unused, self._unused = self._unused[:TOGETHER], self._unused[TOGETHER:]
            try:
                answers = await self._clerk.upkeep(partial(_exchange, [wants for wants, _ in asked], unused))
            except Exception as error:  # noqa: BLE001 -- it belongs to whoever asked
                if not asked:
                    log.warning("what was reserved and not used could not be given back: %s", error)
                for _, future in asked:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (wants, future), answer in zip(asked, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
                elif not answer:  # nobody waits for it any more
                    self._unused.append((wants, self._clerk.now()))


def _exchange(
    requests: list[tuple[Want, ...]], unused: list[tuple[tuple[Want, ...], datetime]], store: Store, now: datetime
) -> list[tuple[Shortage, ...]]:
    return limits.reserve(store.db, requests, now, unused)


def _keys(route: Route) -> Iterable[Key]:
    yield Limited.ACCOUNT, route.account.name
    yield Limited.SENDER, route.sender.address
    if route.domain is not None:
        yield Limited.SENDER, route.domain.address


def _domain(address: str) -> str:
    domain = address.rpartition("@")[2].lower()
    if not domain.isascii():
        with suppress(ValueError):  # not a domain: nobody can have limited it
            domain = ascii_domain(domain)
    return domain


def _used_up(limit: Limit, span: Span, most: int) -> str:
    return f"limit of {most} {span.words} for {limit.scope} {limit.name} is used up"


def _all_under_way(limit: Limit) -> str:
    return f"limit of {connections(limit.connections or 0)} for {limit.scope} {limit.name} is used up"


def _latest(until: dict[str, datetime]) -> Postponed | None:
    """The longest of several waits, and its reason."""
    if not until:
        return None
    reason = max(until, key=lambda each: until[each])
    return Postponed(until[reason], reason)
