"""The wall clock jumps under a runner: an hour back, an hour, a month, ten years, and a host that slept.

Only CLOCK_REALTIME moves, as when somebody sets the time; a sleeping host is a runner that is stopped while it moves. A
tick is the runner's next renewal of its lease, by the new time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from outbox.store.rows import moment, parse_moment
from tests.bench.figures import Figure, at_most
from tests.reconcile import Journal, broken
from tests.relay import Relay
from tests.running import Runner, Site, eventually
from tests.torture.cruelty import Cruelty, none_of
from tests.torture.places import Places
from tests.torture.shim import Shim

TOPIC = "clocks"
JUMPS = {
    "−1 h": timedelta(hours=-1),
    "+1 h": timedelta(hours=1),
    "+30 d": timedelta(days=30),
    "+10 y": timedelta(days=3653),
    "slept 10 min": timedelta(minutes=10),
}
WAITING = 200
"""Messages that expire in half an hour, by the right clock."""

SETTINGS = {"run_renew": "300ms", "run_lease": "3s", "retry_floor": "50ms", "run_poll": "1s"}


def measure(cruelty: Cruelty) -> Iterator[Figure]:
    with Places(cruelty.folder, None) as places:
        for name, jump in JUMPS.items():
            cruelty.say(f"clocks: {name}")
            with places.fresh("sqlite") as site:
                yield from jumped(
                    site, Shim(site.folder / "shim"), name, jump, seconds=cruelty.size(55 if name == "+30 d" else 6, 3)
                )


def jumped(site: Site, shim: Shim, name: str, jump: timedelta, seconds: float) -> Iterator[Figure]:
    with Relay() as relay:
        site.register(relay.port)
        site.register(1, account="away", sender="away@example.com")
        site.query("UPDATE outbox_account SET pause_reason = 'moving', paused_until = NULL WHERE name = 'away'")
        soon = moment(datetime.now(UTC) + timedelta(minutes=30))
        site.insert(WAITING, sender="away@example.com", expires_at=soon)
        with shim.runner(site, site.folder, "-q", log=False, **SETTINGS) as runner, mail(site):
            eventually(lambda: len(relay.messages) > 10, "it sends")
            eventually(lambda: lease_of(site) is not None, "it has a lease")
            before = memory(runner)
            if name.startswith("slept"):
                site.freeze(runner)
                shim.clock(jump)
                runner.resume()
            else:
                shim.clock(jump)
            jumped_at = time.monotonic()
            eventually(lambda: renewed(site, jump), "the next tick", 30)
            tick = time.monotonic() - jumped_at
            most, sent = before, len(relay.messages)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                most = max(most, memory(runner))
                time.sleep(0.05)
            expired = site.states().get("expired", 0)
            flowing = len(relay.messages) - sent
        wrong = broken(site.query, Journal(relay.messages), "sqlite")
    yield at_most(TOPIC, f"{name}: next tick", tick, "s", 2)
    yield at_most(TOPIC, f"{name}: memory grown", (most - before) / 2**20, "MB", 5)
    yield none_of(TOPIC, f"{name}: expired of {WAITING} that expire in 30 min", expired, f"in {seconds:g} s")
    yield none_of(TOPIC, f"{name}: broken invariants", len(wrong), str(wrong) if wrong else f"{flowing} mails since")
    if not flowing:
        yield none_of(TOPIC, f"{name}: standstills", 1)


@contextmanager
def mail(site: Site) -> Iterator[None]:
    """One mail every 20 ms, by an application whose clock is right."""
    over = threading.Event()

    def write() -> None:
        own = Site(site.url, site.folder)
        while not over.wait(0.02):
            own.insert(1, due_at="2020-01-01T00:00:00.000Z")
        own.close()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def lease_of(site: Site) -> datetime | None:
    rows = site.query("SELECT max(lease_until) FROM outbox_runner WHERE dead_at IS NULL")
    return parse_moment(rows[0][0]) if rows[0][0] else None


def renewed(site: Site, jump: timedelta) -> bool:
    """By the clock that has jumped."""
    until = lease_of(site)
    return until is not None and abs((until - datetime.now(UTC) - jump).total_seconds()) < 30


def memory(runner: Runner) -> int:
    """Octets that are resident now."""
    with open(f"/proc/{runner.process.pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
    raise ValueError("it has no memory")
