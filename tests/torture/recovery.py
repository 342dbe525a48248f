"""How soon others go on after a kill -9, and how soon a runner ends after a SIGTERM.

Where an operating system's lock (SQLite) or an advisory lock (PostgreSQL, from any host) shows that a runner lives, its
death is seen at once. Behind a pooler, which keeps the dead runner's session open, and where the lock file is gone,
only the lease tells.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from outbox.store.database import connect, sqlite_path
from tests.bench.figures import Figure, Unmeasurable, at_most
from tests.bench.ground import instant
from tests.relay import HANG, Answer, Relay, Session
from tests.running import Program, Site, command, eventually
from tests.torture.cruelty import Cruelty, none_of
from tests.torture.lives import Life, Zygote
from tests.torture.places import Places
from tests.torture.pooler import Pooler

TOPIC = "recovery"
KINDS = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
SHORT_LEASE = {"run_lease": "2s", "run_renew": "500ms"}
LEASE = 2.0
GRACE = 1.0


@dataclass(frozen=True)
class Scene:
    """A database, a relay and the runners there."""

    site: Site
    relay: Relay
    zygote: Zygote

    def runner(self, *arguments: str, url: str = "", **settings: str) -> Life:
        return self.zygote.runner(url or self.site.url, *arguments, folder=self.site.folder, settings=settings)


@contextmanager
def scene(cruelty: Cruelty, kind: str, connections: int = 3) -> Iterator[Scene]:
    with ExitStack() as stack:
        places = stack.enter_context(Places(cruelty.folder, cruelty.postgres))
        site = stack.enter_context(places.fresh(kind))
        relay = stack.enter_context(Relay())
        zygote = stack.enter_context(Zygote(site.folder))
        site.register(relay.port, connections=connections)
        yield Scene(site, relay, zygote)


def measure(cruelty: Cruelty) -> Iterator[Figure]:
    for kind in cruelty.databases:
        name = KINDS[kind]
        try:
            yield from after_a_kill(cruelty, kind, name)
            yield from by_the_lease(cruelty, kind, name)
            yield from claims_stop(cruelty, kind, name)
            yield from grace_ends(cruelty, kind, name)
            yield from locked_out(cruelty, kind, name)
            yield from in_namespaces(cruelty, kind, name)
        except Unmeasurable as why:
            cruelty.say(f"{name} IS LEFT OUT: {why}")


# -- after a death


def after_a_kill(cruelty: Cruelty, kind: str, name: str) -> Iterator[Figure]:
    """From the kill of a runner that has written its dot to the acceptance of its message by way of another."""
    rounds = cruelty.size(cruelty.deaths, 5)
    with scene(cruelty, kind) as at:
        took = recoveries(at, rounds, lambda: at.runner(), lambda life: None)
    yield at_most(TOPIC, f"p99 after kill -9, {name}", percentile(took, 99), "s", 2, _spread(took))


def by_the_lease(cruelty: Cruelty, kind: str, name: str) -> Iterator[Figure]:
    rounds = cruelty.size(10, 2)
    how = "behind a pooler" if kind == "postgres" else "without its lock file"
    with scene(cruelty, kind) as at, ExitStack() as stack:
        url = at.site.url
        if kind == "postgres":
            url = stack.enter_context(Pooler(at.site.url)).url

        def forget(life: Life) -> None:
            if kind == "sqlite":
                database = Path(sqlite_path(at.site.url))
                database.with_name(f"{database.name}.runner-{_id(at, life)}").unlink()

        took = recoveries(at, rounds, lambda: at.runner(url=url, **SHORT_LEASE), forget)
    note = f"{_spread(took)}; the lease is {LEASE:g} s"
    yield at_most(TOPIC, f"slowest by the lease, {how}, {name}", max(took), "s", LEASE + 5, note)


def recoveries(at: Scene, rounds: int, start: Callable[[], Life], forget: Callable[[Life], None]) -> list[float]:
    """Seconds, in so many rounds. `forget` takes away what shows that a runner lives, just before it is killed."""
    runners = [start(), start()]
    took = []
    for turn in range(rounds):
        for each in runners:
            eventually(lambda life=each: " serves " in life.output, "it is at work")  # type: ignore[misc]
        at.relay.script["dot"] = HANG
        said = at.relay.commands.count(".")
        at.site.insert(1)
        eventually(lambda before=said: at.relay.commands.count(".") > before, "it has written its dot")  # type: ignore[misc]
        [(owner,)] = at.site.query("SELECT lease_owner FROM outbox_delivery WHERE state = 'sending'")
        victim = next(each for each in runners if _short_id(each) == owner[:8])
        at.relay.script["dot"] = None
        forget(victim)
        victim.kill()
        since = time.monotonic()
        at.relay.wait(turn + 1, 60)
        took.append(time.monotonic() - since)
        eventually(lambda: at.site.states().keys() == {"sent"}, "it is settled")
        runners = [each for each in runners if each is not victim] + [start()]
    at.relay.release()
    return took


def _short_id(life: Life) -> str:
    return life.output.partition(": runner ")[2][:8]


def _id(at: Scene, life: Life) -> str:
    return next(each for each in at.site.runners() if each.startswith(_short_id(life)))


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def _spread(took: list[float]) -> str:
    return f"{len(took)} deaths; median {percentile(took, 50):.2f} s, slowest {max(took):.2f} s"


# -- at a SIGTERM


def claims_stop(cruelty: Cruelty, kind: str, name: str) -> Iterator[Figure]:
    """In the middle of a backlog."""
    late, counted, given_back = [], 0, 0

    def slowly(session: Session, line: str) -> Answer:
        session.relay.closing.wait(0.02)
        return None

    for _ in range(cruelty.size(10, 2)):
        with scene(cruelty, kind) as at:
            at.relay.script["dot"] = slowly
            at.site.insert(300)
            runner = at.runner()
            at.relay.wait(20)
            stopped_at = datetime.now(UTC)
            runner.stop()
            if runner.wait() != 0:
                raise RuntimeError(f"it ended with status {runner.status}: {runner.output[-1000:]}")
            [(last,)] = at.site.query("SELECT max(started_at) FROM outbox_attempt")
            late.append(max(0.0, (instant(last) - stopped_at).total_seconds()))
            counted += at.site.query(
                "SELECT count(*) FROM outbox_delivery WHERE state = 'sending' OR (state = 'queued'"
                " AND (failures > 0 OR doubts > 0 OR crashes > 0))"
            )[0][0]
            given_back += at.site.attempts()["relinquished"]
    yield at_most(TOPIC, f"last claim after SIGTERM, {name}", max(late) * 1000, "ms", 100, f"{len(late)} stops")
    note = f"{given_back} messages were claimed and not begun"
    yield none_of(TOPIC, f"given back with an attempt counted, {name}", counted, note)


def grace_ends(cruelty: Cruelty, kind: str, name: str) -> Iterator[Figure]:
    """The relay never answers the dot."""
    took = []
    for _ in range(cruelty.size(5, 1)):
        with scene(cruelty, kind) as at:
            at.relay.script["dot"] = HANG
            at.site.insert(30)
            runner = at.runner(run_grace=f"{GRACE:g}s")
            eventually(lambda: at.relay.commands.count(".") == 3, "every connection has written its dot")
            since = time.monotonic()
            runner.stop()
            if runner.wait() != 0:
                raise RuntimeError(f"it ended with status {runner.status}: {runner.output[-1000:]}")
            took.append(time.monotonic() - since)
    note = f"grace {GRACE:g} s, a relay that never answers; {len(took)} stops"
    yield at_most(TOPIC, f"exit after SIGTERM, {name}", max(took), "s", GRACE + 1, note)


def locked_out(cruelty: Cruelty, kind: str, name: str) -> Iterator[Figure]:
    """The database does not answer: SQLite is locked by another, on PostgreSQL the table is. There is mail to claim,
    and a pickup folder has a file that has been read, and waits to become a mail.
    """
    took = []
    for _ in range(cruelty.size(5, 1)):
        with scene(cruelty, kind) as at, closing(connect(at.site.url)) as other:
            folder = at.site.folder / "in"
            options = ("--badmail", str(at.site.folder / "bad"), "--settle", "0s")
            status, words = at.site.outbox("pickup", "add", "in", str(folder), *options)
            if status:
                raise RuntimeError(words)
            runner = at.runner(run_grace=f"{GRACE:g}s")
            eventually(lambda life=runner: "in: watching" in life.output, "it watches")  # type: ignore[misc]
            at.site.insert(3)
            other.execute_sql("BEGIN IMMEDIATE" if kind == "sqlite" else "BEGIN")
            if kind == "postgres":
                other.execute_sql("LOCK TABLE outbox, outbox_delivery IN EXCLUSIVE MODE")
            (folder / "order.eml").write_text("From: shop@example.com\nTo: ann@example.net\n\nThanks\n")
            eventually(lambda each=folder: not (each / "order.eml").exists(), "the scan waits")  # type: ignore[misc]
            since = time.monotonic()
            runner.stop()
            if runner.wait() != 0:
                raise RuntimeError(f"it ended with status {runner.status}: {runner.output[-1000:]}")
            took.append(time.monotonic() - since)
            other.execute_sql("ROLLBACK")
    note = f"grace {GRACE:g} s, mail to claim and a pickup folder being read; {len(took)} stops"
    yield at_most(TOPIC, f"exit after SIGTERM, locked out, {name}", max(took), "s", GRACE + 1, note)


# -- in containers


def in_namespaces(cruelty: Cruelty, kind: str, name: str) -> Iterator[Figure]:
    """Two runners, each the first process of its own PID namespace, as in two containers."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        cruelty.say("PID NAMESPACES ARE LEFT OUT: they need `unshare`, and root")
        return
    seconds = cruelty.size(10, 4)
    inside = ["unshare", "--pid", "--fork", "--kill-child", *command("run")]
    settings = {"OUTBOX_RUN_LEASE": "1s", "OUTBOX_RUN_RENEW": "300ms"}
    with scene(cruelty, kind) as at, ExitStack() as stack:
        environment = {"OUTBOX_DATABASE": at.site.url, "XDG_STATE_HOME": str(at.site.folder), **settings}
        runners = [stack.enter_context(Program(inside, at.site.folder, **environment)) for _ in range(2)]
        for each in runners:
            each.says(" serves ")
        until = time.monotonic() + seconds
        sent = 0
        while time.monotonic() < until:
            sent += len(at.site.insert(1))
            at.relay.wait(sent)
            time.sleep(0.1)
        pids = {pid for (pid,) in at.site.query("SELECT pid FROM outbox_runner")}
        if pids != {1}:
            raise RuntimeError(f"they are not in namespaces of their own: {pids}")
        dead = sum("dead" in line for each in runners for line in each.lines)
    note = f"both are process 1; {seconds} s with a lease of 1 s, {sent} messages"
    yield none_of(TOPIC, f"runners in two PID namespaces called dead, {name}", dead, note)
