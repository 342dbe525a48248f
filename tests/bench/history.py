"""What claims, settlements and all questions cost after years of mail, against a database without a past."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from outbox.clock import Clock
from outbox.core.account import Sender
from outbox.core.message import Recipient
from outbox.core.settlement import Claim
from outbox.store import Pick, Store, open_store, runners, senders
from outbox.store.journal import Act
from tests.bench.figures import Bench, Figure, at_most
from tests.bench.ground import Ground, fresh
from tests.bench.past import SENDERS, build
from tests.contract.stores import sent
from tests.questions import handful, questions, reads_more

TOPIC = "history"
ME = "d" * 32
BUSY, AWAY = "busy@example.com", "away@example.com"
BATCH = 100
AIM = 1.3


def measure(bench: Bench) -> Iterator[Figure]:
    sizes = (10_000,) if bench.quick else (1_000_000, 10_000_000)
    turns = bench.size(30, 5)
    for kind in ("sqlite", "postgres"):
        if kind == "postgres" and bench.postgres is None:
            return
        with prepared(bench, kind, 0) as (empty, without):
            for size in sizes:
                with prepared(bench, kind, size) as (full, beside):
                    after = f"after {size:,}, {kind}"
                    yield from of_the_runner(after, without, beside, turns)
                    bench.say(f"every question {after}")
                    yield from of_the_questions(after, empty, full, turns)
            yield from of_what_cannot_go(bench, kind, empty, without, turns)


@contextmanager
def prepared(bench: Bench, kind: str, past: int) -> Iterator[tuple[Ground, Runner]]:
    """A database with so many finished messages, the handful that is asked for, and a runner's store."""
    with ExitStack() as stack:
        ground = stack.enter_context(fresh(bench, kind))
        build(ground.db, past, bench.say) if past else None
        handful(ground.url, [f"s{number}@past.example" for number in range(1, SENDERS)])
        act = Act("bench", Clock().now())
        with ground.db.atomic():
            for sender in (BUSY, AWAY):
                senders.add_sender(ground.db, Sender(sender, "main"), act)
        if kind == "postgres":
            ground.query("VACUUM ANALYZE")
        runner = Runner(ground)
        stack.callback(runner.store.close)
        yield ground, runner


class Runner:
    """A runner's store, and what it takes for a batch: its CPU and the pages it writes, but not the disk's delay."""

    def __init__(self, ground: Ground) -> None:
        self.store: Store = open_store(ground.url, Clock())
        self.store.open()
        self._ground = ground
        self._random = random.Random(7)
        off = "PRAGMA synchronous = off" if ground.kind == "sqlite" else "SET synchronous_commit = off"
        self.store.db.execute_sql(off)
        with self.store.transaction():
            lease = timedelta(days=1)
            runners.register(self.store, ME, host="bench", pid=1, version="0", now=self.store.now(), lease=lease)

    def enqueue(self, count: int = BATCH) -> None:
        marks = ", ".join([self._ground.db.param] * 3)
        rows = [(BUSY, self._address(), "Thanks") for _ in range(count)]
        with self._ground.db.atomic():
            sql = f"INSERT INTO outbox (sender, recipients, text_body) VALUES ({marks})"
            self._ground.db.cursor().executemany(sql, rows)

    def claim(self) -> tuple[float, list[Claim]]:
        """Look for lanes and claim a batch: the seconds, and what was claimed."""
        now = self.store.now() + timedelta(seconds=1)
        began = time.perf_counter()
        with self.store.transaction():
            lanes = self.store.lanes("", 64)
            claims = self.store.claim(ME, [Pick(BUSY, 5, BATCH)], now)
        seconds = time.perf_counter() - began
        if len(claims) != BATCH or BUSY not in {lane.sender for lane in lanes}:
            raise RuntimeError(f"{len(claims)} of {BATCH} were claimed")
        return seconds, claims

    def settle(self, claims: list[Claim]) -> float:
        """Settle them as sent, each to an address that nobody has heard of: the seconds."""
        settled = []
        for claim in claims:
            settlement = sent(claim)
            (fate,) = settlement.fates
            recipient = Recipient(0, self._address(), "to")
            settled.append(replace(settlement, fates=(replace(fate, recipient=recipient),)))
        began = time.perf_counter()
        with self.store.transaction():
            self.store.settle(settled, datetime.now(UTC))
        return time.perf_counter() - began

    def turn(self) -> tuple[float, float]:
        self.enqueue()
        claiming, claims = self.claim()
        return claiming, self.settle(claims)

    def _address(self) -> str:
        return f"customer{self._random.randrange(2**31)}@example.net"


def of_the_runner(after: str, without: Runner, beside: Runner, turns: int) -> Iterator[Figure]:
    """Turn by turn, so that both meet the same machine; the shortest, which met nobody else's work."""
    pairs = [(without.turn(), beside.turn()) for _ in range(3 * turns)]
    for place, verb in enumerate(("claim", "settle")):
        short, long = (min(pair[which][place] for pair in pairs) / BATCH * 1e6 for which in (0, 1))
        note = f"{long:.1f} µs a message for {short:.1f}, in batches of {BATCH}"
        yield at_most(TOPIC, f"{verb} {after}", long / short, "×", AIM, note)


def of_the_questions(after: str, empty: Ground, full: Ground, turns: int) -> Iterator[Figure]:
    """The worst of those that should not cost more, for as many rows; each that does; the slowest that read more."""
    again = dict(questions(full.db))
    worst, which, above, asked = 0.0, "", 0, 0
    slowest: dict[str, tuple[float, str]] = {}
    for name, ask in questions(empty.db):
        more = reads_more(name)
        short, long = best(ask, again[name], 1 if more else turns)
        if more:
            slowest[more] = max(slowest.get(more, (0.0, "")), (long, name))
            continue
        asked += 1
        if long / short > AIM:  # by the work of others on this machine, maybe
            (short, long), before = best(ask, again[name], 3 * turns), (short, long)
            short, long = min(short, before[0]), min(long, before[1])
        ratio = long / short / more_rows(ask(), again[name]())
        worst, which = max((worst, which), (ratio, name))
        if ratio > AIM:
            above += 1
            note = f"{long * 1e6:,.0f} µs for {short * 1e6:,.0f}"
            yield Figure(TOPIC, f"{name} {after}", ratio, "×", note=note)
    yield at_most(TOPIC, f"worst question {after}", worst, "×", AIM, f"{which}; {above} of {asked} are above")
    for more, (long, name) in slowest.items():
        yield Figure(TOPIC, f"{name} {after}", long * 1000, "ms", note=f"reads {more}; the slowest of those")


def more_rows(short: object, long: object) -> float:
    """How many times as long an answer is: the messages 7 to 26 are others where there is a past."""
    if isinstance(short, list) and isinstance(long, list) and short:
        return max(1.0, len(long) / len(short))
    return 1.0


def best(ask: Callable[[], object], again: Callable[[], object], turns: int) -> tuple[float, float]:
    """The shortest of each, in turns. What takes long is not asked so often."""
    times: list[tuple[float, float]] = []
    while len(times) < turns and sum(map(sum, times)) < 2:
        times.append((seconds(ask), seconds(again)))
    return min(short for short, _ in times), min(long for _, long in times)


def seconds(ask: Callable[[], object]) -> float:
    began = time.perf_counter()
    ask()
    return time.perf_counter() - began


def of_what_cannot_go(bench: Bench, kind: str, ground: Ground, runner: Runner, turns: int) -> Iterator[Figure]:
    """Claims beside as much that is scheduled, of the same sender, and as much of a sender that is paused."""
    count = bench.size(100_000, 5_000)
    before = min(runner.turn()[0] for _ in range(turns))
    mark = ground.db.param
    later = (Clock().now() + timedelta(days=7)).isoformat()
    sql = f"INSERT INTO outbox (sender, recipients, text_body, due_at) VALUES ({', '.join([mark] * 4)})"
    with ground.db.atomic():
        ground.db.execute_sql(
            f"UPDATE outbox_sender SET pause_reason = 'operator: away' WHERE address = {mark}", (AWAY,)
        )
        for sender, due_at in ((BUSY, later), (AWAY, None)):
            rows = ((sender, "ann@example.net", "Thanks", due_at) for _ in range(count))
            ground.db.cursor().executemany(sql, rows)
    if kind == "postgres":
        ground.query("VACUUM ANALYZE outbox_delivery_live")
    after = min(runner.turn()[0] for _ in range(turns))
    note = f"{after / BATCH * 1e6:.1f} µs a message for {before / BATCH * 1e6:.1f}"
    name = f"claim beside {count:,} scheduled, {count:,} paused, {kind}"
    yield at_most(TOPIC, name, after / before, "×", AIM, note)
