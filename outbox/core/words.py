"""Header values on the wire: encoded-words (RFC 2047), parameters (RFC 2231), folding (RFC 5322 §2.2.3).

    text_field       Subject: Grüße an alle           unstructured text
    address_field    To: Jürgen <j@example.net>, …    address lists
    pieces_field     anything already in pieces       Content-Type, Content-Disposition
    parameter        filename*=utf-8''Gr%C3%BC%C3%9Fe.pdf

A field is built from *pieces*: each begins with the white space before which its line may be broken. Lines stay within
76 characters where there is a place to break them (RFC 2047 §2 wants that of lines with encoded-words), and within 998
always. All of it is linear in the length of the value.

Text that happens to look like an encoded-word is itself encoded, so that it arrives as the text it was; that leaves
nothing for a decoder to find that we did not put there.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence

from outbox.core.address import Address, quoted, single_spaced
from outbox.core.header import check_text

WIDTH = 76
MAX_WORD = 75
"""Of an encoded-word, with its delimiters (RFC 2047 §2)."""

_PIECE_LIMIT = 700
_BEGIN_Q, _BEGIN_B, _END = "=?utf-8?q?", "=?utf-8?b?", "?="
_PIECES = re.compile(r"[ \t]++[^ \t]++")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]++(?>(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]++)*)")
_ALNUM = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_PHRASE_SAFE = _ALNUM + b"!*+-/ "  # RFC 2047 §5 (3): what an encoded-word in a phrase may show as itself; space is _
_ATTRIBUTE_SAFE = _ALNUM + b"!#$&+-.^_`{|}~"  # RFC 2231 §7, attribute-char
_Q = {chr(octet): chr(octet) for octet in _PHRASE_SAFE} | {" ": "_"}
_PERCENT = {chr(octet): chr(octet) for octet in _ATTRIBUTE_SAFE}


def text_field(name: str, value: str) -> str:
    """``name: value`` for unstructured text. Raises ValueError for text no header can carry."""
    fits = value.isascii() and len(name) + 2 + len(value) <= WIDTH and value.isprintable()
    if fits and value and "=?" not in value and value[0] != " " != value[-1]:
        return f"{name}: {value}"
    check_text(value, f"the header {name}")
    return pieces_field(name, _text_pieces(value, WIDTH - len(name) - 2))


def address_field(name: str, addresses: Sequence[Address]) -> str:
    """``name: address, address`` in this order. Domains go out in ASCII, local parts as they are, perhaps UTF-8."""
    if len(addresses) == 1 and not addresses[0].name:
        return f"{name}: {addresses[0].wire}"
    pieces: list[str] = []
    for address in addresses:
        if address.name:
            pieces += _phrase_pieces(address.name, WIDTH - len(name) - 2 if not pieces else MAX_WORD)
            pieces.append(f" <{address.wire}>,")
        else:
            pieces.append(f" {address.wire},")
    if pieces:
        pieces[-1] = pieces[-1][:-1]
    return pieces_field(name, pieces)


def pieces_field(name: str, pieces: Iterable[str]) -> str:
    """Fold: break the line before the piece that does not fit, never before the first."""
    lines: list[str] = []
    line = f"{name}:"
    bare = True
    for piece in pieces:
        if len(line) + len(piece) > WIDTH and not bare:
            lines.append(line)
            line = piece
        else:
            line += piece
            bare = False
    lines.append(line)
    return "\r\n".join(lines)


def parameter(name: str, value: str) -> list[str]:
    """A MIME parameter as pieces, without the semicolon before it: quoted where it is short ASCII that needs no
    backslash (readers disagree on those), else RFC 2231.
    """
    plain = value.isascii() and value.isprintable() and not ('"' in value or "\\" in value or "=?" in value)
    if plain and len(value) <= 60:
        return [f' {name}="{value}"']
    check_text(value, name)
    runs = list(_runs(_percent_encoded(value), 55))
    if len(runs) == 1:
        return [f" {name}*=utf-8''{runs[0]}"]
    pieces = [f" {name}*{number}*={run};" for number, run in enumerate(runs)]
    pieces[0] = pieces[0].replace("*=", "*=utf-8''", 1)
    pieces[-1] = pieces[-1][:-1]
    return pieces


def encoded_words(text: str, room: int = MAX_WORD) -> list[str]:
    """`text` as encoded-words of at most 75 characters, the first of at most `room`; none cuts a character (§5)."""
    octets = text.encode()
    q_size = len(octets) + 2 * len(octets.translate(None, _PHRASE_SAFE))
    frame = len(_BEGIN_Q) + len(_END)
    first = max(room, 40) - frame
    if q_size <= 4 * ((len(octets) + 2) // 3):
        return [f"{_BEGIN_Q}{run}{_END}" for run in _runs(map(_q_encoded, text), MAX_WORD - frame, first)]
    runs = _runs(text, (MAX_WORD - frame) // 4 * 3, first // 4 * 3, octets=True)
    return [f"{_BEGIN_B}{b64encode(run.encode()).decode('ascii')}{_END}" for run in runs]


def _text_pieces(value: str, room: int) -> list[str]:
    if value != value.strip(" \t"):
        return [f" {word}" for word in encoded_words(value, room)]
    pieces = _PIECES.findall(" " + value)
    special = [number for number, piece in enumerate(pieces) if _needs_encoding(piece)]
    if not special:
        return pieces
    start, end = special[0], special[-1] + 1
    span = "".join(pieces[start:end])
    words = encoded_words(span[1:], room if start == 0 else MAX_WORD)
    return [*pieces[:start], *(f" {word}" for word in words), *pieces[end:]]


def _needs_encoding(piece: str) -> bool:
    return not piece.isascii() or "=?" in piece or len(piece) > _PIECE_LIMIT


def _phrase_pieces(name: str, room: int) -> list[str]:
    """A display name: as it is, quoted, or in encoded-words."""
    name = single_spaced(name)
    if name.isascii() and "=?" not in name:
        if len(name) <= 64:
            return [f" {name}" if _ATOMS.fullmatch(name) else f" {quoted(name)}"]
        if _ATOMS.fullmatch(name) and max(map(len, name.split(" "))) <= 64:
            return [f" {word}" for word in name.split(" ")]
    return [f" {word}" for word in encoded_words(name, room)]


def _q_encoded(character: str) -> str:
    return _Q.get(character) or "".join(f"={octet:02X}" for octet in character.encode())


def _percent_encoded(text: str) -> Iterator[str]:
    for character in text:
        yield _PERCENT.get(character) or "".join(f"%{octet:02X}" for octet in character.encode())


def _runs(units: Iterable[str], limit: int, first: int | None = None, *, octets: bool = False) -> Iterator[str]:
    """`units` joined into runs of at most `limit` characters (or UTF-8 octets), the first of at most `first`."""
    run: list[str] = []
    size, bound = 0, limit if first is None else first
    for unit in units:
        length = len(unit.encode()) if octets else len(unit)
        if size + length > bound and run:
            yield "".join(run)
            run, size, bound = [], 0, limit
        run.append(unit)
        size += length
    yield "".join(run)
