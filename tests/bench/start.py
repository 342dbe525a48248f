"""How long a start takes: what an application imports, what a person types, a runner up to its first mail."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from subprocess import DEVNULL

from tests.bench.content import SHOP
from tests.bench.figures import Bench, Figure, Unmeasurable, at_most
from tests.bench.ground import Ground, Sink, fresh, instant
from tests.bench.process import ROOT, python

TOPIC = "start"
BARE = [sys.executable, "-c", "pass"]
IMPORT = [sys.executable, "-c", "from outbox import Attachment, Mail, aenqueue, enqueue, enqueue_many"]
TYPED = ("list", "show 1", "stats", "doctor", "account list", f"enqueue --from {SHOP} --to ann@example.net --text x")
"""Besides --help. No relay is asked by any of them."""

MS = 1000


@dataclass(slots=True)
class Best:
    """The least of some runs, in milliseconds: a busy machine only ever adds to them."""

    wall: float = float("inf")
    cpu: float = float("inf")

    def take(self, wall: float, cpu: float) -> None:
        self.wall, self.cpu = min(self.wall, wall * MS), min(self.cpu, cpu * MS)


def measure(bench: Bench) -> Iterator[Figure]:
    rounds = bench.size(12, 2)
    with fresh(bench, "sqlite") as ground, Sink(bench) as sink:
        ground.register(sink.port)
        ground.fill(20)
        commands = [BARE, IMPORT, python("outbox", "--help"), *(python("outbox", *each.split()) for each in TYPED)]
        bare, imported, helped, *typed = times(ground, commands, rounds)
        yield from of_python(bare, imported, helped)
        for command, best in zip(TYPED, typed, strict=True):
            name = f"outbox {command.partition(' --')[0]}"
            yield Figure(TOPIC, name, best.wall, "ms", note=f"CPU {best.cpu:.0f} ms, {best.cpu / bare.cpu:.0f} × bare")
    for kind in ("sqlite", "postgres"):
        try:
            yield first_claim(bench, kind, bare, bench.size(8, 1))
        except Unmeasurable as why:
            bench.say(str(why))


def of_python(bare: Best, imported: Best, helped: Best) -> Iterator[Figure]:
    note = f"CPU; bare Python takes {bare.cpu:.0f} ms"
    yield Figure(TOPIC, "import outbox, to bare Python", imported.cpu / bare.cpu, "×", note=note)
    yield Figure(TOPIC, "outbox --help, to bare Python", helped.cpu / bare.cpu, "×", note=note)
    yield at_most(TOPIC, "import outbox over bare Python", imported.wall - bare.wall, "ms", 40)
    yield at_most(TOPIC, "outbox --help", helped.wall, "ms", 150, f"CPU {helped.cpu:.0f} ms")


def times(ground: Ground, commands: Sequence[Sequence[str]], rounds: int) -> list[Best]:
    """The least of each. All are started in turn, so that they share what the machine does meanwhile."""
    best = [Best() for _ in commands]
    for _ in range(rounds + 1):
        for command, least in zip(commands, best, strict=True):
            least.take(*time_of(command, ground))
    return best


def time_of(command: Sequence[str], ground: Ground) -> tuple[float, float]:
    """Seconds from start to end, and of CPU. `outbox doctor` may end with 1: it finds that there is no key."""
    if not hasattr(os, "wait4"):
        raise Unmeasurable("this system does not tell what a process has used (os.wait4)")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OUTBOX_DATABASE": ground.url}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the least is that of compiled modules
    began = time.perf_counter()
    started = subprocess.Popen(command, cwd=ground.folder, env=environment, stdout=DEVNULL, stderr=DEVNULL)
    _, status, used = os.wait4(started.pid, 0)
    seconds = time.perf_counter() - began
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(command)} ended with status {started.returncode}")
    return seconds, used.ru_utime + used.ru_stime


def first_claim(bench: Bench, kind: str, bare: Best, rounds: int) -> Figure:
    """From the start of `outbox run` until it claims a mail that is due, by the database."""
    best = Best()
    with fresh(bench, kind) as ground, Sink(bench) as sink:
        ground.register(sink.port)
        for number in range(rounds):
            ground.fill(1, first=number)
            began = time.time()
            with ground.runner("--until-empty") as runner:
                cpu = runner.wait().cpu
            (claimed,) = ground.query("SELECT max(started_at) FROM outbox_attempt")[0]
            best.take(instant(claimed).timestamp() - began, cpu)
    note = f"CPU of it all, with its end: {best.cpu:.0f} ms, {best.cpu / bare.cpu:.0f} × bare"
    return Figure(TOPIC, f"start to first claim on {kind}", best.wall, "ms", note=note)
