"""The message on standard input."""

from __future__ import annotations

import re
from typing import IO

from outbox.mail import MAX_CONTENT

_LONE_DOT = re.compile(rb"(?:^|\n)\.\r?(?:\n|$)")
_FROM_FIELD = re.compile(rb"^from[ \t]*:", re.IGNORECASE | re.MULTILINE)
_EMPTY_LINE = re.compile(rb"\r?\n\r?\n")


class TooLarge(Exception):
    """More than is taken."""


def read_message(stream: IO[bytes], *, dot_ends: bool) -> bytes:
    """To its end, or to a line with a lone dot. Raises TooLarge, OSError."""
    raw = stream.read(MAX_CONTENT + 1)
    if dot_ends:
        found = _LONE_DOT.search(raw)
        if found is not None:
            raw = raw[: found.start() + (raw[found.start() : found.start() + 1] == b"\n")]
    if len(raw) > MAX_CONTENT:
        raise TooLarge(f"it is larger than {MAX_CONTENT} octets")
    return raw


def with_header(raw: bytes, sender: str, full_name: str) -> bytes:
    """A message has a header. Programs like cron hand over whole ones; a person may type a body alone: then it gets an
    empty one. Without From, it gets the sender's.
    """
    end = _EMPTY_LINE.search(raw)
    head = raw[: end.start()] if end else raw
    first = head.partition(b"\n")[0]
    is_header = bool(re.match(rb"[!-9;-~]+[ \t]*:|From ", first))
    if not is_header:
        raw = b"\n" + raw.lstrip(b"\r\n")
        head = b""
    elif end is None:
        raw = raw.rstrip(b"\r\n") + b"\n\n"
    if _FROM_FIELD.search(head) or not sender:
        return raw
    name = full_name.replace("\\", "\\\\").replace('"', '\\"')
    field = f'From: "{name}" <{sender}>\n' if name else f"From: {sender}\n"
    start = 0
    if raw.startswith(b"From "):  # an mbox's line stays the first
        start = raw.index(b"\n") + 1
    return raw[:start] + field.encode() + raw[start:]
