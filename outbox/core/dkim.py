"""DKIM signatures: relaxed/relaxed, one header field for each key, put before everything else.

    sign              a message and the keys of its domain → the same message, signed
    canonical_fields  the header as it is hashed         canonical_body  and the body

The arithmetic of a key is not in here: `DkimKey.sign` is a function that `outbox.vault` hands out.

A signature covers the fields that readers and relays go by, if they are there, from the last to the first, because a
verifier counts fields of one name from below (RFC 6376 §5.4.2). Each of these names is listed once more than it occurs,
so that nobody can put a second From or Subject above ours and keep the signature (§8.15); for the five that people see,
that also holds when there is none. Nothing in it depends on when it is made, so a retry has the same bytes.

Standards: RFC 6376 (§3.4.2, §3.4.4 canonicalisation, §3.5 tags, §3.7 what is hashed), RFC 8463 (Ed25519).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from outbox.core.pieces import LARGE, at_line_ends

WIDTH = 78
"""Characters of a line (RFC 5322 §2.1.1), where there is a place to break it."""

_ALWAYS = (b"from", b"to", b"cc", b"subject", b"reply-to")
# fmt: off
_PRESENT = frozenset((
    b"sender", b"date", b"message-id", b"mime-version", b"auto-submitted", b"in-reply-to", b"references",
    b"feedback-id", b"resent-date", b"resent-from", b"resent-sender", b"resent-to", b"resent-cc",
    b"resent-message-id",
))
# fmt: on
_PRESENT_PREFIXES = (b"content-", b"list-")
_PLAIN_NAME = re.compile(rb"[a-z0-9-]{1,76}")
"""A name may hold any other printable character (RFC 5322 §3.6.8), and in the tag ``h=`` a semicolon would end it."""
_SIGNATURE = b"dkim-signature"
_DOMAIN_TAG = re.compile(rb"(?:^|;) ?d ?= ?([^; ]++)")


class Algorithm(StrEnum):
    """The tag ``a=`` of a signature."""

    RSA = "rsa-sha256"
    ED25519 = "ed25519-sha256"


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A key ready to sign. `sign` makes the signature of a SHA-256 digest: RSASSA-PKCS1-v1_5, or Ed25519 of the
    digest's 32 bytes (RFC 8463 §3). `domain` is in ASCII and lower case.
    """

    domain: str
    selector: str
    algorithm: Algorithm
    sign: Callable[[bytes], bytes] = field(repr=False, compare=False)


class _Plan(NamedTuple):
    """Which fields of a header are signed, by their places in it, and the tag ``h=`` that says so, folded."""

    places: tuple[int, ...]
    tag: bytes


def sign(data: bytes, keys: Sequence[DkimKey], at: datetime) -> bytes:
    """`data` (CRLF, not dot-stuffed) with a signature of each key before it, in their order. `at` is when the message
    was made: it becomes ``t=``, in whole seconds.

    A key whose domain has signed it already, as a message that came in raw may show, adds nothing.
    """
    end = data.find(b"\r\n\r\n")
    fields = canonical_fields(data[: end + 2] if end >= 0 else data)
    names = tuple([name for name, _ in fields])
    if _SIGNATURE in names:
        signed = _signed_domains(fields)
        keys = [key for key in keys if key.domain.encode() not in signed]
    if not keys:
        return data
    plan = _plan(names)
    body_hash = b64encode(_body_digest(data, end + 4 if end >= 0 else len(data)))
    covered = sha256(b"".join([fields[place][1] for place in plan.places]))
    end_of_field = b" t=%d;%b\r\n bh=%b;\r\n b=" % (int(at.timestamp()), plan.tag, body_hash)
    signatures: list[bytes] = []
    for key in keys:
        unsigned = _beginning(key.domain, key.selector, key.algorithm) + end_of_field
        digest = covered.copy()
        digest.update(b"dkim-signature:" + unsigned.replace(b"\r\n", b"")[16:])
        signatures += (unsigned, _folded(b64encode(key.sign(digest.digest()))), b"\r\n")
    return b"".join((*signatures, data))


def canonical_fields(header: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a header whose lines end with CRLF, relaxed (RFC 6376 §3.4.2): (name in lower case, the line to be
    hashed, with its CRLF).
    """
    block = _single_spaced(header.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" "))
    fields = []
    for line in block.split(b"\r\n"):
        if line:
            name, _, value = line.partition(b":")
            name = name.rstrip(b" ").lower()
            fields.append((name, b"%b:%b\r\n" % (name, value.strip(b" "))))
    return fields


def canonical_body(body: bytes) -> bytes:
    """A body whose lines end with CRLF, relaxed (RFC 6376 §3.4.4): nothing, or lines of which the last is not empty."""
    body = _single_spaced(body)
    if b" \r\n" in body:
        body = body.replace(b" \r\n", b"\r\n")
    if body.endswith(b"\r\n") and not body.endswith(b"\r\n\r\n") and body != b"\r\n":
        return body
    body = body.removesuffix(b" ").rstrip(b"\r\n")
    return body + b"\r\n" if body else b""


def _body_digest(data: bytes, start: int) -> bytes:
    """The SHA-256 of `canonical_body` of what begins at `start`; in pieces where it is large."""
    if len(data) - start <= LARGE:
        return sha256(canonical_body(data[start:])).digest()
    digest, waiting, empty = sha256(), b"", True  # waiting: line ends, which do not count if nothing follows
    for piece in at_line_ends(data, start):
        start += len(piece)
        lines = _single_spaced(piece).replace(b" \r\n", b"\r\n")
        if start == len(data):
            lines = lines.removesuffix(b" ")
        kept = lines.rstrip(b"\r\n")
        if kept:
            digest.update(waiting + kept)
            waiting, empty = b"", False
        waiting += lines[len(kept) :]
    if not empty:
        digest.update(b"\r\n")
    return digest.digest()


def _single_spaced(text: bytes) -> bytes:
    """Runs of spaces and tabs as one space. Each turn halves a run, so there are at most ten in a line of mail."""
    if b"\t" in text:
        text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


def _signed_domains(fields: Sequence[tuple[bytes, bytes]]) -> set[bytes]:
    """The domains whose signatures a message has: the tags ``d=``, in lower case."""
    found = (_DOMAIN_TAG.search(line[len(name) + 1 :]) for name, line in fields if name == _SIGNATURE)
    return {match[1].strip().lower() for match in found if match}


@lru_cache(maxsize=256)
def _plan(names: tuple[bytes, ...]) -> _Plan:
    """For a header with these fields. An application has few kinds of mail, so few of these."""
    places = tuple(place for place in reversed(range(len(names))) if _is_signed(names[place]))
    listed = [names[place] for place in places]
    listed += [*_ALWAYS, *(name for name in dict.fromkeys(listed) if name not in _ALWAYS)]
    lines, line = [], b" h="
    for piece in (b":".join(listed) + b";").replace(b":", b": ").split(b" "):
        if len(line) + len(piece) > WIDTH:
            lines.append(line)
            line = b" "
        line += piece
    return _Plan(places, b"".join(b"\r\n" + each for each in (*lines, line)))


def _is_signed(name: bytes) -> bool:
    if name in _ALWAYS or name in _PRESENT:
        return True
    return name.startswith(_PRESENT_PREFIXES) and _PLAIN_NAME.fullmatch(name) is not None


@lru_cache(maxsize=256)
def _beginning(domain: str, selector: str, algorithm: Algorithm) -> bytes:
    """A signature up to its time. A domain may be longer than a line; then it has one of its own."""
    line, lines = b"DKIM-Signature: v=1; a=%b; c=relaxed/relaxed;" % algorithm.encode(), []
    room_for_time = len(b" t=1234567890;")
    for piece, reserved in ((f" d={domain};", 0), (f" s={selector};", room_for_time)):
        if len(line) + len(piece) + reserved > WIDTH:
            lines.append(line)
            line = b""
        line += piece.encode()
    return b"\r\n".join((*lines, line))


def _folded(signature: bytes) -> bytes:
    """Base64 behind `` b=``, in lines."""
    starts = range(WIDTH - 3, len(signature), WIDTH - 1)
    return b"\r\n ".join((signature[: WIDTH - 3], *(signature[at : at + WIDTH - 1] for at in starts)))
