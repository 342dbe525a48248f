"""How long a few mails of one sender take while the backlog of another is drained through the same account."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from outbox.clock import Clock
from outbox.core.account import Sender
from outbox.store import senders
from outbox.store.journal import Act
from tests.bench.figures import Bench, Figure, Unmeasurable, at_most
from tests.bench.ground import Ground, Sink, fresh, instant
from tests.bench.process import Process

TOPIC = "fairness"
FEW = "news@example.com"
TEN = 10


def measure(bench: Bench) -> Iterator[Figure]:
    count = bench.size(100_000, 20_000)
    with Sink(bench) as sink:
        for kind in ("sqlite", "postgres"):
            if kind == "postgres" and bench.postgres is None:
                return
            bench.say(f"{count:,} mails of one sender and {TEN} of another over {kind}")
            with fresh(bench, kind) as ground:
                ground.register(sink.port, connections=10)
                with ground.db.atomic():
                    senders.add_sender(ground.db, Sender(FEW, "main"), Act("bench", Clock().now()))
                ground.fill(count)
                ground.settle_down()
                with ground.runner() as runner:
                    waits = [the_last_of_ten(ground, runner) for _ in range(bench.size(5, 2))]
                    left = ground.count("queued")
            note = f"worst of {len(waits)}, {count:,} mails of another sender before them, {left:,} of them still after"
            yield at_most(TOPIC, f"ten mails of a second sender, {kind}", max(waits), "s", 2, note)


def the_last_of_ten(ground: Ground, runner: Process) -> float:
    """Seconds from their commit to when the last of them was sent."""
    sending = "SELECT 1 FROM outbox_delivery WHERE state = 'sending' LIMIT 1"
    while not ground.query(sending) and runner.status is None:
        time.sleep(0.02)
    (before,) = ground.query("SELECT max(id) FROM outbox")[0]
    ground.fill(TEN, sender=FEW)
    committed = datetime.now(UTC)
    deadline = time.monotonic() + 60
    while True:
        sql = "SELECT count(*), max(final_at) FROM outbox_delivery WHERE message_id > ? AND state = 'sent'"
        sent, last = ground.query(sql, before)[0]
        if sent == TEN:
            break
        if runner.status is not None or time.monotonic() > deadline:
            raise RuntimeError(f"only {sent} of {TEN} were sent: {runner.output[-2000:]}")
        time.sleep(0.02)
    if not ground.query("SELECT 1 FROM outbox_delivery WHERE state = 'queued' LIMIT 1"):
        raise Unmeasurable("the backlog was too short for this machine")
    return (instant(last) - committed).total_seconds()
