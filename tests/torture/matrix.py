"""Every point between two durable steps × kill -9 and SIGSTOP past the lease × retry and hold × SQLite and PostgreSQL.

A cell is a database, a relay, two mails of a policy, and a runner that dies, or stands still, by itself at its point.
After a death another runner does the rest. While one stands still, another declares it dead and does the rest; then it
comes back. In the end nothing may be left to do, and the invariants of `tests.reconcile` must hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import peewee

from tests.bench.figures import Figure, Unmeasurable
from tests.reconcile import SHOWN, Journal, broken
from tests.relay import Relay
from tests.running import Site, eventually
from tests.torture import secure
from tests.torture.cruelty import Cruelty, none_of
from tests.torture.lives import Life, Zygote
from tests.torture.places import Places
from tests.torture.points import STORIES, Cell, cells, relay_of

TOPIC = "matrix"
KINDS = ("sqlite", "postgres")
ACTS = ("kill", "stop")
LEASE = 1.0
SETTINGS = {
    "run_lease": f"{LEASE:g}s",
    "run_renew": "300ms",
    "run_grace": "5s",
    "retry_floor": "20ms",
    "retry_doubt_delay": "20ms",
}
TO_THE_END = ("--until-empty", "--wait", "20s")
AT_ONCE = 6
EVE = "eve@example.net"
PATIENCE = 30.0
"""Seconds; how quick it is, is not asked here."""


@dataclass
class Verdict:
    """What became of a cell: what is `wrong` with it, in words, and how often its relay has accepted."""

    cell: Cell
    wrong: list[str] = field(default_factory=list)
    accepted: int = 0


class Stage:
    """What a cell plays on."""

    def __init__(self, cell: Cell, site: Site, relay: Relay, zygote: Zygote) -> None:
        self.cell, self.story, self.site, self.relay, self.zygote = cell, cell.story, site, relay, zygote
        self.settings = {**SETTINGS, **cell.story.settings}
        self.lives: list[Life] = []
        self.wrong: list[str] = []
        self.committed: set[int] = set()
        self.trace = site.folder / "trace"

    def life(self, *arguments: str, **point: object) -> Life:
        made = self.zygote.runner(
            self.site.url, *arguments, folder=self.site.folder, settings=self.settings, point=point
        )
        self.lives.append(made)
        return made

    def prepare(self) -> None:
        """Commits the mails. Others are rolled back."""
        site, story, cell = self.site, self.story, self.cell
        if story.tls:
            self.settings |= secure.register(site, self.relay.port, login=story.tls == "login")
        else:
            site.register(self.relay.port)
        with site.db.atomic() as transaction:
            site.insert(2, recipients="ghost@example.net")
            transaction.rollback()
        with site.db.atomic():
            policies = cell.policies
            self.committed = {
                site.insert_one(**mail, on_doubt=policies[place % len(policies)])
                for place, mail in enumerate(story.mails)
            }
        if story.died:
            options = (
                {"deaf": story.died, "trace": str(self.trace)}
                if story.died_deaf
                else {"name": story.died, "act": "kill"}
            )
            before = self.life(**options)
            if story.died_deaf:
                self.hurry(before)
            before.wait()
        story.prepare(site)

    def hurry(self, life: Life) -> None:
        """It may not wait for a database that does not answer."""
        eventually(lambda: self.trace.exists() and "heard.dot" in self.trace.read_text(), "it has its answer")
        life.stop()
        eventually(lambda: "stopping" in life.output, "it has heard of it")
        life.stop()

    def victim(self) -> Life:
        """A life that comes to its point."""
        name, turn = self.cell.point
        story = self.story
        arguments = TO_THE_END if story.ends else ()
        traced = {"trace": str(self.trace)} if story.stops else {}
        victim = self.life(*arguments, name=name, turn=turn, act=self.cell.act, **story.options, **traced)
        if story.stops:
            self.hurry(victim)
        with suppress(TimeoutError):
            victim.until(seconds=PATIENCE)
        if victim.lives != (self.cell.act == "stop") or (not victim.lives and victim.status != -9):
            self.wrong.append(f"it did not come to its point: {victim.output[-1500:]}")
        return victim

    def survive(self) -> None:
        """Another runner does the rest."""
        self.story.afterwards(self.site)
        status = self.life(*TO_THE_END).wait()
        if status != 0:
            self.wrong.append(f"the survivor ended with status {status}")

    def take_over(self, victim: Life) -> None:
        """Another runner declares it dead and goes on; then it comes back, and both come to their end."""
        since = time.monotonic()
        before = set(self.site.runners())
        survivor = self.life()
        locked = self.cell.kind == "sqlite" and self._holds_the_lock()
        if locked or self.is_inside:
            eventually(lambda: time.monotonic() > since + LEASE + 0.1, "its lease is over")
            if not locked and self.story.ends and not self.story.alone:
                self.others_go_on()
        else:
            eventually(
                lambda: self._are_dead(before) or (time.monotonic() > since + 3 * LEASE and self._lock_rows(before)),
                "the survivor declares it dead",
                PATIENCE,
            )
        victim.resume()
        self.story.afterwards(self.site)
        if not self.story.ends and not self.story.stops:  # who has had two SIGTERMs ends by himself
            eventually(self._at_rest, "everything is done")
            victim.stop()
        elif locked:
            victim.until(ended=True)
        if victim.wait() != 0:
            self.wrong.append(f"it came back, and ended with status {victim.status}")
        eventually(self._at_rest, "everything is done")
        survivor.stop()
        if survivor.wait() not in (0, -15):
            self.wrong.append(f"the survivor ended with status {survivor.status}")

    @property
    def is_inside(self) -> bool:
        """Whether it stands still in the middle of a transaction: then it keeps what it has locked, and only that."""
        return self.cell.point[0].endswith((".begun", ".written"))

    def others_go_on(self) -> None:
        self.committed.add(self.site.insert_one(recipients=EVE))
        arrived = lambda: any(EVE in each.recipients for each in self.relay.messages)  # noqa: E731
        eventually(arrived, "the others go on", PATIENCE)

    def _holds_the_lock(self) -> bool:
        """Whether somebody stands still in the middle of a transaction (SQLite)."""
        self.site.query("PRAGMA busy_timeout = 200")
        try:
            with self.site.db.atomic("IMMEDIATE"):
                return False
        except peewee.OperationalError:
            return True
        finally:
            self.site.query("PRAGMA busy_timeout = 30000")

    def _are_dead(self, before: set[str]) -> bool:
        """Of those that were there before, nobody is left; somebody else is there."""
        living = set(self.site.runners())
        return bool(living) and not living & before

    def _lock_rows(self, before: set[str]) -> bool:
        """Whether they stand still in the middle of a transaction with their own rows in it: their clerks may have
        been anywhere when they were stopped. Nobody can say of these that they are dead.
        """
        if self.cell.kind == "sqlite":
            return False
        free = self.site.query("SELECT id FROM outbox_runner WHERE dead_at IS NULL FOR UPDATE SKIP LOCKED")
        return bool((set(self.site.runners()) & before) - {row[0] for row in free})

    def _at_rest(self) -> bool:
        return not self.site.states().keys() & {"queued", "sending"}


def play(cell: Cell, places: Places, zygote: Zygote) -> Verdict:
    """One cell."""
    verdict = Verdict(cell)
    options = secure.relay_options(login=cell.story.tls == "login") if cell.story.tls else {}
    with places.fresh(cell.kind) as site, relay_of(cell.story, **options) as relay:
        stage = Stage(cell, site, relay, zygote)
        try:
            stage.prepare()
            victim = stage.victim()
            if not stage.wrong:
                stage.survive() if cell.act == "kill" else stage.take_over(victim)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this cell's, and the others go on
            stage.wrong.append(f"{type(error).__name__}: {error}")
        else:
            _judge(stage)
        finally:
            for life in stage.lives:
                life.resume()
                life.kill()
        verdict.wrong, verdict.accepted = stage.wrong, len(relay.messages)
        if verdict.wrong:
            verdict.wrong += [f"--- {life.output[-1500:]}" for life in stage.lives]
    return verdict


def _judge(stage: Stage) -> None:
    journal = Journal(stage.relay.messages)
    found = broken(stage.site.query, journal, stage.cell.kind, committed=stage.committed, at_rest=True)
    stage.wrong += [f"{name} does not hold: {what[:SHOWN]}" for name, what in found.items()]
    if not stage._at_rest():
        stage.wrong.append(f"something is left to do: {stage.site.states()}")
    unlucky = "SELECT message_id FROM outbox_delivery WHERE state = 'held' AND (on_doubt = 'retry' OR doubts = 0)"
    stage.wrong += [f"held without a doubt, or against its policy: {row}" for row in stage.site.query(unlucky)]
    stage.wrong += ["a traceback" for life in stage.lives if "Traceback" in life.output]


def played(wanted: Sequence[Cell], places: Places, zygote: Zygote, at_once: int = AT_ONCE) -> Iterator[Verdict]:
    """Each of them; several at the same time, for most of the time they wait."""
    with ThreadPoolExecutor(at_once, thread_name_prefix="cell") as pool:
        yield from pool.map(lambda cell: play(cell, places, zygote), wanted)


def measure(cruelty: Cruelty) -> Iterator[Figure]:
    for kind in KINDS:
        for act in ACTS:
            try:
                yield from _measured(cruelty, kind, act)
            except Unmeasurable as why:
                cruelty.say(f"{kind} IS LEFT OUT: {why}")


def _measured(cruelty: Cruelty, kind: str, act: str) -> Iterator[Figure]:
    wanted = cells(kind, act)[:: 10 if cruelty.quick else 1]
    began = time.monotonic()
    with Places(cruelty.folder, cruelty.postgres) as places, Zygote(cruelty.folder) as zygote:
        verdicts = list(told(played(wanted, places, zygote), cruelty.say))
    wrong = sum(bool(each.wrong) for each in verdicts)
    points = len({(each.cell.story.name, each.cell.point) for each in verdicts})
    how = {"kill": "kill -9", "stop": "SIGSTOP past the lease"}[act]
    note = f"{len(verdicts)} cells at {points} points of {len(STORIES)} stories, {time.monotonic() - began:.0f} s"
    yield none_of(TOPIC, f"violations of I1–I10, {how}, {_NAMES[kind]}", wrong, note)


def told(verdicts: Iterable[Verdict], say: Callable[[str], None]) -> Iterator[Verdict]:
    """The same; what is wrong is said at once."""
    for place, each in enumerate(verdicts, 1):
        if each.wrong:
            say(f"VIOLATION in {each.cell}: " + "\n  ".join(each.wrong))
        if place % 100 == 0:
            say(f"{place} cells")
        yield each


_NAMES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
