"""What handing over a mail costs an application, alone and while a runner drains."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

from outbox import Mail, enqueue, enqueue_many
from outbox.store.database import sqlite_path
from tests.bench.content import SHOP, TEXT, recipient, subject
from tests.bench.figures import Bench, Figure, at_least, at_most
from tests.bench.ground import Ground, Sink, fresh
from tests.bench.process import Process

TOPIC = "enqueue"
BARE = "bare"
"""A table with the columns, types and defaults of `outbox`, and nothing else: no checks, no triggers, one index."""

COLUMNS = "sender, recipients, subject, text_body, source, priority, on_doubt"
AIM = 1.3
PATIENCE = 60.0


def measure(bench: Bench) -> Iterator[Figure]:
    for kind in ("sqlite", "postgres"):
        if kind == "postgres" and bench.postgres is None:
            return
        bench.say(f"mails in transactions of their own, into {kind}")
        with fresh(bench, kind) as ground, Application(ground) as app:
            app.make_bare()
            for durability in app.durabilities:
                app.durability(durability)
                yield from of_an_insert(bench, app, durability)
            app.durability(app.durabilities[0])
            yield from of_enqueue(bench, app)
            yield of_many(bench, app)
        yield from while_draining(bench, kind)


class Application:
    """A program that has the driver of its database, and each statement in a transaction of its own."""

    def __init__(self, ground: Ground) -> None:
        self.kind = ground.kind
        self.connection: Any
        self.durabilities: tuple[str, ...] = ("FULL", "NORMAL") if self.kind == "sqlite" else ("on",)
        if self.kind == "sqlite":
            self.mark, self.setting = "?", "PRAGMA synchronous ="
            self.connection = sqlite3.connect(sqlite_path(ground.url), isolation_level=None, timeout=PATIENCE)
        else:
            import psycopg

            self.mark, self.setting = "%s", "SET synchronous_commit ="
            self.connection = psycopg.connect(ground.url, autocommit=True)

    def __enter__(self) -> Application:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def durability(self, value: str) -> None:
        self.connection.execute(f"{self.setting} {value}")

    def make_bare(self) -> None:
        if self.kind == "postgres":
            self.connection.execute(f"CREATE TABLE {BARE} (LIKE outbox INCLUDING DEFAULTS INCLUDING IDENTITY)")
            self.connection.execute(f"ALTER TABLE {BARE} ADD PRIMARY KEY (id)")
            return
        columns = []
        for _, name, type_, required, default, key in self.connection.execute("PRAGMA table_info(outbox)").fetchall():
            default = f" DEFAULT ({default})" if default else ""
            columns.append(f"{name} {type_}{' PRIMARY KEY' if key else ' NOT NULL' if required else ''}{default}")
        self.connection.execute(f"CREATE TABLE {BARE} ({', '.join(columns)})")

    def insert(self, table: str, number: int) -> None:
        """By plain SQL, the columns that `enqueue` fills."""
        marks = ", ".join([self.mark] * 7)
        row = (SHOP, recipient(number), subject(number), TEXT, "python", 5, "retry")
        self.connection.execute(f"INSERT INTO {table} ({COLUMNS}) VALUES ({marks})", row)

    def enqueue(self, number: int) -> None:
        enqueue(self.connection, mail(number))

    def enqueue_many(self, mails: Sequence[Mail]) -> None:
        enqueue_many(self.connection, mails)


def mail(number: int) -> Mail:
    return Mail(sender=SHOP, to=recipient(number), subject=subject(number), text=TEXT)


def of_an_insert(bench: Bench, app: Application, durability: str) -> Iterator[Figure]:
    count = bench.size(6_000, 300)
    bare, ours = in_turns(count, lambda number: app.insert(BARE, number), lambda number: app.insert("outbox", number))
    note = (
        f"{middle(ours):.0f} µs against {middle(bare):.0f} µs of the same row in a table without checks and triggers,"
    )
    note += f" each with its commit; medians of {count} in turns; mean {sum(ours) / sum(bare):.2f} ×"
    yield at_most(TOPIC, f"INSERT, {app.kind}, {durability}", middle(ours) / middle(bare), "×", AIM, note)


def of_enqueue(bench: Bench, app: Application) -> Iterator[Figure]:
    count = bench.size(6_000, 300)
    app.connection.execute("BEGIN")
    plain, ours = in_turns(count, lambda number: app.insert("outbox", number), app.enqueue)
    app.connection.execute("COMMIT")
    note = (
        f"medians of {count} in turns, in one transaction: {middle(ours):.0f} µs, with the Mail that is made, against"
    )
    note += f" {middle(plain):.0f} µs of the INSERT by plain SQL"
    yield at_most(TOPIC, f"enqueue() adds, {app.kind}", middle(ours) - middle(plain), "µs", 40, note)
    plain, ours = in_turns(count, lambda number: app.insert("outbox", number), app.enqueue)
    added = middle(ours) - middle(plain)
    note = "the same, each with its commit: after a wait for the disk, none of the code is in the processor's caches"
    yield Figure(TOPIC, f"enqueue() adds to a commit, {app.kind}", added, "µs", note=note)


def of_many(bench: Bench, app: Application) -> Figure:
    size, times = 1_000, bench.size(10, 3)
    seconds, making = [], []
    for turn in range(times):
        began = time.perf_counter()
        mails = [mail(turn * size + number) for number in range(size)]
        made = time.perf_counter()
        app.enqueue_many(mails)
        seconds.append(time.perf_counter() - made)
        making.append(made - began)
    note = (
        f"best of {times} batches of {size}, with the commit; their Mails are made in {min(making) / size * 1e6:.0f} µs"
    )
    name, rate = f"enqueue_many(), {app.kind}", size / min(seconds)
    if app.kind == "sqlite":
        return at_least(TOPIC, name, rate, "rows/s", 25_000, f"{note} each")
    return Figure(TOPIC, name, rate, "rows/s", note=f"{note} each")


def while_draining(bench: Bench, kind: str) -> Iterator[Figure]:
    """An application that inserts now and then, with nobody else, and with a runner at full speed."""
    backlog, count = bench.size(60_000, 8_000), bench.size(1_000, 60)
    with Sink(bench) as sink, fresh(bench, kind) as ground, Application(ground) as app:
        ground.register(sink.port, connections=32)
        ground.fill(backlog)
        ground.settle_down()
        alone = now_and_then(app, count, lambda: True)
        with ground.runner() as runner:
            until_it_sends(ground, runner)
            beside = now_and_then(app, count, lambda: is_busy(ground, runner))
    note = f"{len(alone)} INSERTs with their commits at odd moments without a runner: p50 {at(alone, 0.5):.2f} ms, p99"
    note += f" {at(alone, 0.99):.2f} ms; {len(beside)} beside one that drains: p50 {at(beside, 0.5):.2f} ms, p99"
    note += f" {at(beside, 0.99):.2f} ms, longest {max(beside):.1f} ms"
    yield at_most(TOPIC, f"INSERT beside a runner, p99, {kind}", at(beside, 0.99) / at(alone, 0.99), "×", 3, note)


def now_and_then(app: Application, count: int, still: Callable[[], bool]) -> list[float]:
    """Milliseconds of each."""
    chance = random.Random(1)
    found = []
    for number in range(count):
        if number % 10 == 0 and not still():
            break
        time.sleep(chance.uniform(0.001, 0.009))
        began = time.perf_counter()
        app.insert("outbox", number)
        found.append((time.perf_counter() - began) * 1000)
    return found


def until_it_sends(ground: Ground, runner: Process) -> None:
    while not is_busy(ground, runner, "sent"):
        if runner.status is not None:
            raise RuntimeError(runner.output[-2000:])
        time.sleep(0.02)


def is_busy(ground: Ground, runner: Process, state: str = "queued") -> bool:
    found = ground.query("SELECT 1 FROM outbox_delivery WHERE state = ? LIMIT 1", state)
    return bool(found) and runner.status is None


def in_turns(count: int, *steps: Callable[[int], None]) -> list[list[float]]:
    """Seconds of each step, one after the other, so many times: what disturbs one disturbs all."""
    found: list[list[float]] = [[] for _ in steps]
    for number in range(count + 20):
        for step, seconds in zip(steps, found, strict=True):
            began = time.perf_counter()
            step(number)
            seconds.append(time.perf_counter() - began)
    return [seconds[20:] for seconds in found]


def middle(seconds: Sequence[float]) -> float:
    """µs."""
    return median(seconds) * 1e6


def at(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]
