"""Names without a domain, as programs of the machine write them (``To: root``), become addresses of its domain."""

from __future__ import annotations

import re

from outbox.core.address import excerpt

_FIELD = re.compile(
    rb"^((?:resent-)?(?:from|sender|reply-to|to|cc|bcc)[ \t]*:)([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)",
    re.IGNORECASE | re.MULTILINE,
)
_BARE = re.compile(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")
_WITH_COMMENT = re.compile(rb"[ \t]*([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+)[ \t]*\(([^()\\\r\n]*)\)[ \t]*")
_ANGLES = re.compile(rb"((?:^|[ \t\n\"])[ \t]*)<([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+)>([ \t\r\n]*)\Z")
_PIECE = re.compile(rb'"(?>(?:[^"\\]|\\.)*)"|\([^()]*+\)|<[^<>]*+>|,|[^,"(<]++|.', re.DOTALL)
_EMPTY_LINE = re.compile(rb"\r?\n\r?\n")


def qualified(address: str, domain: str) -> str:
    """``ann`` → ``ann@example.com``; what has a domain stays as it is. Raises ValueError for what no address can be."""
    if "@" in address or not address:
        return address
    if not _BARE.fullmatch(address.encode("utf-8", "surrogateescape")):
        raise ValueError(f"{excerpt(address)} is no address")
    return f"{address}@{domain}"


def qualified_list(text: str, domain: str) -> str:
    """The same for addresses separated by commas, with or without names, as an argument may have them."""
    return _value(text.encode("utf-8", "surrogateescape"), domain.encode()).decode("utf-8", "surrogateescape")


def qualified_header(raw: bytes, domain: str) -> bytes:
    """The message with every bare name in its address fields qualified. All else stays as it is, byte for byte."""
    end = _EMPTY_LINE.search(raw)
    stop = end.start() if end else len(raw)
    return _FIELD.sub(lambda field: field[1] + _value(field[2], domain.encode()), raw[:stop]) + raw[stop:]


def _value(value: bytes, domain: bytes) -> bytes:
    """Each address by itself; a comma in quotes, in a comment or in angles separates none."""
    parts = [b""]
    for piece in _PIECE.findall(value):
        if piece == b",":
            parts.append(b"")
        else:
            parts[-1] += piece
    return b",".join(_one(each, domain) for each in parts)


def _one(text: bytes, domain: bytes) -> bytes:
    """``root`` → ``root@example.com``; ``root (Cron Daemon)`` → ``"Cron Daemon" <root@example.com>``; ``Root <root>`` →
    ``Root <root@example.com>``.
    """
    bare = text.strip()
    if _BARE.fullmatch(bare):
        return text.replace(bare, bare + b"@" + domain)
    named = _WITH_COMMENT.fullmatch(text)
    if named:
        return b' "%b" <%b@%b>' % (named[2].replace(b'"', b"'"), named[1], domain)
    return _ANGLES.sub(lambda found: b"%b<%b@%b>%b" % (found[1], found[2], domain, found[3]), text)
