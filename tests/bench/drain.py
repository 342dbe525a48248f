"""How fast a backlog of 2 kB text mails is sent, and what a mail costs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec

from tests.bench.content import SHOP, TEXT
from tests.bench.figures import Bench, Figure, at_least, at_most
from tests.bench.ground import ADMIN_PATH, Drained, Sink, fresh
from tests.bench.process import Process, python

TOPIC = "drain"
CONNECTIONS = 32
SLOW = 0.05
SLOW_CONNECTIONS = 256


def measure(bench: Bench) -> Iterator[Figure]:
    count = bench.size(50_000, 4_000)
    with Sink(bench) as sink:
        # Without smtp-sink it would tell how fast the relay in Python is.
        ceiling = c_client(bench, sink, bench.size(300_000, 20_000)) if sink.name == "smtp-sink" else None
        one = drained(bench, "sqlite", sink.port, count)
        against = f"{sink.name}, {CONNECTIONS} connections"
        if ceiling:
            note = f"smtp-source sends {ceiling:,.0f} mails/s to {against}, and records nothing"
            yield at_least(TOPIC, "of the C client's rate", one.rate / ceiling, "×", 0.35, note)
        yield at_least(TOPIC, "one process, SQLite, synchronous=FULL", one.rate, "mails/s", 10_000, against)
        yield at_most(
            TOPIC, "CPU of a mail", one.cpu_each, "µs", 100, "user and system; what an empty run costs is taken off"
        )
        yield from beside_the_least(bench, sink.port, count, one)
        yield from on_uvloop(bench, sink.port, count, one)
        two = drained(bench, "sqlite", sink.port, count, processes=2)
        yield at_least(TOPIC, "two processes, of one's rate", two.rate / one.rate, "×", 1, "SQLite")
        yield from on_postgres(bench, sink.port, bench.size(50_000, 2_000), one)
    yield from slow_relay(bench)


def beside_the_least(bench: Bench, port: int, count: int, runner: Drained) -> Iterator[Figure]:
    """An engine that does no more than it must, with the same statements and the same composition."""
    bare = max((_bare_turn(bench, port, count) for _ in _turns(bench)), key=lambda turn: turn.rate)
    note = f"tests/bench/bare.py: {bare.rate:,.0f} mails/s, {bare.cpu_each:,.0f} µs CPU each"
    yield Figure(TOPIC, "of a bare engine's rate", runner.rate / bare.rate, "×", note=note)


def _bare_turn(bench: Bench, port: int, count: int) -> Drained:
    bench.say(f"{count:,} mails by a bare engine")
    with fresh(bench, "sqlite") as ground:
        ground.register(port, connections=CONNECTIONS)
        program = python("tests.bench.bare", ground.url, str(port), str(CONNECTIONS))
        ground.time_a_start(program)
        ground.fill(count)
        return ground.drain(program)


def on_uvloop(bench: Bench, port: int, count: int, asyncio: Drained) -> Iterator[Figure]:
    if find_spec("uvloop") is None:
        return
    one = drained(bench, "sqlite", port, count, run_event_loop="uvloop")
    note = f"run.event_loop = uvloop: {one.rate:,.0f} mails/s, {one.cpu_each:,.0f} µs CPU each"
    yield Figure(TOPIC, "on uvloop, of asyncio's rate", one.rate / asyncio.rate, "×", note=note)


def on_postgres(bench: Bench, port: int, count: int, sqlite: Drained) -> Iterator[Figure]:
    if bench.postgres is None:
        return
    one = drained(bench, "postgres", port, count)
    yield at_least(TOPIC, "PostgreSQL, one process, of SQLite's rate", one.rate / sqlite.rate, "×", 0.7)
    yield Figure(TOPIC, "PostgreSQL, one process", one.rate, "mails/s")
    yield Figure(TOPIC, "CPU of a mail, PostgreSQL", one.cpu_each, "µs", note="the runner's, not the server's")
    for processes in (2,) if bench.quick else (2, 4):
        several = drained(bench, "postgres", port, count, processes=processes)
        yield Figure(TOPIC, f"PostgreSQL, {processes} processes, of one's rate", several.rate / one.rate, "×")


def slow_relay(bench: Bench) -> Iterator[Figure]:
    """A relay that takes 50 ms at the end of each mail: everybody's rate is their number of connections."""
    ideal = SLOW_CONNECTIONS / SLOW
    with Sink(bench, delay=SLOW) as sink:
        count = int(ideal * bench.size(8, 1))
        both = drained(bench, "sqlite", sink.port, count, processes=2, connections=SLOW_CONNECTIONS // 2)
        c_rate = c_client(bench, sink, count, SLOW_CONNECTIONS)
    note = f"{SLOW_CONNECTIONS} connections of two processes; {ideal:,.0f} mails/s would be no other cost at all"
    yield at_least(TOPIC, "of the ideal, with a relay that takes 50 ms", both.rate / ideal, "×", 0.85, note)
    if c_rate:
        note = f"smtp-source, as many connections and no pipelining: {c_rate:,.0f} mails/s"
        yield Figure(TOPIC, "of the C client's rate, with that relay", both.rate / c_rate, "×", note=note)
    yield Figure(TOPIC, "with a relay that takes 50 ms", both.rate, "mails/s")


def drained(
    bench: Bench,
    kind: str,
    port: int,
    count: int,
    *,
    processes: int = 1,
    connections: int = CONNECTIONS,
    **settings: str,
) -> Drained:
    """The best of a few turns, each with a database of its own."""
    turns = (_turn(bench, kind, port, count, processes, connections, settings) for _ in _turns(bench))
    return max(turns, key=lambda turn: turn.rate)


def _turns(bench: Bench) -> range:
    return range(bench.size(3, 1))


def _turn(
    bench: Bench, kind: str, port: int, count: int, processes: int, connections: int, settings: dict[str, str]
) -> Drained:
    bench.say(f"{count:,} mails over {kind}, {processes} process{'es' if processes > 1 else ''}")
    with fresh(bench, kind) as ground:
        ground.register(port, connections=connections)
        if processes == 1:
            ground.time_a_start()
        ground.fill(count)
        return ground.drain(processes=processes, **settings)


def c_client(bench: Bench, sink: Sink, count: int, connections: int = CONNECTIONS) -> float | None:
    """Mails a second of smtp-source, over as many connections, each reused; it knows no pipelining. None: not here."""
    found = shutil.which("smtp-source", path=ADMIN_PATH)
    if found is None:
        return None
    bench.say(f"{count:,} mails by smtp-source")
    options = ["-d", "-s", connections, "-m", count, "-l", len(TEXT), "-f", SHOP, "-t", "ann@example.net"]
    command = [found, *map(str, options), f"127.0.0.1:{sink.port}"]
    rates = []
    for _ in _turns(bench):
        with Process(command, bench.folder) as source:
            rates.append(count / source.wait().seconds)
    return max(rates)
