"""A relay's answer, parsed once, at the edge, into a type.

    octets ──feed──► ReplyParser ──take──► Reading: its lines, and a Reply of code, status and words

**Strict** (RFC 5321 §4.2): a line is three digits, the first 2 to 5, then a space, a hyphen or the end; all lines of
one reply have the same code; a reply is at most 64 KiB and 100 lines. Anything else raises `MalformedReply`, and the
parser is of no further use: whoever reads on after nonsense reads someone else's answers. **Lenient** in one point: a
line may end in LF without CR, because to take such a 250 for silence would send the mail a second time.

**Sanitised**: the words go to SQL, to terminals and to browsers, so what is not printable becomes a space, and 1 KiB of
UTF-8 is enough.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

MAX_OCTETS = 64 * 1024
MAX_LINES = 100
MAX_TEXT = 1024
"""Of a stored reply text, in octets of UTF-8."""

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -]).*)?", re.DOTALL)
_STATUS = re.compile(r"([245])\.[0-9]{1,3}\.[0-9]{1,3}(?=\s|$)")


_SHORT = 512
"""Octets of a reply line, as RFC 5321 §4.5.3.1.5 has them. Of more that arrive at once, nothing is remembered."""
_CODES = {b"%d " % code: code for code in range(200, 600)}


class MalformedReply(Exception):
    """What the relay said is not a reply. `str()` says why; it never contains more than an excerpt, sanitised."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply (RFC 5321 §4.2): `code` 200–599, `status` the enhanced code (RFC 3463, ``"5.1.1"``) or ``""``,
    `text` the words, sanitised for SQL and for people: no control characters, lines joined by a space, at most 1 KiB of
    UTF-8.
    """

    code: int
    status: str = ""
    text: str = ""

    @property
    def positive(self) -> bool:
        return 200 <= self.code < 300

    @property
    def intermediate(self) -> bool:
        return 300 <= self.code < 400

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    def __str__(self) -> str:
        code = str(self.code) if self.code else ""  # 0: nobody said it, see `outbox.core.settlement.fates_of`
        return " ".join(part for part in (code, self.status, self.text) if part)


class Reading(NamedTuple):
    """A complete reply: for people, and its `lines` as they came, without code and line end, which EHLO needs."""

    reply: Reply
    lines: tuple[bytes, ...]


class ReplyParser:
    """Splits a stream of octets into replies, however it is fragmented."""

    __slots__ = ("_buffer", "_lines", "_ready", "_searched", "_size", "_start")

    def __init__(self) -> None:
        self._ready: deque[Reading] = deque()  # fed whole; they come before what is in the buffer
        self._buffer = b""
        self._start = 0  # what is before it has been taken
        self._searched = 0  # what is before it holds no line end
        self._lines: list[bytes] = []  # of a reply that is not complete
        self._size = 0  # their octets

    @property
    def pending(self) -> bool:
        """Something has been fed that was not taken."""
        return bool(self._ready or self._lines) or self._start < len(self._buffer)

    def feed(self, octets: bytes) -> None:
        if not self.pending and len(octets) <= _SHORT:
            self._ready.extend(_whole(octets))
            if self._ready:
                return
        rest = self._buffer[self._start :]
        self._start, self._searched = 0, len(rest)
        self._buffer = rest + octets

    def take(self) -> Reading | None:
        """The next complete reply; None when there is none yet. Raises MalformedReply."""
        if self._ready:
            return self._ready.popleft()
        buffer, start = self._buffer, self._start
        while (end := buffer.find(b"\n", self._searched)) >= 0:
            self._start = self._searched = end + 1
            reading = self._add(buffer[start:end])
            if reading is not None:
                return reading
            start = end + 1
        self._searched = len(buffer)
        if self._size + len(buffer) - start > MAX_OCTETS:
            raise MalformedReply(f"a reply of more than {MAX_OCTETS} octets")
        return None

    def _add(self, line: bytes) -> Reading | None:
        self._size += len(line) + 1
        if self._size > MAX_OCTETS:
            raise MalformedReply(f"a reply of more than {MAX_OCTETS} octets")
        if len(self._lines) >= MAX_LINES:
            raise MalformedReply(f"a reply of more than {MAX_LINES} lines")
        match = _LINE.fullmatch(line.removesuffix(b"\r"))
        if match is None:
            raise MalformedReply(f"not an SMTP reply: {_excerpt(line)}")
        self._lines.append(line)
        code, mark = match.groups(b"")
        if code != self._lines[0][:3]:
            raise MalformedReply(f"one reply with two codes, {self._lines[0][:3].decode()} and {code.decode()}")
        if mark == b"-":
            return None
        lines = tuple(each.removesuffix(b"\r")[4:] for each in self._lines)
        self._lines, self._size = [], 0
        return Reading(_reply(int(code), lines), lines)


@lru_cache(maxsize=256)
def _whole(octets: bytes) -> tuple[Reading, ...]:
    """The replies that are these octets, if they are nothing but replies of one line each; else none. Nearly all that
    arrives is, and a relay says the same for every mail.
    """
    if not octets.endswith(b"\n"):
        return ()
    readings = []
    for line in octets[:-1].split(b"\n"):
        code = _CODES.get(line[:4])
        if code is None:
            return ()
        words = (line[4:].removesuffix(b"\r"),)
        readings.append(Reading(_reply(code, words), words))
    return tuple(readings)


def _reply(code: int, lines: tuple[bytes, ...]) -> Reply:
    """The words for people, and the enhanced status (RFC 2034).

    A status whose class contradicts the code's first digit is no status and stays in the words: the code decides.
    """
    text = sanitise(b"\n".join(lines)[: 4 * MAX_TEXT].decode("utf-8", "replace"), limit=0)
    match = _STATUS.match(text) if text[1:2] == "." else None
    if match is None or int(match[1]) != code // 100:
        return Reply(code, "", _cut(text))
    status = match[0]
    if len(lines) == 1:
        return Reply(code, status, _cut(text[len(status) + 1 :]))
    # Each line repeats it.
    parts = (sanitise(line[: 4 * MAX_TEXT].decode("utf-8", "replace"), limit=0) for line in lines)
    return Reply(code, status, _cut(" ".join(filter(None, (_without(part, status) for part in parts)))))


def sanitise(text: str, *, limit: int = MAX_TEXT) -> str:
    """`text` on one line: whatever is not printable (controls, line ends, direction marks) is a space, runs of spaces
    are one, and at most `limit` octets of UTF-8 are kept (0: all).
    """
    if not text.isprintable():
        text = "".join(each if each.isprintable() else " " for each in text)
    text = " ".join(text.split())
    return _cut(text, limit) if limit else text


def _cut(text: str, limit: int = MAX_TEXT) -> str:
    if len(text) * 4 <= limit:
        return text
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= limit else encoded[:limit].decode("utf-8", "ignore")


def _without(text: str, status: str) -> str:
    return text[len(status) :].lstrip() if text.startswith(status) else text


def _excerpt(line: bytes) -> str:
    return repr(sanitise(line[:200].decode("utf-8", "replace"), limit=60))
