"""Header fields: which an application may set, how a block of them is taken apart, and the check of every block we
compose.

    check_header        one field of the column `headers`: name and value
    read_headers        that column as a whole, JSON text, into (name, value) pairs
    split_block         somebody else's header block, into fields, byte for byte
    verify_block        ours, before it leaves: are these exactly the fields that were meant?

Why the last one: composing headers has been got wrong by everybody, lately by the standard library (CVE-2024-6923: a
line feed inside an encoded-word became a real ``Bcc:`` line; CVE-2026-1299). Whatever mistake is still in here, it must
not become a field that nobody meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from outbox.core.address import excerpt
from outbox.core.lines import has_long_line

# fmt: off
RESERVED_HEADERS = frozenset((
    "from", "sender", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id",
    "received", "return-path", "dkim-signature", "x-sender", "x-receiver",
))
# fmt: on
"""Fields that `headers` may not name, in lower case: each is composed from a column of its own, or is a relay's."""

RESERVED_PREFIXES = ("mime-", "content-", "resent-")

MAX_FIELDS = 100
MAX_NAME = 76
MAX_VALUE = 65_536

_NAME = re.compile(r"[!-9;-~]+")
_BREAKS_TEXT = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")
_FIELD_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")


def check_header(name: str, value: str) -> None:
    """Whether a field may stand in `headers`. Raises ValueError with a sentence."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise ValueError(f"a header is a name and a text, or a list of texts: {excerpt(str(name))}")
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(f"{excerpt(name)} is not a header name (letters, digits and hyphens, at most {MAX_NAME})")
    if name.lower() in RESERVED_HEADERS or name.lower().startswith(RESERVED_PREFIXES):
        raise ValueError(f"the header {name} is reserved: it is composed from the mail's own fields")
    if len(value) > MAX_VALUE:
        raise ValueError(f"the header {name} is longer than {MAX_VALUE} characters")
    check_text(value, f"the header {name}")


def check_text(value: str, what: str) -> None:
    """Refuse what no header can carry: control characters, line breaks above all, and lone surrogates."""
    bad = _BREAKS_TEXT.search(value)
    if bad is not None:
        kind = "a line break" if bad[0] in "\r\n" else "a control character or a broken one"
        raise ValueError(f"{what} has {kind} in it: {value[max(0, bad.start() - 20) : bad.start() + 20]!a}")


def read_headers(text: str) -> tuple[tuple[str, str], ...]:
    """The column `headers`: a JSON object of name → text or list of texts. Raises ValueError with a sentence."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"headers is not JSON: {excerpt(text)}") from None
    if not isinstance(given, dict):
        raise ValueError(f"headers is not a JSON object of names and texts: {excerpt(text)}")
    pairs = tuple(_pairs(given.items()))
    if len(pairs) > MAX_FIELDS:
        raise ValueError(f"headers has more than {MAX_FIELDS} fields")
    return pairs


def _pairs(items: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str]]:
    for name, value in items:
        for text in value if isinstance(value, list) else [value]:
            check_header(name, text)
            yield name, text


def split_block(block: bytes) -> list[tuple[str, bytes]]:
    """The fields of a header block whose lines end with CRLF: (name in lower case, the field with its continuation
    lines and line ends). Raises ValueError for a line that is neither a field nor the continuation of one.
    """
    fields: list[tuple[str, bytes]] = []
    lines = block.split(b"\r\n")
    if lines.pop():
        raise ValueError("the header does not end with a line end")
    kept: list[bytes] = []
    name = ""
    for number, line in enumerate(lines, 1):
        if line[:1] in (b" ", b"\t"):
            if not kept:
                raise ValueError("its header begins with a continuation line")
            kept.append(line)
            continue
        match = _FIELD_NAME.match(line)
        if match is None:
            raise ValueError(f"line {number} of its header is not a header field: {line[:40]!r}")
        if kept:
            fields.append((name, b"\r\n".join(kept) + b"\r\n"))
        name, kept = match[1].decode("ascii").lower(), [line]
    if kept:
        fields.append((name, b"\r\n".join(kept) + b"\r\n"))
    return fields


def unfolded(field: bytes) -> str:
    """The value of a field from `split_block`, on one line. What is not UTF-8 in it becomes U+FFFD."""
    return field.partition(b":")[2].replace(b"\r\n", b"").decode("utf-8", "replace").strip(" \t")


def verify_block(block: bytes, names: Sequence[str]) -> None:
    """Whether `block`, with the empty line that ends it, is made of exactly the fields `names`, in that order.

    Raises ValueError if not: a stray line end, an empty line too early, a field too many or in another's place, a line
    longer than RFC 5322 allows.
    """
    if not _shape(tuple(names)).fullmatch(block):
        raise ValueError(f"the composed header is not the one that was meant: {excerpt(repr(block))}")
    if has_long_line(block):
        raise ValueError("a line of the composed header is longer than 998 octets")


@lru_cache(maxsize=256)
def _shape(names: tuple[str, ...]) -> re.Pattern[bytes]:
    """The grammar of a block with these fields. Nothing in it is given back, so it reads each octet once."""
    text, folded = rb"[^\r\n\0]*+", rb"(?>(?:\r\n[ \t]++[^ \t\r\n\0][^\r\n\0]*+)*)"
    return re.compile(b"".join(re.escape(name.encode()) + b":" + text + folded + b"\r\n" for name in names) + b"\r\n")
