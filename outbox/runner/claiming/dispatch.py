"""Which messages to claim next: fairly, no more than can be sent now, and nothing that is paused.

    bell ─► look at the lanes ─► allocate ─► claim ─► a delivery each        (until nothing can be claimed)
         ◄──────────── mail came, a place became free, something comes due ◄──────────────┘

A lane is one sender's mail of one priority. The senders of an account take turns, so a bulk sender starves nobody;
within a sender, lower priority numbers go first. The cost of a round is a seek a lane, whatever history, scheduled mail
or paused senders there are.

Of what is half-open (`outbox.core.pause`) one message is claimed, by one of all the runners: of the lane that was tried
longest ago, and of those never tried, of the one with the oldest mail. So a sender whose whole backlog is refused does
not keep the others of its account from showing that theirs is not.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from types import MappingProxyType

from outbox.core.account import Account, Registry, Route
from outbox.core.pause import Subject
from outbox.core.settlement import Claim
from outbox.runner.claiming.gate import Gate
from outbox.runner.registrar import Registrar
from outbox.runner.sending.delivery import Delivery
from outbox.runner.writing.clerk import Clerk
from outbox.runner.writing.request import Claiming
from outbox.store import DeclaredDeadError, Lane, Pick, Store, probes

log = logging.getLogger("outbox.dispatch")

LANES = 10_000
"""Lanes looked at in one round; the next round goes on behind the last sender. A look costs about 3 µs a lane."""

AHEAD = 4
"""How many messages are claimed for each connection: the next ones are at hand when one is done."""

REFUSED_AT_ONCE = 100
"""Mail of unregistered senders needs no connection: so many are refused in one round."""

ALONE = 5.0
"""Seconds for which a suspect has the runner for itself."""

FEW = 8
"""So many messages claimed in a round are no reason to say that we are awake (PostgreSQL)."""

BLOCKED_POLL = 1.0
"""Seconds between looks while something is paused: a pause ends by the clock, or by an operator, without a commit
that we are told of.
"""


STUCK_POLL = 1.0
"""Seconds between looks of a drain: that a result is refused is no end that it hears of."""


def window(places: int) -> int:
    """How many messages of an account with so many connections may be claimed by one runner at the same time."""
    return places * AHEAD


@dataclass(frozen=True, slots=True)
class Allocation:
    """What to claim now, and what stays: `crowded`, something for want of places; `blocked`, something paused;
    `next_due`, the earliest time at which a lane that may send has something. `probes` are picks of one message each,
    with what it tries.
    """

    picks: tuple[Pick, ...] = ()
    probes: tuple[tuple[Pick, tuple[Subject, ...]], ...] = ()
    crowded: bool = False
    blocked: bool = False
    next_due: datetime | None = None


def allocate(
    lanes: Iterable[Lane],
    registry: Registry,
    in_flight: Mapping[str, int],
    turns: Mapping[str, str],
    now: datetime,
    is_closed: Callable[[Route, datetime], bool] = Route.is_closed,
    places: Callable[[Account], int] = lambda account: account.max_connections,
    room: Callable[[Route, datetime], int | None] = lambda route, now: None,
    tried: Mapping[tuple[str, int], int] = MappingProxyType({}),
) -> Allocation:
    """Share the free places of each account equally among its senders with due mail, urgent priorities first.

    `in_flight` and `turns` are by account (``""``: unregistered senders): how many messages are under way, and which
    sender was the last to be given places; the one behind it comes first now. `places` and `room` are those of `Gate`.
    `tried`: lanes that were probed lately, as (sender, priority), with numbers that grow.
    """
    due: dict[str, dict[str, list[Lane]]] = {}
    free: dict[str, int] = {}
    blocked, later = False, []
    half_open: list[tuple[Lane, Route]] = []
    for lane in lanes:
        route = registry.resolve(lane.sender)
        if route is not None and is_closed(route, now):
            blocked = True
        elif lane.due_at > now:
            later.append(lane.due_at)
        elif route is not None and route.half_open(now):
            half_open.append((lane, route))
        else:
            name = "" if route is None else route.account.name
            limit = REFUSED_AT_ONCE if route is None else window(places(route.account))
            free[name] = max(0, limit - in_flight.get(name, 0))
            due.setdefault(name, {}).setdefault(lane.sender, []).append(lane)
    picks: list[Pick] = []
    crowded = False
    for name, senders in due.items():
        last = turns.get(name, "")
        for place, sender in enumerate(sorted(senders, key=lambda each: (each <= last, each))):
            share = -(-free[name] // (len(senders) - place))  # rounded up, so that every place is used
            route = registry.resolve(sender)
            most = None if route is None else room(route, now)
            share = share if most is None else min(share, most)
            free[name] -= share
            crowded |= share == 0
            picks.extend(Pick(sender, lane.priority, share) for lane in senders[sender] if share)
    return Allocation(
        tuple(picks), _probes(half_open, tried, now), crowded, blocked or bool(half_open), min(later, default=None)
    )


def _probes(
    half_open: Iterable[tuple[Lane, Route]], tried: Mapping[tuple[str, int], int], now: datetime
) -> tuple[tuple[Pick, tuple[Subject, ...]], ...]:
    """One message of everything that nobody tries yet."""

    def turn(each: tuple[Lane, Route]) -> tuple[int, datetime]:
        lane, _ = each
        return tried.get((lane.sender, lane.priority), 0), lane.due_at

    chosen, trying = [], set[Subject]()
    for lane, route in sorted(half_open, key=turn):
        subjects = route.half_open(now)
        if not route.is_probed(now) and trying.isdisjoint(subjects):
            trying.update(subjects)
            chosen.append((Pick(lane.sender, lane.priority, 1), subjects))
    return tuple(chosen)


class Dispatch:
    """The loop above. `delivery` begins with every claim, and says when it has ended."""

    def __init__(
        self,
        clerk: Clerk,
        registrar: Registrar,
        runner: Callable[[], str],
        delivery: Delivery,
        gate: Gate,
        *,
        revive: Callable[[], Awaitable[None]],
        poll: timedelta,
        announce: Callable[[bool], Awaitable[None]] | None = None,
    ) -> None:
        """`revive` gives a runner that was declared dead a new id. `announce` says in the database whether we sleep,
        where INSERTs wake those who do (PostgreSQL).
        """
        self._clerk = clerk
        self._registrar = registrar
        self._runner = runner
        self._delivery = delivery
        self._gate = gate
        self._poll = poll.total_seconds()
        self._loop = asyncio.get_running_loop()
        self._bell = asyncio.Event()
        self._cursor = ""
        self._suspect = 0
        self._turns: dict[str, str] = {}
        self._tried: dict[tuple[str, int], int] = {}
        self._tries = count(1)
        self._stopping = False
        self._in_flight: Counter[str] = Counter()
        self._under_way: dict[tuple[int, int], tuple[str, int, float]] = {}  # claim: account, places, loop time
        self._ending: asyncio.Future[None] | None = None
        self._revive = revive
        self._announce = announce
        self._asleep = False
        self.standing = Allocation()
        """What the last round saw and could not claim, over all lanes (without the picks)."""
        self.quiet = asyncio.Event()
        """Set while nothing is under way and the last round found nothing that could go."""
        self.claimed = 0
        """How many messages have been claimed so far."""

    def ring(self) -> None:
        """Look again, soon. Cheap, and never lost: called for new mail, by the schedule, and by finished deliveries."""
        self._bell.set()

    def stop(self) -> None:
        """Claim nothing any more."""
        self._stopping = True
        self._bell.set()

    @property
    def claims(self) -> set[tuple[int, int]]:
        """What is being delivered, as (message_id, claim_no)."""
        return set(self._under_way)

    @property
    def busy(self) -> int:
        """How many messages are under way, but for those that are stuck."""
        return len(self._under_way) - self.stuck

    @property
    def stuck(self) -> int:
        """How many of our claims wait for nothing but the database, which refuses their results, perhaps for ever."""
        return len(self._clerk.refused & self._under_way.keys())

    async def run(self) -> None:
        """Until `stop`."""
        while not self._stopping:
            self._bell.clear()
            before = self.claimed
            try:
                await self.round()
            except DeclaredDeadError:
                await self._revive()
                continue
            if self._bell.is_set():
                continue
            if self._announce is not None and not self._asleep and not self.standing.crowded:
                # Say that we sleep, then look once more: what was committed before that was not announced to us.
                await self._say_asleep(True)
                continue
            if not self.busy and not self.standing.crowded:
                self.quiet.set()
            rung = await self._wait()
            self.quiet.clear()
            if rung and self._asleep and self.claimed - before > FEW:
                # There is much to do, so that INSERTs need not wake us. For a mail alone, two commits more would double
                # its time to the relay.
                await self._say_asleep(False)

    async def _say_asleep(self, asleep: bool) -> None:
        assert self._announce is not None
        await self._announce(asleep)
        self._asleep = asleep

    async def _wait(self) -> bool:
        """Until the bell (True), the next due time, or `poll`, in case a wake-up was lost."""
        seconds = self._poll
        if self.standing.next_due is not None:
            seconds = min(seconds, max(0.001, (self.standing.next_due - self._clerk.now()).total_seconds()))
        if self.standing.blocked:
            seconds = min(seconds, BLOCKED_POLL)
        try:
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        except TimeoutError:
            return False
        return True

    async def round(self) -> None:
        """Claim what can go now. `standing` then says what stays, and why."""
        await self._registrar.refresh()
        if not self._gate.is_open:
            self.standing = Allocation(blocked=True)
            return
        now = self._clerk.now()
        lanes, suspects = await self._clerk.look(partial(_look, self._cursor, self._suspect, now))
        # The registry of now, not of before the look: what came back to the queue for a pause must meet that pause.
        registry, gate = self._registrar.registry, self._gate
        closed, places, room = gate.is_closed, gate.places, gate.room
        seen = allocate(lanes, registry, self._in_flight, self._turns, now, closed, places, room, self._tried)
        if seen.picks and await self._claim(seen.picks):
            seen = replace(seen, crowded=True)
        if not seen.blocked:
            self._tried.clear()
        if seen.probes:
            self._tried.update({(pick.sender, pick.priority): next(self._tries) for pick, _ in seen.probes})
            await self._probe(partial(_claim_probes, self._runner(), seen.probes))
        self.standing = replace(seen, picks=(), probes=())
        self._cursor = behind(lanes) if len(lanes) == LANES else ""
        if self._cursor:
            self._bell.set()  # there are more lanes than one look takes
        await self._send_alone(suspects)

    async def _claim(self, picks: Sequence[Pick]) -> bool:
        """Claim and begin to deliver. Whether a sender gave all that was asked of it, so that there may be more."""
        verb = partial(_claim_lanes, self._runner(), picks)
        claims = await self._clerk.claim(Claiming(verb, self._account_of))
        for claim in claims:
            self._begin(claim)
        taken = Counter(each.sender for each in claims)
        for pick in picks:
            self._turns[self._account_of(pick.sender)] = pick.sender
        return any(taken[pick.sender] >= pick.count for pick in picks)

    async def _probe(self, claim: Callable[[Store, datetime], list[Claim]]) -> None:
        """Claim what is to be tried, and see it, and what others try, in the registry."""
        for each in await self._clerk.claim(claim):
            self._begin(each)
        await self._registrar.refresh(force=True)

    def _account_of(self, sender: str) -> str:
        route = self._registrar.registry.resolve(sender)
        return "" if route is None else route.account.name

    async def _send_alone(self, suspects: Sequence[Claim]) -> None:
        """A message whose last attempt ended with the death of its runner begins while no other does, so that, should
        it be the cause, it takes few with it. One a round, for the others' sake; and since what ends a process does so
        at once, nothing that has been under way for a while is waited for.
        """
        self._suspect = 0
        for suspect in suspects:
            self._suspect = suspect.message_id
            route, now = self._registrar.registry.resolve(suspect.sender), self._clerk.now()
            if route is not None and self._gate.is_closed(route, now):
                continue
            subjects = route.half_open(now) if route is not None else ()
            if route is not None and subjects and route.is_probed(now):
                continue
            self._bell.set()  # the next one, or whatever else has come meanwhile
            await self._settle_down()
            if not self._stopping:
                await self._probe(partial(_claim_one, self._runner(), suspect.message_id, subjects))
                await self._settle_down()
            return
        if self._suspect:
            self._bell.set()  # there may be more behind those that are paused

    async def _settle_down(self) -> None:
        """Until every delivery under way has ended, or has gone on for a while."""
        loop = self._loop
        while young := [began for _, _, began in self._under_way.values() if loop.time() - began < ALONE]:
            await self._one_ends(max(0.001, min(young) + ALONE - loop.time()))

    async def _one_ends(self, seconds: float) -> None:
        """Until a delivery ends, for at most so long."""
        if self._ending is None:
            self._ending = self._loop.create_future()
        await asyncio.wait({self._ending}, timeout=seconds)

    def _begin(self, claim: Claim) -> None:
        route = self._registrar.registry.resolve(claim.sender)
        name, places = ("", 1) if route is None else (route.account.name, route.account.max_connections)
        self.claimed += 1
        self._in_flight[name] += 1
        self._under_way[claim.message_id, claim.claim_no] = name, places, self._loop.time()
        self._delivery.begin(claim, self._ended)

    def _ended(self, claim: Claim) -> None:
        key = (claim.message_id, claim.claim_no)
        if key not in self._under_way:
            return
        name, places, _ = self._under_way.pop(key)
        self._in_flight[name] -= 1
        if self._ending is not None:
            self._ending.set_result(None)
            self._ending = None
        # Half of them are refilled at a time: a claim for every one of them would be a commit each.
        if self._in_flight[name] <= places * AHEAD // 2:
            self._bell.set()

    async def drain(self) -> None:
        """Wait for the deliveries under way."""
        while self.busy:
            await self._one_ends(STUCK_POLL)


def behind(lanes: Sequence[Lane]) -> str:
    """The sender to go on behind: the last one whose lanes were all seen. A sender has ten lanes at most."""
    last = lanes[-1].sender
    complete = [lane.sender for lane in lanes if lane.sender != last]
    return complete[-1] if complete else last


def _look(cursor: str, suspect: int, now: datetime, store: Store) -> tuple[list[Lane], list[Claim]]:
    return store.look(cursor, LANES, suspect, now)


def _claim_lanes(runner: str, picks: Sequence[Pick], store: Store, now: datetime) -> list[Claim]:
    return store.claim(runner, picks, now)


def _claim_probes(
    runner: str, wanted: Sequence[tuple[Pick, tuple[Subject, ...]]], store: Store, now: datetime
) -> list[Claim]:
    """Each with its probe, in one transaction: who gets no message tries nothing."""
    claims = []
    for pick, subjects in wanted:
        claims += _claim_probe(subjects, store, now, partial(store.claim, runner, (pick,), now))
    return claims


def _claim_one(runner: str, message_id: int, subjects: tuple[Subject, ...], store: Store, now: datetime) -> list[Claim]:
    claim = partial(store.claim_one, runner, message_id, now)
    return _claim_probe(subjects, store, now, claim) if subjects else claim()


def _claim_probe(
    subjects: tuple[Subject, ...], store: Store, now: datetime, claim: Callable[[], list[Claim]]
) -> list[Claim]:
    probe = probes.take(store.db, subjects, now)
    if probe is None:
        return []
    claims = claim()
    if not claims:
        probes.release(store.db, probe)
    return [replace(each, probe=probe) for each in claims]
