"""Mail that others have collected goes out through `raw` as it came in, byte for byte, but for what is documented.

The standard library's test data, the bounces of flufl.bounce (fetched with pip, once), and some of our own. Each is
INSERTed, sent by a runner and compared with what the relay got; what is taken out and put in is worked out here once
more, in another way. What cannot be sent as it is (no sender, a NUL, a line too long) must fail with a reason.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from outbox.clock import Clock
from outbox.core.account import Sender
from outbox.core.raw import read_fields, speaker_of
from outbox.errors import Refused
from outbox.store import senders
from outbox.store.journal import Act
from tests.bench.figures import Figure, at_least
from tests.relay import Relay
from tests.running import SHOP, Site
from tests.torture.cruelty import Cruelty, none_of
from tests.torture.places import Places

TOPIC = "corpora"
FLUFL = "flufl.bounce==6.0.0"
OWN = {
    "spacing": b"From: shop@example.com\nTo:ann@example.net,\n\tbo@example.net\n"
    b"Subject:  odd   spacing \n =?utf-8?q?k?=\nX-Empty:\n\nBody \n",
    "dots": b"From: shop@example.com\r\nTo: ann@example.net\r\n\r\n.\r\n..\r\n.dot\r\n\r\n.\r\n",
    "eight": "From: shop@example.com\nTo: ann@example.net\nSubject: Grüße\n\nÄpfel\n".encode(),
    "latin": b"From: shop@example.com\nTo: ann@example.net\n\n\xc4pfel \xff\xfe\n",
    "mixed ends": b"From: shop@example.com\rTo: ann@example.net\r\n\none\rtwo\nthree\r\n\r\n",
    "strips": b"From x Thu Jan 1\nReturn-Path: <a@b.example>\nFrom: shop@example.com\n"
    b"Bcc: eve@example.net,\n mal@example.net\nTo: ann@example.net\n\nx\n",
    "no end": b"From: shop@example.com\nTo: ann@example.net\n\nno line end",
    "no body": b"From: shop@example.com\nTo: ann@example.net\n\n",
    "long line": b"From: shop@example.com\nTo: ann@example.net\n\n" + b"x" * 998 + b"\n",
    "signature": b"DKIM-Signature: v=1; a=rsa-sha256;\n\th=From : To;\n  b=abc\n\t def\n"
    b"From: shop@example.com\nTo: ann@example.net\n\nx  \n\n\n",
    "nul": b"From: shop@example.com\nTo: ann@example.net\n\n\0\n",
    "too long": b"From: shop@example.com\nTo: ann@example.net\n\n" + b"x" * 999 + b"\n",
}
STRIPPED = rb"(?im)^(?:bcc|resent-bcc|return-path|x-sender|x-receiver)[ \t]*:.*\r\n(?:[ \t].*\r\n)*"
ADDED = re.compile(rb"(?im)^(?:date|message-id): .*\r\n(?:[ \t].*\r\n)*")


def measure(cruelty: Cruelty) -> Iterator[Figure]:
    for name, found in (("the standard library's", standard()), ("flufl.bounce's", bounces(cruelty)), ("our own", OWN)):
        if not found:
            cruelty.say(f"corpora: {name} IS NOT TRIED: it is not here")
            continue
        with Places(cruelty.folder, None) as places, places.fresh("sqlite") as site:
            yield from through(site, name, found)


def standard() -> dict[str, bytes]:
    spec = find_spec("test")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        files = sorted((Path(folder) / "test_email" / "data").glob("msg_*.txt"))
        if files:
            return {each.name: each.read_bytes() for each in files}
    return {}


def bounces(cruelty: Cruelty) -> dict[str, bytes]:
    cache = cruelty.folder.parent / "corpora"
    if not list(cache.glob("flufl*.tar.gz")):
        cache.mkdir(parents=True, exist_ok=True)
        command = ["download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(cache), FLUFL]
        done = subprocess.run([sys.executable, "-m", "pip", *command], capture_output=True, text=True)
        if done.returncode:
            cruelty.say(f"corpora: pip: {done.stderr.strip().splitlines()[-1:]}")
            return {}
    with tarfile.open(next(cache.glob("flufl*.tar.gz"))) as archive:
        found = {}
        for member in archive:
            file = (
                archive.extractfile(member) if "/tests/data/" in member.name and member.name.endswith(".txt") else None
            )
            if file is not None:
                found[member.name.rpartition("/")[2]] = file.read()
        return found


def through(site: Site, name: str, mails: dict[str, bytes]) -> Iterator[Figure]:
    known = {SHOP}
    with Relay() as relay:
        site.register(relay.port, connections=5)
        ids = {}
        with site.db.atomic():
            for title, raw in mails.items():
                sender = _registered(site, known, _speaker(raw))
                ids[
                    site.insert_one(raw=raw, text_body=None, subject=None, recipients="ann@example.net", sender=sender)
                ] = title
        with site.run("-q", "--until-empty") as runner:
            runner.wait(120)
        states = dict(site.query("SELECT message_id, state FROM outbox_delivery"))
        reasons = dict(site.query("SELECT message_id, last_reply FROM outbox_delivery"))
        # Mails keep their own Message-ID, so they are told apart by the attempt's sha256 of what was sent.
        got = {hashlib.sha256(each.content).hexdigest(): each.content for each in relay.messages}
        digests = dict(site.query("SELECT message_id, sha256 FROM outbox_attempt WHERE outcome = 'accepted'"))
    changed = [
        title
        for number, title in ids.items()
        if states[number] == "sent" and not same(mails[title], got.get(digests[number], b""))
    ]
    refused = [number for number in ids if states[number] == "failed"]
    silent = [
        ids[number]
        for number in ids
        if states[number] not in ("sent", "failed") or (number in refused and not reasons[number])
    ]
    sent = sum(state == "sent" for state in states.values())
    note = f"{sent} sent, {len(refused)} refused with a reason, of {len(ids)}"
    yield none_of(TOPIC, f"{name}: changed on the way", len(changed), ", ".join(changed[:5]) or note)
    yield none_of(TOPIC, f"{name}: neither sent nor refused with a reason", len(silent), ", ".join(silent[:5]))
    yield at_least(TOPIC, f"{name}: sent", sent, "", 1)


def _registered(site: Site, known: set[str], sender: str) -> str:
    """It, when it can be registered; else the shop, whose mail it is not, so that it is refused."""
    if sender and sender.lower() not in known:
        try:
            senders.add_sender(site.db, Sender(sender, "main"), Act("test", Clock().now()))
        except Refused:
            return SHOP
        known.add(sender.lower())
    return sender or SHOP


def _speaker(raw: bytes) -> str:
    try:
        return speaker_of(read_fields(raw)).email
    except ValueError:
        return ""


def same(raw: bytes, got: bytes) -> bool:
    """Whether `got` is `raw` but for what is documented (docs/enqueue.md)."""
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", raw)
    lines = re.sub(rb"\AFrom (?![ \t]*:).*\r\n", b"", lines)
    header, _, body = lines.partition(b"\r\n\r\n")
    header = re.sub(STRIPPED, b"", header + b"\r\n")
    body += b"" if not body or body.endswith(b"\r\n") else b"\r\n"
    if not got.startswith(header):
        return False
    rest = got[len(header) :]
    while not rest.startswith(b"\r\n"):
        added = ADDED.match(rest)
        if added is None:
            return False
        rest = rest[added.end() :]
    return rest[2:] == body
