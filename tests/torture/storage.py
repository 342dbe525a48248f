"""The disk and the file of a SQLite database fail under a runner: locked, full, broken, replaced, read too long.

Where a fault comes: at the claim (it is there when mail is), at the mark (it comes with the relay's answer to DATA), at
the settlement (with the answer to the dot). It lasts for a moment; then everything must be sent, once, by the same
process.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from outbox.store.database import sqlite_path
from outbox.store.identity import LOG_TOO_LARGE
from outbox.store.rows import moment
from tests.bench.figures import Figure, Unmeasurable, at_most
from tests.reconcile import Journal, broken
from tests.relay import Relay, Session
from tests.relay_session import Answer
from tests.running import Runner, Site, eventually
from tests.torture.cruelty import Cruelty, none_of
from tests.torture.places import Places
from tests.torture.shim import FULL, NOTHING, SYNC_ERROR, WRITE_ERROR, Shim

TOPIC = "storage"
MAILS = 12
AT = ("claim", "mark", "settlement")
FAULTS = {"disk full": FULL, "EIO of a write": WRITE_ERROR, "EIO of a sync": SYNC_ERROR}
HELD_FOR = 1.5
"""Seconds."""

WAITS = "waiting for the database"
BACK = "the database answers again"


def measure(cruelty: Cruelty) -> Iterator[Figure]:
    with Places(cruelty.folder, None) as places:
        for where in AT:
            cruelty.say(f"storage: locked at the {where}")
            with places.fresh("sqlite") as site:
                yield from locked(site, where, cruelty.size(30, 6))
        for what, fault in FAULTS.items():
            for where in AT:
                cruelty.say(f"storage: {what} at the {where}")
                with places.fresh("sqlite") as site:
                    yield from failing(site, Shim(site.folder / "shim"), what, fault, where)
        yield from replaced(cruelty, places, cruelty.size(50, 5))
        with places.fresh("sqlite") as site:
            yield from read_too_long(site)
        for each in (full_at_the_end, read_only):
            try:
                with places.fresh("sqlite") as site:
                    yield from each(site)
            except Unmeasurable as why:
                cruelty.say(f"storage: NOT TRIED: {why}")


def story(where: str, then: Callable[[], None]) -> Relay:
    """A relay that does `then` once, just before what is named."""

    def answer(session: Session, line: str) -> Answer:
        then()
        return None

    stage = {"mark": "data", "settlement": "dot"}.get(where)
    return Relay({stage: [None, None, answer]} if stage else {})


def aftermath(site: Site, relay: Relay, name: str, runner: Runner, took: float) -> Iterator[Figure]:
    """That all were sent once, the process is the same, and what the log says."""
    wrong = broken(site.query, Journal(relay.messages), "sqlite")
    lost = MAILS - site.states().get("sent", 0)
    more = len(relay.messages) - MAILS
    said = all(any(words in line for line in runner.lines) for words in (WAITS, BACK))
    ended = runner.process.poll() is not None
    bad = [f"{lost} not sent"] * bool(lost) + [f"{more} copies more"] * bool(more) + ["it ended"] * ended
    bad += [f"broken: {wrong}"] * bool(wrong) + ["the log does not say so"] * (not said)
    yield none_of(TOPIC, f"{name}: wrong", len(bad), "; ".join(bad) or f"{MAILS} mails sent once, by one process")
    yield at_most(TOPIC, f"{name}: all sent after its end", took, "s", 5)


def locked(site: Site, where: str, seconds: float) -> Iterator[Figure]:
    """Somebody keeps the write lock, and the runner's results wait."""
    path, holder = sqlite_path(site.url), list[sqlite3.Connection]()

    def lock() -> None:
        own = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        own.execute("BEGIN IMMEDIATE")
        holder.append(own)

    with story(where, lock) as relay:
        site.register(relay.port, connections=3)
        if where == "claim":
            site.insert(MAILS)
            lock()
        with site.run() as runner:
            if where != "claim":
                site.insert(MAILS)
            eventually(lambda: bool(holder), "it is locked")
            runner.says(WAITS, seconds + 10)
            time.sleep(max(0, seconds - 5))
            released_at = time.monotonic()
            for own in holder:
                own.execute("ROLLBACK")
                own.close()
            site.until(30, sent=MAILS)
            took = time.monotonic() - released_at
            runner.says(BACK)
            yield from aftermath(site, relay, f"locked {seconds:g} s at the {where}", runner, took)


def failing(site: Site, shim: Shim, what: str, fault: int, where: str) -> Iterator[Figure]:
    """Every write, or every sync, of the runner to the database fails for a moment."""

    def break_it() -> None:
        shim.fail(fault)

    with story(where, break_it) as relay:
        site.register(relay.port, connections=3)
        with shim.runner(site, Path(sqlite_path(site.url))) as runner:
            runner.started()
            if where == "claim":
                break_it()
            site.insert(MAILS)
            eventually(lambda: shim.failed > 0, "it fails")
            runner.says(WAITS)
            time.sleep(HELD_FOR)
            ended_at = time.monotonic()
            shim.fail(NOTHING)
            site.until(30, sent=MAILS)
            took = time.monotonic() - ended_at
            runner.says(BACK)
            yield from aftermath(site, relay, f"{what} at the {where}", runner, took)


def replaced(cruelty: Cruelty, places: Places, trials: int) -> Iterator[Figure]:
    """At a moment by chance another database is put in its place: no mark may be newer than that."""
    dice, later, went_on, dots, slowest = random.Random(cruelty.seed), 0, 0, 0, 0.0
    for trial in range(trials):
        if trial % 10 == 0:
            cruelty.say(f"storage: replaced under the runner, {trial} of {trials}")
        with places.fresh("sqlite") as site, Relay() as relay:
            path = Path(sqlite_path(site.url))
            another, aside = path.with_name("another.db"), path.with_name("aside.db")
            with closing(sqlite3.connect(places.folder / "template.db")) as template:
                template.execute("VACUUM INTO ?", (str(another),))
            with closing(sqlite3.connect(another)) as own, own:
                own.execute("UPDATE outbox_meta SET value = 'another' WHERE key = 'database_uuid'")
            site.register(relay.port, connections=5)
            site.insert(3000)
            site.db.close()
            with site.run("-q") as runner:
                relay.wait(1 + dice.randrange(300), 20)
                for suffix in ("-shm", "-wal", ""):
                    os.rename(f"{path}{suffix}", f"{aside}{suffix}")
                another.rename(path)
                at, began = moment(datetime.now(UTC)), time.monotonic()
                if runner.wait(20) != 3:
                    went_on += 1
                slowest = max(slowest, time.monotonic() - began)
            with closing(sqlite3.connect(aside)) as own:
                own.execute("PRAGMA synchronous = OFF")
                [(count, newest)] = own.execute(
                    "SELECT count(*), max(dot_at) FROM outbox_delivery WHERE dot_at NOT NULL"
                )
            later += bool(newest and newest > str(at))
            dots += len(relay.messages) > count
    yield none_of(TOPIC, f"replaced, {trials} trials: marks after it", later)
    yield none_of(TOPIC, f"replaced, {trials} trials: dots without a mark", dots)
    yield none_of(
        TOPIC, f"replaced, {trials} trials: not ended with 3", went_on, f"at the latest after {slowest:.1f} s"
    )


def read_too_long(site: Site) -> Iterator[Figure]:
    """Somebody reads, and forgets it: the log grows, and both the runner and doctor say so; then it is small again."""
    path = sqlite_path(site.url)
    with Relay() as relay, closing(sqlite3.connect(path, isolation_level=None)) as idle:
        site.register(relay.port)
        idle.execute("BEGIN")
        idle.execute("SELECT count(*) FROM outbox").fetchall()
        with site.run("-q") as runner:
            while os.stat(f"{path}-wal").st_size < LOG_TOO_LARGE + (4 << 20):
                site.insert(4, text_body="Thanks for your order.\n" * 100_000)
            runner.says("the write-ahead log has", 30)
            warned = "old read transaction" in " ".join(site.outbox("doctor")[1].split())
            largest = os.stat(f"{path}-wal").st_size
            idle.execute("ROLLBACK")
            site.insert(3)

            def small() -> bool:
                site.insert(1)
                time.sleep(0.1)
                return os.stat(f"{path}-wal").st_size < LOG_TOO_LARGE / 2

            eventually(small, "the log begins anew", 30)
            after = os.stat(f"{path}-wal").st_size
    yield none_of(TOPIC, "a reader that forgot to end: not said by doctor", int(not warned))
    note = f"{largest / 2**20:.0f} MB before it ended"
    yield at_most(TOPIC, "a reader that forgot to end: log after its end", after / 2**20, "MB", 32, note)


@contextmanager
def disk(folder: Path, octets: int) -> Iterator[None]:
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={octets}", "tmpfs", folder], capture_output=True, text=True
    )
    if made.returncode:
        raise Unmeasurable(f"a small disk cannot be mounted: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def full_at_the_end(site: Site) -> Iterator[Figure]:
    """A real disk is full when the results come, and stays so until the runner has been told to stop."""
    small, ballast = site.folder / "small", site.folder / "small" / "ballast"
    with disk(small, 3 << 20):
        shutil.copyfile(sqlite_path(site.url), small / "outbox.db")
        with closing(Site(f"sqlite:///{small}/outbox.db", site.folder)) as there:

            def fill() -> None:
                with ballast.open("wb", buffering=0) as file:
                    try:
                        while file.write(bytes(4096)):
                            pass
                    except OSError:
                        return

            with story("settlement", fill) as relay:
                there.register(relay.port, connections=3)
                there.insert(MAILS)
                with there.run(run_grace="3s") as runner:  # so long does a mark wait for the disk
                    runner.says(WAITS)
                    runner.stop()
                    ended = runner.wait(30)
                    rescued = "wait in" in runner.output and "outbox.rescue" in runner.output
                ballast.unlink()
                with there.run("--until-empty") as successor:
                    successor.wait(60)
                wrong = broken(there.query, Journal(relay.messages), "sqlite", at_rest=True)
                more = len(relay.messages) - MAILS
    yield none_of(TOPIC, "a full disk at the end: copies more", more, f"exit status {ended}")
    yield none_of(TOPIC, "a full disk at the end: results not rescued elsewhere", int(not rescued))
    yield none_of(
        TOPIC, "a full disk at the end: broken invariants", len(wrong), json.dumps(wrong, default=str) if wrong else ""
    )


def read_only(site: Site) -> Iterator[Figure]:
    """A database that cannot be written: said at the start, with what to do."""
    closed = site.folder / "closed"
    with disk(closed, 8 << 20):
        shutil.copyfile(sqlite_path(site.url), closed / "outbox.db")
        subprocess.run(["mount", "-o", "remount,ro", closed], check=True)
        status, said = site.outbox("--database", str(closed / "outbox.db"), "run", "--once")
    words = " ".join(said.split())
    told = status == 4 and "must" in words and ("writ" in words)
    yield none_of(TOPIC, "a read-only database: not refused in words", int(not told), f"exit status {status}")
