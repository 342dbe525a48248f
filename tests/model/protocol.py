"""What can happen next: the steps of two runners and a relay, each a verb of the store in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache, partial
from typing import Any, NamedTuple

from outbox.core.message import Recipient
from outbox.core.outcome import Report, Stage
from outbox.core.policy import Policy
from outbox.core.reply import Reply
from outbox.core.settlement import Attempt, Claim, Settlement, Trial, decide, fates_of, relinquish
from outbox.store import Mark, Pick, runners
from outbox.store.sqlite import SqliteStore
from tests.model.reading import Database

NOW = datetime(2099, 1, 1, 12, tzinfo=UTC)
"""Virtual, and always the same: whatever is due again is due at once, and who is overdue is a step like any other."""

SHOP = "shop@example.com"
MESSAGES = (1, 2)
ON_DOUBT = {1: "retry", 2: "hold"}
MAX_DOUBTS = 3

_ANN = Recipient(0, "ann@example.net", "to")
_LEASE = timedelta(minutes=1)
_SOON = Policy(floor=timedelta(0), ceiling=timedelta(0), doubt_delay=timedelta(0), max_doubts=MAX_DOUBTS)


class Phase(Enum):
    """How far a runner has come with a message that it holds."""

    CLAIMED = "claimed"
    MARKED = "marked"
    DELAYED = "refused before its dot"
    ACCEPTED = "accepted"
    REFUSED = "refused after its dot"
    SILENT = "without an answer to its dot"


class Heard(NamedTuple):
    """What the relay has made of a dot: whether it has accepted the mail, and what the runner comes to know."""

    accepted: bool
    phase: Phase


ANSWERS = (
    Heard(True, Phase.ACCEPTED),
    Heard(True, Phase.SILENT),
    Heard(False, Phase.REFUSED),
    Heard(False, Phase.SILENT),
)


class Held(NamedTuple):
    """A message in the memory of a runner."""

    claim: Claim
    phase: Phase


class Process(NamedTuple):
    """A runner's memory; no id: it does not run. `seen` is only for the variant that reads, and then writes."""

    id: str
    held: tuple[Held, ...] = ()
    seen: tuple[Any, ...] = ()


class World(NamedTuple):
    """Everything outside the database. `exposed` and `copies`, by message: dots that were not refused, and dots that
    were accepted. `claimed`: how often; `born`, `buried`: how many runners; `unheard`: COMMITs without acknowledgement.
    """

    processes: tuple[Process, Process]
    exposed: tuple[int, int] = (0, 0)
    copies: tuple[int, int] = (0, 0)
    claimed: int = 0
    born: int = 0
    buried: int = 0
    unheard: int = 0

    def __hash__(self) -> int:
        """Which of the two processes is the first one does not matter."""
        first, second = sorted(self.processes, key=lambda each: each.id)
        return hash((first, second, *self[1:]))


@dataclass(frozen=True, slots=True)
class Bounds:
    """How often messages are claimed in all, how many runners are born, how many are declared dead, and how many
    COMMITs are not acknowledged.
    """

    claims: int = 3
    born: int = 3
    buried: int = 2
    unheard: int = 1


class Step(NamedTuple):
    """What it is called, and what does it: the world after it, or None where there is nothing to do or it goes too far.
    `writes`: to the database.
    """

    name: str
    take: Callable[[], World | None]
    writes: bool = True


class Protocol:
    """The steps, as production takes them. What `database` (the rows before the step) shows to be without effect is not
    tried.
    """

    dots_without_mark = False
    heeds_marks = True

    def __init__(self, store: SqliteStore, bounds: Bounds) -> None:
        self.store, self.bounds = store, bounds

    # -- what can happen

    def steps(self, world: World, database: Database) -> Iterator[Step]:
        for which, process in enumerate(world.processes):
            if process.id:
                yield from self._steps_of(world, database, which, process)
            elif world.born < self.bounds.born:
                yield Step(f"{which} starts", partial(self._start, world, which))

    def _steps_of(self, world: World, database: Database, which: int, process: Process) -> Iterator[Step]:
        who = f"{which} ({process.id})"
        yield Step(f"{who} is killed", lambda: _with(world, which, Process("")), writes=False)
        if process.id in database.dead:
            if world.born < self.bounds.born:
                yield Step(f"{who} finds itself declared dead", lambda: self._revive(world, which))
        else:
            yield from self._claims_of(world, database, which, who)
        if world.buried < self.bounds.buried and database.living - {process.id}:
            yield Step(f"{who} declares the other dead", lambda: self._bury(world, which))
        if any(each.owner == process.id for each in database.deliveries):
            yield Step(f"{who} takes back its own strays", lambda: self._take_back_strays(world, which))
        yield from self._reclaims_of(world, database, which, who)
        for held in process.held:
            yield from self._steps_with(world, which, held, f"{who}, message {held.claim.message_id}:")

    def _claims_of(self, world: World, database: Database, which: int, who: str) -> Iterator[Step]:
        left = self.bounds.claims - world.claimed
        waiting = [each.crashes for each in database.deliveries if each.state == "queued"]
        if not left or not waiting:
            return
        if fresh := waiting.count(0):
            yield Step(f"{who} claims one", lambda: self._claim(world, which, 1))
            if world.unheard < self.bounds.unheard:
                yield Step(f"{who} claims one, unheard", lambda: self._claim(world, which, 1, learns=False))
        if fresh == 2 and left > 1:
            yield Step(f"{who} claims two", lambda: self._claim(world, which, 2))
        if fresh < len(waiting):
            yield Step(f"{who} claims a suspect", lambda: self._claim_suspect(world, which))

    def _reclaims_of(self, world: World, database: Database, which: int, who: str) -> Iterator[Step]:
        if any(each.owner in database.dead for each in database.deliveries):
            yield Step(f"{who} reclaims", lambda: self._reclaim(world))

    def _steps_with(self, world: World, which: int, held: Held, what: str) -> Iterator[Step]:
        unheard = world.unheard < self.bounds.unheard
        if held.phase is Phase.CLAIMED:
            if not self.dots_without_mark:
                yield Step(f"{what} mark", lambda: self._mark(world, which, held))
                if unheard:
                    yield Step(f"{what} mark, unheard", lambda: self._mark(world, which, held, learns=False))
            delayed = f"{what} refused before the dot"
            yield Step(delayed, lambda: _phase(world, which, held, Phase.DELAYED), writes=False)
            yield Step(f"{what} given back", lambda: self._settle(world, which, held, give_back=True))
        if held.phase is (Phase.CLAIMED if self.dots_without_mark else Phase.MARKED):
            for heard in ANSWERS:
                words = f"{what} dot, {'accepted' if heard.accepted else 'not accepted'}; {heard.phase.value}"
                yield Step(words, partial(self._dot, world, which, held, heard), writes=False)
        if held.phase not in (Phase.CLAIMED, Phase.MARKED):
            yield Step(f"{what} settle", lambda: self._settle(world, which, held))
            if unheard:
                yield Step(f"{what} settle, unheard", lambda: self._settle(world, which, held, learns=False))

    # -- who lives

    def _start(self, world: World, which: int) -> World:
        name = f"runner{world.born + 1}"
        runners.register(self.store, name, host="web1", pid=1, version="0", now=NOW, lease=_LEASE)
        return _with(world, which, Process(name))._replace(born=world.born + 1)

    def _revive(self, world: World, which: int) -> World:
        """It goes on under a new id, with what it remembers."""
        process = world.processes[which]
        assert not runners.renew(self.store, process.id, NOW, _LEASE)
        again = self._start(world, which)
        return _with(again, which, again.processes[which]._replace(held=process.held))

    def _bury(self, world: World, which: int) -> World:
        """Whether the other is dead, or frozen, or only slow: its lease is over."""
        mine = world.processes[which].id
        other = next(each for each in runners.leases(self.store) if each != mine)
        runners.bury(self.store, [other], NOW)
        return world._replace(buried=world.buried + 1)

    # -- claiming

    def _claim(self, world: World, which: int, count: int, *, learns: bool = True) -> World:
        claims = self.store.claim(world.processes[which].id, [Pick(SHOP, 5, count)], NOW)
        return self._claimed(world, which, claims, learns=learns)

    def _claim_suspect(self, world: World, which: int) -> World:
        suspect = self.store.suspects(0, NOW)[0].message_id
        return self._claimed(world, which, self.store.claim_one(world.processes[which].id, suspect, NOW))

    def _claimed(self, world: World, which: int, claims: list[Claim], *, learns: bool = True) -> World:
        process = world.processes[which]
        known = tuple(Held(each, Phase.CLAIMED) for each in claims) if learns else ()
        after = _with(world, which, process._replace(held=_sorted((*process.held, *known))))
        return after._replace(claimed=world.claimed + len(claims), unheard=world.unheard + (not learns))

    # -- sending

    def _mark(self, world: World, which: int, held: Held, *, learns: bool = True) -> World:
        (granted,) = self.store.mark([Mark(held.claim.message_id, held.claim.claim_no)], NOW)
        if not learns:
            return world._replace(unheard=world.unheard + 1)  # it will ask again
        return _phase(world, which, held, Phase.MARKED if granted or not self.heeds_marks else None)

    def _dot(self, world: World, which: int, held: Held, heard: Heard) -> World:
        at = held.claim.message_id - 1
        after = _phase(world, which, held, heard.phase)
        exposed = _plus(world.exposed, at, heard.phase is not Phase.REFUSED)
        return after._replace(exposed=exposed, copies=_plus(world.copies, at, heard.accepted))

    def _settle(self, world: World, which: int, held: Held, *, learns: bool = True, give_back: bool = False) -> World:
        settlement = relinquish(held.claim) if give_back else settlement_of(held.claim, held.phase)
        self.store.settle([settlement], NOW)
        return _phase(world, which, held, None) if learns else world._replace(unheard=world.unheard + 1)

    # -- taking back

    def _reclaim(self, world: World) -> World:
        self.store.reclaim(MAX_DOUBTS, NOW)
        return world

    def _take_back_strays(self, world: World, which: int) -> World | None:
        process = world.processes[which]
        known = {(each.claim.message_id, each.claim.claim_no) for each in process.held}
        strays = [each for each in self.store.my_claims(process.id) if each not in known]
        for message_id, claim_no in strays:
            self.store.reclaim_stray(message_id, claim_no, MAX_DOUBTS, NOW)
        return world if strays else None


@lru_cache(maxsize=4096)
def settlement_of(claim: Claim, phase: Phase) -> Settlement:
    """What the policy makes of it."""
    replies = {Phase.ACCEPTED: Reply(250, "2.0.0", "queued"), Phase.REFUSED: Reply(451, "4.3.0", "not now")}
    if phase is Phase.DELAYED:
        report = Report(Stage.MAIL, Reply(451, "4.3.0", "not now"))
    else:
        report = Report(Stage.DOT, replies.get(phase), "" if phase in replies else "no reply", dotted=True)
    attempt = Attempt(claim, fates_of(Trial((_ANN,), report)))
    decided = decide(attempt, _SOON, NOW, 0.0)
    return replace(decided, pause=None, due_at=decided.due_at and NOW, dot_at=NOW if report.dotted else None)


def _with(world: World, which: int, process: Process) -> World:
    first, second = world.processes
    return world._replace(processes=(process, second) if which == 0 else (first, process))


def _phase(world: World, which: int, held: Held, phase: Phase | None) -> World:
    """The runner has come further with this message; None: it is done with it."""
    process = world.processes[which]
    rest = tuple(each for each in process.held if each != held)
    now = (*rest, held._replace(phase=phase)) if phase is not None else rest
    return _with(world, which, process._replace(held=_sorted(now)))


def _sorted(held: tuple[Held, ...]) -> tuple[Held, ...]:
    return tuple(sorted(held, key=lambda each: (each.claim.message_id, each.claim.claim_no)))


def _plus(numbers: tuple[int, int], at: int, more: bool) -> tuple[int, int]:
    first, second = numbers
    return (first + more, second) if at == 0 else (first, second + more)
