"""An assortment of mails that relays have been known to change, and a way to say whether one of them did."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from outbox import Attachment, Mail, enqueue_many
from tests.running import Site

TEXT = (
    ".\n..\n.hidden\nFrom here on\n" + "a" * 1200 + "\n\ttab and blank \nAnn schrieb: Schöne Grüße, 日本 🎉\n.\nend\n"
)
BINARY = bytes(range(256)) * 99
RAW = (
    b"From: Shop <shop@example.com>\r\nTo: ann@example.net\r\nSubject: raw\r\nX-Odd:   spaced\r\n\tand folded\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b".\r\n..dots\r\nSch\xc3\xb6ne Gr\xc3\xbc\xc3\x9fe\r\n\r\ntrailing  \r\n"
)


def assorted() -> list[Mail]:
    sender = "Shop <shop@example.com>"
    to = "ann@example.net"
    return [
        Mail(to=to, subject="plain", text=TEXT, sender=sender),
        Mail(to="Ann Ünal <ann@example.net>", subject="Grüße 日本 " * 20, text=TEXT, html=f"<p>{TEXT}", sender=sender),
        Mail(to=to, subject="files", text="see there", attachments=[Attachment("ü.bin", BINARY)], sender=sender),
        Mail(to=to, subject="long", text="Thanks for your order.\n" * 90_000, sender=sender),
        Mail(to=[f"ann{turn}@example.net" for turn in range(130)], bcc="secret@example.net", text=TEXT, sender=sender),
        Mail.from_message(RAW, sender="shop@example.com", to=to),
    ]


def insert_assorted(site: Site) -> list[int]:
    with site.db.atomic():
        numbers = enqueue_many(site.db, assorted())
    return [number for number in numbers if number is not None]


@dataclass(frozen=True)
class Delivery:
    """A message as a peer has stored it: from whom and for whom by the envelope, and what we had sent, CRLF again,
    without what the peer has put before it.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes


_ADDED = rb"return-path|x-original-to|delivered-to|envelope-to|delivery-date|received|x-[a-z]+-(?:addr|proto|args)"
_PREPENDED = re.compile(rb"(?:(?i:%s):[^\n]*\n(?:[ \t][^\n]*\n)*)*" % _ADDED)


def without_added(stored: bytes) -> bytes:
    """What was sent, of what a peer has stored: less the trace fields at its beginning. Line ends are CRLF again."""
    match = _PREPENDED.match(stored)
    assert match is not None, "it may match nothing"
    return re.sub(rb"\r?\n", b"\r\n", stored[match.end() :])


class Maildir:
    """A maildir of Postfix or Exim, which put the envelope into fields. Each file is read once."""

    def __init__(self, folder: Path) -> None:
        self._new = folder / "new"
        self._read: dict[str, Delivery] = {}

    @property
    def deliveries(self) -> list[Delivery]:
        for file in self._new.glob("*"):
            if file.name not in self._read:
                self._read[file.name] = _read_delivery(file.read_bytes())
        return list(self._read.values())


def _read_delivery(stored: bytes) -> Delivery:
    """One recipient has one file. By the octets, for an address need not be ASCII."""
    path, recipient = (re.search(rb"(?mi)^(?:%s): ?(.*)$" % name, stored) for name in (_RETURN_PATH, _RECIPIENT))
    assert path is not None, stored[:500]
    assert recipient is not None, stored[:500]
    return Delivery(path[1].strip(b"<>").decode(), (recipient[1].decode(),), without_added(stored))


_RETURN_PATH, _RECIPIENT = rb"return-path", rb"x-original-to|envelope-to"


def keys(site: Site) -> dict[int, str]:
    """The number of each message → what its Message-ID begins with, which no other test's has."""
    rows = site.query("SELECT id, token FROM outbox")
    return {number: f"{number}.{token}" for number, token in rows}


def sent_digests(site: Site) -> dict[str, set[str]]:
    """The key of each message → the sha256 of what we have sent, as its attempts say it."""
    found: dict[str, set[str]] = {}
    named = keys(site)
    for number, digest in site.query("SELECT message_id, sha256 FROM outbox_attempt WHERE sha256 <> ''"):
        found.setdefault(named[number], set()).add(str(digest))
    return found


def digests_of(contents: Iterable[bytes]) -> dict[str, set[str]]:
    """The key of each message → the digests of the copies of it, `without_added`."""
    found: dict[str, set[str]] = {}
    for content in contents:
        found.setdefault(key_of(content), set()).add(hashlib.sha256(content).hexdigest())
    return found


def key_of(content: bytes) -> str:
    match = re.search(rb"(?m)^Message-ID: <(\d+\.[0-9a-f]+)@", content)
    assert match is not None, content[:500]
    return match[1].decode()


def copies(site: Site, deliveries: Iterable[Delivery]) -> list[tuple[int, str]]:
    """(number, recipient) of each copy of this site's mail, sorted; one that comes twice is in it twice."""
    numbers = {key: number for number, key in keys(site).items()}
    return sorted(
        (numbers[key_of(each.content)], recipient)
        for each in deliveries
        if key_of(each.content) in numbers
        for recipient in each.recipients
    )


def accepted(site: Site) -> list[tuple[int, str]]:
    """(number, recipient) of all that the database calls accepted, sorted."""
    rows = site.query("SELECT message_id, address FROM outbox_fate WHERE fate = 'accepted'")
    return sorted((number, address) for number, address in rows)


def same_bytes(site: Site, deliveries: Iterable[Delivery]) -> bool:
    """Whether every copy of this site's mail is what an attempt says was sent, and there is one of each that was
    accepted.
    """
    named, sent = set(keys(site).values()), sent_digests(site)
    stored = digests_of(each.content for each in deliveries if key_of(each.content) in named)
    expected = {keys(site)[number] for number, _ in accepted(site)}
    return stored == {key: sent[key] for key in expected}
