"""How long after its commit a mail has been accepted by the relay while the runner idles, and what idling costs."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue

from outbox import Mail, enqueue
from tests.bench.content import SHOP, TEXT, recipient, subject
from tests.bench.figures import Bench, Figure, at_most
from tests.bench.ground import Ground, fresh
from tests.bench.process import Process
from tests.bench.relay import Relay, Session

TOPIC = "latency"
PATIENCE = 10.0
"""Seconds after which a mail counts as lost."""

SETTLED = 3.0
"""Seconds after its start, or after the last mail, from which on a runner counts as idle."""

AIMS = {"sqlite": (15.0, 35.0), "postgres": (5.0, 35.0)}
"""Milliseconds, p50 and p99, of a mail by plain SQL."""


class Ear:
    """A relay in a thread of this process, whose clock is that of whoever commits: when each mail was accepted."""

    def __init__(self) -> None:
        self.port = 0
        self._accepted: SimpleQueue[float] = SimpleQueue()
        self._listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def __enter__(self) -> Ear:
        self._thread.start()
        self._listening.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE)
        self._loop.close()

    def hear(self) -> float:
        """When the next mail was accepted, by time.perf_counter. Raises RuntimeError when none is."""
        try:
            return self._accepted.get(timeout=PATIENCE)
        except Empty:
            raise RuntimeError(f"no mail came within {PATIENCE:g} s") from None

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        relay = Timed(self._accepted)
        server = await self._loop.create_server(lambda: Session(relay), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._over.wait()
        server.close()


class Timed(Relay):
    """Says when."""

    def __init__(self, accepted: SimpleQueue[float]) -> None:
        super().__init__(0)
        self._accepted = accepted

    def take(self, transport: asyncio.Transport) -> None:
        super().take(transport)
        self._accepted.put(time.perf_counter())


def measure(bench: Bench) -> Iterator[Figure]:
    for kind in ("sqlite", "postgres"):
        if kind == "postgres" and bench.postgres is None:
            return
        bench.say(f"single mails to an idle runner over {kind}")
        with Ear() as ear, fresh(bench, kind) as ground:
            ground.register(ear.port)
            ground.settle_down()
            with ground.runner() as runner:
                awake(ground, ear, runner)
                yield from waits(bench, ground, ear)
                yield idle(bench, ground, runner)


def awake(ground: Ground, ear: Ear, runner: Process) -> None:
    """Until the runner has sent its first mail."""
    ground.fill(1)
    ear.hear()
    time.sleep(0.5)
    if runner.status is not None:
        raise RuntimeError(runner.output[-2000:])


def waits(bench: Bench, ground: Ground, ear: Ear) -> Iterator[Figure]:
    kind, count = ground.kind, bench.size(300, 8)
    p50, p99 = AIMS[kind]
    plain, commits = sample(ear, lambda: by_sql(ground), count)
    note = f"{count} mails at odd moments, the connection to the relay open; their own INSERT and COMMIT: p50 "
    note += f"{quantile(commits, 0.5):.2f} ms, p99 {quantile(commits, 0.99):.2f} ms"
    yield at_most(TOPIC, f"commit → accepted, p50, {kind}", quantile(plain, 0.5), "ms", p50, note)
    yield at_most(TOPIC, f"commit → accepted, p99, {kind}", quantile(plain, 0.99), "ms", p99, note)
    if kind == "sqlite":
        rung, commits = sample(ear, lambda: by_enqueue(ground), count)
        note = f"p99 {quantile(rung, 0.99):.1f} ms; their own INSERT and COMMIT: p50 {quantile(commits, 0.5):.2f} ms"
        yield at_most(TOPIC, "commit → accepted, p50, enqueue()", quantile(rung, 0.5), "ms", 2, note)


def by_sql(ground: Ground) -> None:
    ground.query(
        "INSERT INTO outbox (sender, recipients, subject, text_body) VALUES (?, ?, ?, ?)",
        *(SHOP, recipient(1), subject(1), TEXT),
    )


def by_enqueue(ground: Ground) -> None:
    with ground.db.atomic():
        enqueue(ground.db, Mail(sender=SHOP, to=recipient(1), subject=subject(1), text=TEXT))


def sample(ear: Ear, commit: Callable[[], None], count: int) -> tuple[list[float], list[float]]:
    """Milliseconds from the end of a commit to the relay's word, for each of so many mails with pauses between; and
    what the commits took.
    """
    chance = random.Random(1)
    found, commits = [], []
    for _ in range(count):
        time.sleep(chance.uniform(0.03, 0.13))
        began = time.perf_counter()
        commit()
        committed = time.perf_counter()
        commits.append((committed - began) * 1000)
        found.append(max(0.0, ear.hear() - committed) * 1000)
    return found, commits


def quantile(values: Sequence[float], part: float) -> float:
    """Of few values, the 99th percentile is the largest."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def idle(bench: Bench, ground: Ground, runner: Process) -> Figure:
    seconds = bench.size(20, 1)
    time.sleep(SETTLED if seconds > 1 else 0.5)
    began, before = time.monotonic(), runner.cpu
    time.sleep(seconds)
    used = (runner.cpu - before) / (time.monotonic() - began) * 1000
    note = f"{seconds} s after everything was sent, all duties of the schedule on"
    return at_most(TOPIC, f"CPU of an idle runner, {ground.kind}", used, "ms/s", 10, note)
