"""Hostile rows: a batch with a hundred of them, one that kills the process, and more than memory would hold."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from tests.bench.figures import Figure, at_most
from tests.bench.ground import Sink
from tests.reconcile import Journal, broken
from tests.relay import Relay
from tests.running import Program, Site, eventually
from tests.torture import hostilities
from tests.torture.cruelty import Cruelty, none_of
from tests.torture.places import Places

TOPIC = "hostile"
GOOD = 900
SHOWN = 5
MB = 1_000_000


def measure(cruelty: Cruelty) -> Iterator[Figure]:
    kinds = ("sqlite", "postgres") if cruelty.postgres else ("sqlite",)
    with Places(cruelty.folder, cruelty.postgres) as places:
        for kind in kinds:
            cruelty.say(f"hostile: a batch on {kind}")
            with places.fresh(kind) as site:
                yield from batch(site, kind)
            cruelty.say(f"hostile: a message that kills on {kind}")
            with places.fresh(kind) as site:
                yield from deadly(site, kind)
        cruelty.say("hostile: more than memory would hold")
        with places.fresh("sqlite") as site:
            yield from heavy(cruelty, site, cruelty.size(10_000, 1_000))


def batch(site: Site, kind: str, good: int = GOOD) -> Iterator[Figure]:
    """Every good mail is sent, every bad one fails for its own reason, and nothing is started anew. The bad ones are
    spread among the good, and each is another (`hostilities.py`).
    """
    kinds = [each for each in hostilities.all_of_them() if hostilities.storable(kind, each)]
    expected: dict[int, hostilities.Hostility] = {}
    with Relay() as relay:
        site.register(relay.port, connections=10)
        hostilities.without_checks(site.db)
        with site.db.atomic():
            site.insert(good - len(kinds))
            for each in kinds:
                expected[hostilities.insert(site.db, each)] = each
                site.insert(1)
        with site.run("-q", "--until-empty") as runner:
            ended = runner.wait(180)
            crashes = sum("Traceback" in line or "internal error" in line for line in runner.lines)
        sent, found = outcomes(site)
        heard = "\n".join(relay.commands) + "".join(str(each.content) for each in relay.messages)
        invariants = broken(site.query, Journal(relay.messages), kind)
    wrong = hostilities.unlike((each, found[number]) for number, each in expected.items())
    reasons = {found[number][1:] for number in expected}
    codes = len({each.status for each in kinds})
    note = f"{codes} codes, {len(reasons)} reasons, each with its column and fault"
    yield none_of(TOPIC, f"{kind}: of {good} good mails not sent", good - sent)
    yield none_of(
        TOPIC, f"{kind}: of {len(kinds)} hostile, all different, not failed for their reason", len(wrong), note
    )
    for each_wrong in wrong[:SHOWN]:
        yield none_of(TOPIC, f"{kind}: {each_wrong}"[:200], 1)
    yield none_of(TOPIC, f"{kind}: tracebacks, ends", crashes + bool(ended))
    yield none_of(TOPIC, f"{kind}: what they smuggled in", heard.count("eve@"))
    yield none_of(TOPIC, f"{kind}: broken invariants", len(invariants), str(invariants) if invariants else "")


def outcomes(site: Site) -> tuple[int, dict[int, tuple[str, str, str]]]:
    """How many were sent, and state, status and reply of each."""
    rows = site.query("SELECT message_id, state, last_status, last_reply FROM outbox_delivery")
    return sum(row[1] == "sent" for row in rows), {row[0]: tuple(row[1:]) for row in rows}


def deadly(site: Site, kind: str) -> Iterator[Figure]:
    """It is tried three times at most, and takes no other mail with it."""
    with Relay() as relay:
        site.register(relay.port, connections=5)
        site.insert(20)
        [killer] = site.insert(1, subject="deadly")
        site.insert(20)
        deaths, began = 0, time.monotonic()
        while deaths < 10:
            with Program(
                [sys.executable, "-m", "tests.torture.deadly", "run", "-q", "--until-empty"],
                site.folder,
                OUTBOX_DATABASE=site.url,
                OUTBOX_RUN_LEASE="2s",
                OUTBOX_RUN_RENEW="500ms",
            ) as runner:
                if runner.wait(60) == 0:
                    break
                deaths += 1
        state = site.delivery(killer)["state"]
        eventually(lambda: site.states().get("sending", 0) == 0, "nothing is under way")
        attempts = site.query("SELECT count(*) FROM outbox_attempt WHERE message_id = ?", killer)[0][0]
        sent = site.states().get("sent", 0)
        invariants = broken(site.query, Journal(relay.messages), kind)
        took = time.monotonic() - began
    yield at_most(
        TOPIC, f"{kind}: attempts at what kills its runner", attempts, "", 3, f"{state}; {deaths} deaths, {took:.0f} s"
    )
    yield none_of(TOPIC, f"{kind}: beside it not sent", 40 - sent)
    yield none_of(
        TOPIC, f"{kind}: beside it, broken invariants", len(invariants), str(invariants) if invariants else ""
    )


def heavy(cruelty: Cruelty, site: Site, count: int) -> Iterator[Figure]:
    """So many mails of 20 kB, one of 25 MB, and one to ten thousand."""
    text = ("x" * 70 + "\n") * (20_000 // 71)
    from tests.bench.figures import Bench

    with Sink(Bench(cruelty.folder, cruelty.say)) as sink:
        site.register(sink.port, connections=10)
        with site.db.atomic():
            for _ in range(0, count, 100):
                site.insert(100, text_body=text)
        site.insert(1, bcc=", ".join(f"ann{turn}@example.net" for turn in range(10_000)))
        site.insert(1, text_body=("x" * 70 + "\n") * (24_900_000 // 71))
        most = 0
        with site.run("-q", "--until-empty") as runner:
            while runner.process.poll() is None:
                most = max(most, peak(runner))
                time.sleep(0.05)
        unsent = count + 2 - site.states().get("sent", 0)
    note = f"{count:,} × 20 kB + 25 MB + 10,000 recipients"
    yield at_most(TOPIC, "peak of a runner", most / MB, "MB", 200, note)
    yield none_of(TOPIC, "of these not sent", unsent)


def peak(runner: Program) -> int:
    """Octets; 0 when it has ended."""
    try:
        with open(f"/proc/{runner.process.pid}/status", encoding="ascii") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")), 0)
    except OSError:
        return 0
