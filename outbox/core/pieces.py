"""Large content, piece by piece, so that what is made of it is in memory once, and what it is made of no second time.

    at_line_ends   a text or octets in pieces, cut where lines end
    base64_lines   octets as lines of 76 characters, without a line end after the last
    Stream         what is yet to be encoded, among the pieces of a body
    join           pieces of either kind as one

Up to LARGE, all at once is quicker. Either way the octets are the same.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from typing import AnyStr, cast

LARGE = 256 * 1024
"""Characters or octets."""

LINE = 57
"""Octets in a line of 76 characters of base64."""

PIECE = LINE * 2048
"""Octets, or characters; more where a line has more."""


class Stream:
    """Octets that are made anew each time they are iterated over. `source`: where, if anywhere, they may hold what
    looks like a boundary.
    """

    __slots__ = ("_pieces", "_source")

    def __init__(self, pieces: Callable[[], Iterator[bytes]], source: str | bytes = b"") -> None:
        self._pieces = pieces
        self._source = source

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces()

    def __contains__(self, mark: bytes) -> bool:
        source = self._source
        return mark.decode("ascii") in source if isinstance(source, str) else mark in source


Piece = bytes | Stream


def at_line_ends(content: AnyStr, start: int = 0) -> Iterator[AnyStr]:
    """`content` from `start` on. Each piece ends with a line feed, except perhaps the last."""
    line_feed = "\n" if isinstance(content, str) else b"\n"
    end = len(content)
    while start < end:
        stop = end
        if end - start > PIECE:
            stop = content.rfind(line_feed, start, start + PIECE) + 1 or content.find(line_feed, start) + 1 or end
        yield content[start:stop]
        start = stop


def base64_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest, before = b"", b""
    for piece in pieces:
        piece = rest + piece if rest else piece
        whole = len(piece) - len(piece) % LINE
        rest = piece[whole:]
        if whole:
            yield before + base64(piece[:whole])
            before = b"\r\n"
    if rest:
        yield before + base64(rest)


def base64(content: bytes) -> bytes:
    """Lines of 76 characters, without a line end after the last."""
    encoded = b2a_base64(content, newline=False)
    return b"\r\n".join([encoded[start : start + 76] for start in range(0, len(encoded), 76)])


def in_pieces(content: bytes) -> Iterator[bytes]:
    """Cut anywhere, at whole lines of base64."""
    return (content[start : start + PIECE] for start in range(0, len(content), PIECE))


def join(pieces: Sequence[Piece]) -> bytes:
    """All of them. Where one is a stream, they are written into one buffer, which then is the result."""
    for each in pieces:
        if type(each) is not bytes:
            break
    else:
        return b"".join(cast("Sequence[bytes]", pieces))
    whole = BytesIO()
    for each in pieces:
        whole.writelines(each if isinstance(each, Stream) else (each,))
    return whole.getvalue()
