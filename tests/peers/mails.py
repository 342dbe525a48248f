"""An assortment of mails that relays have been known to change, and a way to say whether one of them did."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterable

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


def sent_digests(site: Site) -> dict[str, set[str]]:
    """The Message-ID's number → the sha256 of what we have sent, as the attempt says it."""
    rows = site.query("SELECT message_id, sha256 FROM outbox_attempt WHERE outcome = 'accepted'")
    return {str(number): {digest} for number, digest in rows}


def digest_of(content: bytes) -> str:
    """The sha256 of a message as a peer has stored it, without the header fields that the peer has put before it. Line
    ends are CRLF again.
    """
    start = re.search(rb"(?m)^(Date|From): ", content)
    assert start is not None, content[:500]
    return hashlib.sha256(re.sub(rb"\r?\n", b"\r\n", content[start.start() :])).hexdigest()


def digests_of(contents: Iterable[bytes]) -> dict[str, set[str]]:
    """The Message-ID's number → the digests of the copies that a peer has stored."""
    found: dict[str, set[str]] = {}
    for content in contents:
        number = re.search(rb"(?m)^Message-ID: <(\d+)\.", content)
        assert number is not None, content[:500]
        found.setdefault(number[1].decode(), set()).add(digest_of(content))
    return found


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
