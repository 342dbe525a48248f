"""The message on standard input."""

from __future__ import annotations

import re
from typing import IO

from outbox.core.address import parse_address
from outbox.core.words import address_field
from outbox.mail import MAX_CONTENT

_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_FROM_FIELD = re.compile(rb"^from[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MBOX_LINE = b"From "


class TooLarge(Exception):
    """More than is taken."""


def read_message(stream: IO[bytes], *, dot_ends: bool) -> bytes:
    """To its end, or to a line with a lone dot, behind which nothing is read. Raises TooLarge, OSError."""
    if not dot_ends:
        raw = stream.read(MAX_CONTENT + 1)
    else:
        lines: list[bytes] = []
        size = 0
        while size <= MAX_CONTENT and (line := stream.readline(MAX_CONTENT + 2)).rstrip(b"\r\n") != b".":
            if not line:
                break
            lines.append(line)
            size += len(line)
        raw = b"".join(lines)
    if len(raw) > MAX_CONTENT:
        raise TooLarge(f"it is larger than {MAX_CONTENT} octets")
    return raw


def with_header(raw: bytes, sender: str, full_name: str) -> bytes:
    """A message has a header, an empty line, and a body. Programs like cron hand over whole ones; where a line that is
    none of a header follows it, or comes first, the body begins there, as with other sendmails. Without From, it gets
    the sender's. Raises ValueError for a sender that is no address.
    """
    end = _end_of_header(raw)
    head, body = raw[:end], raw[end:]
    if head and not head.endswith((b"\n", b"\r")):
        head += b"\n"
    start = head.index(b"\n") + 1 if head.startswith(_MBOX_LINE) else 0  # an mbox's line stays the first
    if sender and not _FROM_FIELD.search(head):
        address = parse_address(sender)
        named = type(address)(full_name.strip(), address.local, address.domain)
        head = head[:start] + address_field("From", [named]).encode() + b"\r\n" + head[start:]
    is_apart = body.startswith((b"\n", b"\r\n"))
    return head + (body if is_apart else b"\n" + body)


def _end_of_header(raw: bytes) -> int:
    """Where the first line begins that is no field, nor the rest of one."""
    place = 0
    while place < len(raw):
        stop = raw.find(b"\n", place) + 1 or len(raw)
        is_rest = raw[place : place + 1] in (b" ", b"\t") and place > 0
        is_mbox = place == 0 and raw.startswith(_MBOX_LINE)
        if not (is_rest or is_mbox or _FIELD.match(raw, place, stop)):
            break
        place = stop
    return place
