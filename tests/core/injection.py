"""Thousands of attempts to make a row into a header field, a part, a recipient or an SMTP command that nobody meant.

    python -m tests.core.injection        one line of JSON: how many cases, and every fault that was found

Needs the standard library alone, so that every Python can be asked: what a parser makes of a header differs between
them, and the older ones let a line feed in an encoded-word out (CVE-2024-6923). The cases are the same every time.

A case is *refused* (InvalidMessage, or a refusal of our own before anything is said) or *composed*; then its octets and
this Python's parser must show exactly the fields, parts and recipients that its columns name.
"""

from __future__ import annotations

import json
import random
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import product

from outbox.core.address import Address
from outbox.core.dsn import Dsn
from outbox.core.message import Attachment, Message
from tests.core.intrusion import Result, address_case, composed_case, dsn_case, envelope_case, hello_case

EVIL = "evil@evil.example"
BREAKS = (
    *("\r\n", "\n", "\r", "\n\r", "\r\n ", "\r\n\t", "\r\n\r\n", "\n\n", "\r\r\n", "\r\n\0"),
    *("\0", "\v", "\f", "\x1c", "\x1e", "\x7f", "\x85", "\u2028", "\u2029", "\ud800"),
    *("\u010d\u010a", "\u560d\u560a", "%0D%0A", "=0D=0A", "\\r\\n", "&#13;&#10;"),  # what others decode to a break
)
INTENTS = (
    *(f"Bcc: {EVIL}", f"bcc:{EVIL}", f"To: {EVIL}", f"From: {EVIL}", "X-Evil: yes", "Content-Type: text/html"),
    *(
        f"RCPT TO:<{EVIL}>",
        f"MAIL FROM:<{EVIL}>",
        "DATA",
        f".\r\nMAIL FROM:<{EVIL}>",
        "QUIT",
        *("--=_m.7.0123456789abcdef", "--=_a.7.0123456789abcdef", "--=_a.7.0123456789abcdef--"),
    ),
)
SYNTAX = (
    *('"', "\\", '\\"', '"\\', "<", ">", "><", "> SIZE=1", f">, <{EVIL}", f" <{EVIL}>", f"<{EVIL}>", f", {EVIL}"),
    *("(", ")", "(a", ";", ":", "a: ", ",", "@", "@evil.example", "=?", "?=", "=?utf-8?q?", "=?=?", "; name=x", "''"),
    *("[", "]", " ", "\t", ".", "..", "*=", "+0D+0A", "=", "%", "&", "`", "$(id)"),
)
WORDS = ("", "a", "Ann", "ü", "日本", "💩", "x" * 70, "y" * 1100, "Re:", "-")

PLAIN = Message(
    id=7,
    token="0123456789abcdef",
    created_at=datetime(2026, 3, 1, 9, 5, 7, tzinfo=UTC),
    sender="shop@example.com",
    recipients="ann@example.net",
    subject="Order 7",
    text_body="Thanks",
)
ANN = ("ann@example.net",)

Build = Callable[[str], Message]


def encoded(text: str) -> Iterator[str]:
    """`text` as others may decode it: encoded-words (RFC 2047) and a parameter (RFC 2231)."""
    octets = text.encode("utf-8", "replace")
    q = "".join(f"={octet:02X}" for octet in octets)
    yield f"=?utf-8?q?{q}?="
    yield f"=?utf-8?b?{b64encode(octets).decode()}?="
    yield f"=?us-ascii?Q?a=0A?= {text}"
    yield "utf-8''" + "".join(f"%{octet:02X}" for octet in octets)


def payloads(chance: random.Random, count: int) -> list[str]:
    """Different texts, the same for the same `chance`: a break and an intent, plain, encoded, or among other things."""
    plain = ["".join(each) for each in product(BREAKS, INTENTS)]
    pool = plain + [word for text in plain for word in encoded(text)]
    # A harmless one, for no column refuses everything, and the plainest of the others.
    found: dict[str, None] = dict.fromkeys(("a", *(f"x\r\n{intent}\r\n" for intent in INTENTS)))
    while len(found) < count:
        kind = chance.random()
        if kind < 0.35:
            text = chance.choice(WORDS) + chance.choice(pool)
        elif kind < 0.6:
            text = "".join(chance.choice((chance.choice(SYNTAX), chance.choice(WORDS))) for _ in range(6))
        else:
            pieces = chance.choices((*BREAKS, *INTENTS, *SYNTAX, *SYNTAX, *WORDS), k=chance.randint(1, 6))
            text = chance.choice(("", " ")).join(pieces)
        found.setdefault(text)
    return list(found)


def named(text: str) -> str:
    """An address list that is Ann, under that name."""
    return str(Address(text, "ann", "example.net"))


def attached(**columns: object) -> Callable[[str], Message]:
    """A mail with a file, one column of which is the payload (marked by ``...``)."""

    def build(text: str) -> Message:
        filled = {name: text if value is ... else value for name, value in columns.items()}
        html = "<p>" if filled.get("content_id") else None
        file = Attachment(**{"filename": "a.txt", "content": b"1", **filled})  # type: ignore[arg-type]
        return replace(PLAIN, html_body=html, attachments=(file,))

    return build


def octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


RAW = b"From: shop@example.com\r\nTo: ann@example.net\r\nSubject: whole\r\n"

COMPOSED: dict[str, Build] = {
    "subject": lambda text: replace(PLAIN, subject=text),
    "sender_name": lambda text: replace(PLAIN, sender_name=text),
    "the name of a recipient": lambda text: replace(PLAIN, recipients=named(text)),
    "the name of a cc": lambda text: replace(PLAIN, cc=named(text)),
    "the name of a bcc": lambda text: replace(PLAIN, bcc=named(text)),
    "the name of a reply_to": lambda text: replace(PLAIN, reply_to=named(text)),
    "the value of a header": lambda text: replace(PLAIN, headers=json.dumps({"X-Note": text, "X-Last": "1"})),
    "one of several values": lambda text: replace(PLAIN, headers=json.dumps({"X-Note": ["1", text, "3"]})),
    "the name of a header": lambda text: replace(PLAIN, headers=json.dumps({text: "1", "X-Last": "1"})),
    "the end of a header's name": lambda text: replace(PLAIN, headers=json.dumps({f"X-Note{text}": "1"})),
    "headers": lambda text: replace(PLAIN, headers='{"X-Note": "' + text + '"}'),
    "token": lambda text: replace(PLAIN, token=text),
    "filename": attached(filename=...),
    "content_type": lambda text: attached(content_type=f"text/plain{text}")(text),
    "a parameter of content_type": lambda text: attached(content_type=f"text/plain; name={text}")(text),
    "a quoted parameter of content_type": lambda text: attached(content_type=f'text/plain; name="{text}"')(text),
    "content_id": attached(content_id=...),
    "text_body": lambda text: replace(PLAIN, text_body=text),
    "html_body": lambda text: replace(PLAIN, html_body=f"<p>{text}"),
    "the content of an attachment": lambda text: attached(content=octets(text))(text),
    "an attached message": lambda text: attached(content=octets(text), content_type="message/rfc822")(text),
    "the body of raw": lambda text: replace(PLAIN, subject="", text_body=None, raw=RAW + b"\r\nHi" + octets(text)),
}
ADDRESSES: dict[str, Build] = {
    "sender": lambda text: replace(PLAIN, sender=f"shop{text}@example.com"),
    "the domain of the sender": lambda text: replace(PLAIN, sender=f"shop@example.com{text}"),
    "return_path": lambda text: replace(PLAIN, return_path=f"shop{text}@example.com"),
    "the domain of the return_path": lambda text: replace(PLAIN, return_path=f"shop@{text}example.com"),
    "recipients": lambda text: replace(PLAIN, recipients=f"ann{text}@example.net"),
    "the end of recipients": lambda text: replace(PLAIN, recipients=f"ann@example.net{text}"),
    "a quoted recipient": lambda text: replace(PLAIN, recipients=f'"ann{text}"@example.net'),
    "cc": lambda text: replace(PLAIN, cc=f"ann{text}@example.net"),
    "bcc": lambda text: replace(PLAIN, bcc=f"{text}ann@example.net"),
    "reply_to": lambda text: replace(PLAIN, reply_to=f"ann{text}@example.net"),
}
CASES_OF_EACH = 140
CASES_OF_ENVELOPES = 250


def cases(chance: random.Random) -> Iterator[tuple[str, str, Callable[[], Result]]]:
    """(column, payload, what tries it)."""
    for column, build in COMPOSED.items():
        for text in payloads(chance, CASES_OF_EACH):
            yield column, text, partial(_compose, build, text)
    for column, build in ADDRESSES.items():
        for text in payloads(chance, CASES_OF_EACH):
            yield column, text, partial(_address, build, text)
    for text, other in zip(payloads(chance, CASES_OF_ENVELOPES), payloads(chance, CASES_OF_ENVELOPES), strict=True):
        people = (f"ann{text}@example.net", *ANN, f"bo@{other}.net")
        yield "MAIL", text, partial(envelope_case, f"shop{text}@example.com", ANN)
        yield "RCPT", text, partial(envelope_case, "shop@example.com", people)
        for dsn in (Dsn(envid=text), Dsn(notify=text, envid="7"), Dsn(notify="never", ret=text)):
            yield "DSN", text, partial(dsn_case, dsn)
        yield "EHLO and AUTH", text, partial(hello_case, text, other)


def _compose(build: Build, text: str) -> Result:
    return composed_case(build(text), ANN)


def _address(build: Build, text: str) -> Result:
    return address_case(build(text))


def run(seed: int = 20260301) -> dict[str, object]:
    """Every case. `faults` says what each column that was broken out of became."""
    counts = Counter(cases=0, composed=0, refused=0)
    by_column: dict[str, Counter[str]] = {}
    faults: list[str] = []
    for column, text, attempt in cases(random.Random(seed)):
        try:
            composed, found = attempt()
        except Exception as error:  # noqa: BLE001 - nothing in a row may raise anything but a refusal
            composed, found = True, [f"{type(error).__name__}: {error}"]
        kind = "composed" if composed else "refused"
        counts.update(("cases", kind))
        by_column.setdefault(column, Counter())[kind] += 1
        faults.extend(f"{column}, {text!a}: {fault}" for fault in found)
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        **counts,
        "by_column": {column: dict(each) for column, each in by_column.items()},
        "faults": faults,
    }


if __name__ == "__main__":
    print(json.dumps(run()))
