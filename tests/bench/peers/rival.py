"""A peer: what it is, how its queue is filled, and how fast it is emptied."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import Bench
from tests.bench.ground import Sink, empty_postgres
from tests.bench.peers.environment import environment
from tests.bench.process import Process

FOREIGN = "tests.bench.foreign"
LONGEST = 300.0
"""Seconds after which a peer that has not sent everything is given up."""


@dataclass(frozen=True)
class Peer:
    """`settings` says, for people, what was set; `packages` is what pip installs, the first naming the peer. `program`
    is a module of `foreign`, called with ``fill`` and then, in each of `processes` processes, with ``send``; or
    `sender` is called instead of that: a program of its environment with arguments.
    """

    name: str
    settings: str
    packages: tuple[str, ...]
    program: str
    tuned: bool = False
    processes: int = 1
    sender: tuple[str, ...] = ()
    on_postgres: bool = False

    @property
    def version(self) -> str:
        return self.packages[0].replace("==", " ")

    def rate(self, bench: Bench, sink: Sink, count: int) -> float:
        """Mails a second, from the first that the sink has taken to the last."""
        programs = environment(bench, self.packages)
        with ExitStack() as stack:
            folder = stack.enter_context(own_folder(bench, self.program))
            given = {"BENCH_PORT": str(sink.port), "BENCH_FOLDER": str(folder), "BENCH_COUNT": str(count)}
            given["BENCH_TUNED"] = "1" if self.tuned else ""
            if self.on_postgres:
                given["BENCH_POSTGRES"] = stack.enter_context(empty_postgres(bench))
            module: list[str | Path] = [programs / "python", "-m", f"{FOREIGN}.{self.program}"]
            bench.say(f"{count:,} mails by {self.name}")
            with Process([*module, "fill"], folder, environment=given) as filling:
                filling.wait()
            sending = [*module, "send"]
            if self.sender:
                sending = [programs / self.sender[0], *self.sender[1:]]
            sent = Watch(sink, count)
            senders = [stack.enter_context(Process(sending, folder, environment=given)) for _ in range(self.processes)]
            return sent.rate(senders)


class Watch:
    """Looks at what a sink has taken since this was made."""

    def __init__(self, sink: Sink, count: int) -> None:
        self._sink = sink
        self._count = count
        self._before = sink.taken

    def rate(self, senders: list[Process]) -> float:
        """Mails a second from the first to the last of them; waits for that. RuntimeError when they stop short."""
        deadline = time.monotonic() + LONGEST
        first = 0.0
        while True:
            taken = self._sink.taken - self._before
            now = time.monotonic()
            first = first or (now if taken else 0.0)
            if taken >= self._count:
                return self._count / (now - first)
            ended = bool(senders) and all(each.status is not None for each in senders)
            if now > deadline or (ended and self._sink.taken - self._before < self._count):
                said = "\n".join(each.output[-2000:] for each in senders)
                raise RuntimeError(f"only {taken} of {self._count} mails were sent: {said}")
            time.sleep(0.005)


@contextmanager
def own_folder(bench: Bench, name: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=bench.folder))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
