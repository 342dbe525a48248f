"""Line ends and line lengths of mail: the two things every relay is strict about (RFC 5321 §2.3.8, §4.5.3.1.6)."""

from __future__ import annotations

MAX_LINE = 998
"""Octets, without the line's end (RFC 5322 §2.1.1)."""


def with_crlf(data: bytes) -> bytes:
    """CRLF, LF and bare CR all end a line (no relay may see a bare one: that is how SMTP smuggling works)."""
    ends = data.count(b"\r\n")
    if ends == data.count(b"\n") == data.count(b"\r"):
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def has_long_line(data: bytes) -> bool:
    """Whether a line of `data`, whose lines end with CRLF, is longer than 998 octets. It leaps from line end to line
    end, a thousand octets at a time.
    """
    start, limit = 0, MAX_LINE + 2
    while len(data) - start > limit:
        end = data.rfind(b"\n", start, start + limit)
        if end < 0:
            return True
        start = end + 1
    # What is left can only be too long for want of a line end.
    return len(data) - start > MAX_LINE and data.find(b"\n", start) < 0
