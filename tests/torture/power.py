"""The power goes: at every moment, what was acknowledged is in the file that is left of the database.

A runner and an application work on a SQLite database under a shim that logs every write, truncation and sync, in order.
Then the power is cut at moments by chance. What was synced is on the disk; of what was written since then each sector
(512 octets) is there or not, by chance. SQLite opens what is left. Acknowledged are: a mail, when its COMMIT has
returned; a dot mark, when the relay sees the dot; a result, when the runner's log tells it.

That the shim can tell is shown with `synchronous = NORMAL`, where acknowledged mail must be lost.
"""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from outbox.store.database import sqlite_path
from tests.bench.figures import Figure, at_least
from tests.relay import Relay, Session
from tests.relay_session import Answer
from tests.running import Program, Site, eventually
from tests.torture.cruelty import Cruelty, none_of
from tests.torture.places import Places
from tests.torture.shim import Record, Shim

TOPIC = "power"
SECTOR = 512

APPLICATION = """
import sys, os
from outbox.store.database import connect

db = connect(sys.argv[1])
db.execute_sql("PRAGMA synchronous = " + sys.argv[2])
db.execute_sql("PRAGMA wal_autocheckpoint = 40")
for turn in range(int(sys.argv[3])):
    with db.atomic():
        [[number]] = db.execute_sql(
            "INSERT INTO outbox (sender, recipients, subject, text_body) VALUES"
            " ('shop@example.com', ?, 'Order 7', ?) RETURNING id",
            ("ann%d@example.net" % (turn + 1), "Thanks " * 200)).fetchall()
    os.write(1, b"COMMITTED %d\\n" % number)
"""
_SAID = re.compile(r"^COMMITTED (\d+)$|id=(\d+) to=.* status=(sent)", re.MULTILINE)


@dataclass
class Promised:
    """The ids that were acknowledged before the cut."""

    committed: set[int] = field(default_factory=set)
    dotted: set[int] = field(default_factory=set)
    sent: set[int] = field(default_factory=set)

    def hear(self, record: Record) -> None:
        if record.op == "a":
            self.dotted.add(int(record.octets))
        elif record.op == "s":
            for committed, sent, _ in _SAID.findall(record.octets.decode(errors="replace")):
                (self.committed if committed else self.sent).add(int(committed or sent))


def measure(cruelty: Cruelty) -> Iterator[Figure]:
    cuts, mails = cruelty.size(500, 50), cruelty.size(150, 60)
    dice = random.Random(cruelty.seed)
    with Places(cruelty.folder, None) as places:
        cruelty.say("power: a runner and an application")
        with places.fresh("sqlite") as site:
            first, records = recorded(site, mails)
            yield from cut(site.folder, first, records, cuts, dice, f"FULL, {cuts} cuts")
        cruelty.say("power: an application without FULL, which must lose")
        with places.fresh("sqlite") as site:
            first, records = enqueued(site, mails, "NORMAL")
            figures = list(cut(site.folder, first, records, max(20, cuts // 10), dice, "NORMAL"))
            lost = figures[0].value
            yield at_least(TOPIC, "NORMAL: cuts that lose acknowledged mail, so the shim can tell", lost, "", 1)


def recorded(site: Site, mails: int) -> tuple[Path, list[Record]]:
    """The file as it was in the beginning, and what was written after that, by both."""
    shim, path = Shim(site.folder / "shim"), Path(sqlite_path(site.url))

    def dot(session: Session, line: str) -> Answer:
        shim.acknowledge(session.recipients[0].partition("@")[0].removeprefix("ann"))  # its id, in a fresh database
        return None

    with Relay({"dot": dot}) as relay:
        site.register(relay.port, connections=5)
        first = _beginning(site, path)
        command = [sys.executable, "-c", APPLICATION, site.url, "FULL", str(mails)]
        with shim.runner(site, path, log=True) as runner:
            runner.started()
            with Program(command, site.folder, **shim.environment(path, log=True)) as application:
                application.wait(120)
            relay.wait(mails, 60)
            site.db.connect()
            site.until(60, sent=mails)
            site.db.close()
            runner.stop()
            runner.wait()
    return first, list(shim.records())


def enqueued(site: Site, mails: int, synchronous: str) -> tuple[Path, list[Record]]:
    shim, path = Shim(site.folder / "shim"), Path(sqlite_path(site.url))
    first = _beginning(site, path)
    command = [sys.executable, "-c", APPLICATION, site.url, synchronous, str(mails)]
    with Program(command, site.folder, **shim.environment(path, log=True)) as application:
        application.wait(120)
    return first, list(shim.records())


def _beginning(site: Site, path: Path) -> Path:
    site.db.close()
    eventually(lambda: not Path(f"{path}-wal").exists(), "the log is folded into the file")
    first = path.with_name("first.db")
    shutil.copyfile(path, first)
    return first


def cut(
    folder: Path, first: Path, records: Sequence[Record], cuts: int, dice: random.Random, name: str
) -> Iterator[Figure]:
    """Cut the power so often, and compare."""
    losing, broken, least = 0, 0, len(records)
    lost: list[str] = []
    total = Promised()
    for _ in range(cuts):
        moment = dice.randrange(1, len(records) + 1)
        promised = Promised()
        for record in records[:moment]:
            promised.hear(record)
        total = max(total, promised, key=lambda each: len(each.committed))
        left = remains(folder / "cut", first, records[:moment], dice)
        missing, sound = compare(left, promised)
        losing += bool(missing)
        broken += not sound
        lost += missing[:3]
        least = min(least, moment)
    heard = f"of up to {len(total.committed)} COMMITs, {len(total.dotted)} dots, {len(total.sent)} results"
    yield none_of(TOPIC, f"{name}: that lost something acknowledged", losing, "; ".join(lost[:3]) or heard)
    yield none_of(TOPIC, f"{name}: that left a damaged file", broken, f"{len(records)} writes, syncs and words")


def remains(target: Path, first: Path, records: Sequence[Record], dice: random.Random) -> Path:
    """The files that are left: what was synced, and of the rest what chance says."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    files: dict[str, bytearray] = {}
    synced = {record.name: place for place, record in enumerate(records) if record.op == "f"}
    for place, record in enumerate(records):
        if record.op not in "wt":
            continue
        suffix = "-wal" if record.name.endswith("-wal") else ""
        content = files.setdefault(suffix, bytearray() if suffix else bytearray(first.read_bytes()))
        certain = place < synced.get(record.name, -1)
        if record.op == "t":
            if certain or dice.random() < 0.5:
                _resize(content, record.offset)
            continue
        for start in range(0, len(record.octets), SECTOR):
            if certain or dice.random() < 0.5:
                piece = record.octets[start : start + SECTOR]
                at = record.offset + start
                if len(content) < at + len(piece):
                    _resize(content, at + len(piece))
                content[at : at + len(piece)] = piece
    path = target / "outbox.db"
    path.write_bytes(files.get("", first.read_bytes()))
    if "-wal" in files:
        (target / "outbox.db-wal").write_bytes(files["-wal"])
    return path


def _resize(content: bytearray, length: int) -> None:
    if length < len(content):
        del content[length:]
    else:
        content.extend(bytes(length - len(content)))


def compare(path: Path, promised: Promised) -> tuple[list[str], bool]:
    """What is missing, in words, and whether the file is sound."""
    with closing(sqlite3.connect(path)) as db:
        try:
            there = {row[0] for row in db.execute("SELECT id FROM outbox")}
            dotted = {row[0] for row in db.execute("SELECT message_id FROM outbox_attempt WHERE dot_at NOT NULL")}
            dotted |= {row[0] for row in db.execute("SELECT message_id FROM outbox_delivery WHERE dot_at NOT NULL")}
            sent = {row[0] for row in db.execute("SELECT message_id FROM outbox_delivery WHERE state = 'sent'")}
            sound = db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        except sqlite3.DatabaseError as error:
            return [str(error)], False
    missing = [f"mail {each}" for each in sorted(promised.committed - there)]
    missing += [f"the mark of {each}" for each in sorted(promised.dotted - dotted)]
    missing += [f"the result of {each}" for each in sorted(promised.sent - sent)]
    return missing, sound
