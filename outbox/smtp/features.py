"""What a relay offers, as its answer to EHLO says (RFC 5321 §4.1.1.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Features:
    """Of one connection, and of one side of STARTTLS: what was said in clear is forgotten (RFC 3207 §4.2).

    size            the largest message, in octets; 0 when the relay names no limit; None when it has no SIZE (RFC 1870)
    mechanisms      of AUTH, in capitals (RFC 4954)
    max_recipients  RCPTMAX of LIMITS (RFC 9422); 0 when unknown
    dsn             takes RET, ENVID, NOTIFY and ORCPT (RFC 3461)
    """

    pipelining: bool = False
    size: int | None = None
    eight_bit: bool = False
    smtputf8: bool = False
    starttls: bool = False
    mechanisms: frozenset[str] = frozenset()
    max_recipients: int = 0
    dsn: bool = False


def read_features(lines: Iterable[bytes]) -> Features:
    """From the lines after the first. What is not understood is not offered."""
    offered: dict[str, list[str]] = {}
    for line in lines:
        # AUTH=LOGIN is how Microsoft said it before RFC 2554, and some still do.
        keyword, *parameters = line.decode("ascii", "replace").upper().replace("AUTH=", "AUTH ").split() or [""]
        offered.setdefault(keyword, []).extend(parameters)
    limits = dict(limit.split("=", 1) for limit in offered.get("LIMITS", ()) if "=" in limit)
    return Features(
        pipelining="PIPELINING" in offered,
        size=_number((offered["SIZE"] or ["0"])[0]) if "SIZE" in offered else None,
        eight_bit="8BITMIME" in offered,
        smtputf8="SMTPUTF8" in offered,
        starttls="STARTTLS" in offered,
        mechanisms=frozenset(offered.get("AUTH", ())),
        max_recipients=_number(limits.get("RCPTMAX", "0")),
        dsn="DSN" in offered,
    )


def _number(digits: str) -> int:
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else 0
