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
    if b'"' in value or b"<" in value.replace(b"<>", b"") or (b"@" in value and b"," not in value):
        return _in_angles(value, domain)
    return b",".join(_one(each, domain) for each in value.split(b","))


def _one(text: bytes, domain: bytes) -> bytes:
    """``root`` → ``root@example.com``; ``root (Cron Daemon)`` → ``"Cron Daemon" <root@example.com>``."""
    bare = text.strip()
    if _BARE.fullmatch(bare):
        return text.replace(bare, bare + b"@" + domain)
    named = _WITH_COMMENT.fullmatch(text)
    return b' "%b" <%b@%b>' % (named[2], named[1], domain) if named else text


def _in_angles(value: bytes, domain: bytes) -> bytes:
    """``Cron Daemon <root>`` → ``Cron Daemon <root@example.com>``."""
    return re.sub(rb"<([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+)>", lambda found: b"<%b@%b>" % (found[1], domain), value)
