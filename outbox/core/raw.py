"""A message that arrives complete (the column `raw`): opaque, but for what may not reach a relay.

    line ends      CRLF, LF and bare CR all become CRLF
    taken out      Bcc, Resent-Bcc, Return-Path, X-Sender, X-Receiver, and an mbox's first "From " line
    put in         Date and Message-ID, at the end of the header, where they are missing

Everything else stays as it was, byte for byte: a signature over it still holds. (Parsed and written again by the
standard library, more than half of a corpus of 414 messages came out different.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from outbox.core.address import Address, parse_header
from outbox.core.header import split_block, unfolded
from outbox.core.lines import has_long_line, with_crlf
from outbox.core.pieces import LARGE, Piece, Stream, at_line_ends

if TYPE_CHECKING:
    import email.message

STRIPPED = frozenset(("bcc", "resent-bcc", "return-path", "x-sender", "x-receiver"))

_EMPTY_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_MBOX_LINE = re.compile(rb"From (?![ \t]*:)[^\r\n]*+(?:\r\n|\n|\r)")

Fields = list[tuple[str, bytes]]
"""Of a header: (name in lower case, the whole field with its line ends)."""


def read_fields(raw: bytes) -> Fields:
    """The header fields of a raw message. Raises ValueError with a sentence."""
    return _split(raw)[0]


def compose_raw(raw: bytes, added: dict[str, str]) -> tuple[bytes, Piece]:
    """The message as it goes out, as (header with the empty line after it, body).

    `added` are fields to put in where they are missing, by name. Takes time linear in the size. Raises ValueError with
    a sentence, and so does a body that is a stream.
    """
    fields, start = _split(raw)
    kept = [field for name, field in fields if name not in STRIPPED]
    present = {name for name, _ in fields}
    kept += [f"{field}\r\n".encode() for name, field in added.items() if name.lower() not in present]
    header = _checked(b"".join(kept) + b"\r\n", "header")
    if len(raw) > LARGE:
        return header, Stream(lambda: _lines(raw, start))
    return header, _checked(_ended(with_crlf(raw[start:])))


def _lines(raw: bytes, start: int) -> Iterator[bytes]:
    """The body from `start` on."""
    for piece in at_line_ends(raw, start):
        yield _checked(_ended(with_crlf(piece)))


def _ended(body: bytes) -> bytes:
    return body + b"\r\n" if body and not body.endswith(b"\r\n") else body


def _checked(lines: bytes, part: str = "body") -> bytes:
    if b"\0" in lines:
        raise ValueError(f"there is a NUL in its {part}")
    if has_long_line(lines):
        raise ValueError(f"a line of its {part} is longer than 998 octets")
    return lines


def addresses_in(fields: Fields, *names: str) -> tuple[Address, ...]:
    """The addresses in all fields of these (lower-case) names. Raises ValueError with a sentence."""
    return tuple(address for name, field in fields if name in names for address in parse_header(unfolded(field)))


def resent_fields(fields: Fields) -> Fields:
    """The most recent block of Resent-* fields, which is the first (RFC 5322 §3.6.6): until one of them comes again."""
    block: Fields = []
    for name, field in fields:
        if name.startswith("resent-"):
            if any(name == seen for seen, _ in block):
                break
            block.append((name, field))
    return block


def speaker_of(fields: Fields) -> Address:
    """Who sends a message that nobody else speaks for: its Sender, else its only From (RFC 5322 §3.6.2). Raises
    ValueError.
    """
    found = addresses_in(fields, "sender") or addresses_in(fields, "from")
    if len(found) != 1:
        raise ValueError(f"the message names {len(found)} addresses in Sender and From: say which one it is")
    return found[0]


def written(message: email.message.Message) -> bytes:
    """The bytes of an EmailMessage, if they say what it says. Raises ValueError with a sentence.

    The standard library before 3.12.5 lets a line feed in an encoded-word out as a new field (CVE-2024-6923), so the
    fields are counted again.
    """
    if not hasattr(message, "as_bytes") or not hasattr(message, "policy"):
        raise ValueError(f"it must be an EmailMessage or bytes, not {type(message).__name__}")
    try:
        policy = message.policy.clone(linesep="\r\n")
        if _is_international(message):
            policy = policy.clone(utf8=True)  # type: ignore[call-arg] # only an EmailPolicy parses addresses
        raw: bytes = message.as_bytes(policy=policy)
    except Exception as fault:  # the generator raises whatever a strange payload makes it
        raise ValueError(f"it cannot be written: {type(fault).__name__}: {fault}") from fault
    meant = [name.lower() for name in message.keys()]  # noqa: SIM118 - no dict: a name may come twice
    if [name for name, _ in read_fields(raw)] != meant:
        raise ValueError("written out, its header has other fields than it was given")
    return raw


def _is_international(message: email.message.Message) -> bool:
    """Whether an address of it is not ASCII: the standard library would write that as an encoded-word, which means
    nothing in an address.
    """
    return any(
        not part.isascii()
        for name in ("from", "sender", "reply-to", "to", "cc", "bcc")
        for value in message.get_all(name, [])
        for address in getattr(value, "addresses", ())
        for part in (address.username, address.domain)
    )


def subject_of(raw: bytes) -> str:
    """The Subject of a raw message, decoded, on one line, for whoever looks for it in a list. Empty where there is
    none, or none that can be read: what is sent is the message.
    """
    from email.errors import HeaderParseError
    from email.header import decode_header, make_header

    try:
        text = value_of(read_fields(raw), "subject")
        if "=?" in text:
            text = str(make_header(decode_header(text)))
    except (ValueError, LookupError, HeaderParseError):
        return ""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def value_of(fields: Fields, name: str) -> str:
    """The value of the first field of this (lower-case) name, or ``""``."""
    return next((unfolded(field) for seen, field in fields if seen == name), "")


def _split(raw: bytes) -> tuple[Fields, int]:
    """Its fields, and where its body begins. The body may be large: only the header is looked at."""
    mbox = _MBOX_LINE.match(raw)
    start = mbox.end() if mbox else 0
    gap = _EMPTY_LINE.search(raw, start)
    if gap is None or raw[start : start + 1] in (b"\r", b"\n", b""):
        raise ValueError("no empty line separates its header from its body")
    # The second line end of the gap is not part of the header.
    block = with_crlf(raw[start : gap.end()])
    return split_block(block[:-2]), gap.end()
