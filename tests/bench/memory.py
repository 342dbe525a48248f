"""How much memory a runner takes: at its start, with a long backlog, with large mails."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.bench.figures import Bench, Figure, at_most
from tests.bench.ground import Ground, Sink, fresh_sqlite

TOPIC = "memory"
CONNECTIONS = 32
MB = 1_000_000
LARGE = 24 * MB
"""Below the 25 MiB that a body may have."""


def measure(bench: Bench) -> Iterator[Figure]:
    with Sink(bench) as sink:
        with fresh_sqlite(bench) as ground:
            yield at_most(TOPIC, "a runner that waits for mail", at_rest(ground) / MB, "MB", 80)
        count = bench.size(100_000, 4_000)
        peak = draining(bench, sink.port, count)
        yield at_most(TOPIC, "peak", peak / MB, "MB", 150, f"draining {count:,} mails of 2 kB over SQLite")
        if bench.quick:
            return
        few, many = 8, 32
        sizes = {each: draining(bench, sink.port, each, size=LARGE) for each in (few, many)}
        note = f"{many} against {few} mails of 24 MB, byte_budget 64 MiB: {sizes[many] / MB:.0f} MB"
        yield at_most(TOPIC, "peak with a longer backlog of large mails", sizes[many] / sizes[few], "×", 1.25, note)


def at_rest(ground: Ground) -> int:
    """Bytes, when it has started and had some time to look around."""
    with ground.runner() as runner:
        while not ground.query("SELECT 1 FROM outbox_runner") and runner.status is None:
            time.sleep(0.02)
        time.sleep(1)
        return runner.peak


def draining(bench: Bench, port: int, count: int, *, size: int = 0) -> int:
    """The most bytes that it had."""
    bench.say(f"{count:,} mails of {f'{size // MB} MB' if size else '2 kB'}")
    with fresh_sqlite(bench) as ground:
        ground.register(port, connections=CONNECTIONS)
        if size:
            ground.fill(count, text=("x" * 70 + "\n") * (size // 71))
        else:
            ground.fill(count)
        return ground.drain().usage.rss
