"""Durations and sizes as people write them: ``"30s"``, ``"15m"``, ``"2d"``, ``"1h30m"``, ``"250ms"``; ``"64 MiB"``.

A number without a unit is refused, because in every program people guess it differently (milliseconds? seconds?
minutes?).
"""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_PART = re.compile(r"\s*(\d{1,9})\s*(ms|[dhms])", re.ASCII | re.IGNORECASE)

_SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"\s*(\d{1,15})\s*(b|[kmg]i?b)\s*", re.ASCII | re.IGNORECASE)


def parse_duration(text: str) -> timedelta:
    """``"1h30m"`` → 90 minutes. Units d, h, m, s, ms, largest first, each at most once. ValueError says what to write
    instead.
    """
    total = timedelta()
    rest, bound = text.rstrip(), timedelta.max
    if not rest:
        raise ValueError('a duration is empty; write one such as "30s", "15m" or "2d"')
    while rest:
        part = _PART.match(rest)
        if part is None or _UNITS[part[2].lower()] >= bound:
            raise ValueError(f'{text!r} is not a duration; write one such as "250ms", "30s", "15m", "1h30m" or "2d"')
        bound = _UNITS[part[2].lower()]
        total += int(part[1]) * bound
        rest = rest[part.end() :]
    return total


def format_duration(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads back: 90 minutes → ``"1h30m"``, nothing → ``"0s"``. Whole
    milliseconds.
    """
    rest, parts = value, []
    for unit, length in _UNITS.items():
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """``"64 MiB"`` → 67108864 bytes. Units B, kB, MB, GB (powers of 1000) and KiB, MiB, GiB (powers of 1024)."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is not a size; write one such as "512 KiB" or "64 MiB"')
    return int(match[1]) * _SIZES[match[2].lower()]


def format_size(value: int) -> str:
    """The largest binary unit that divides it: 67108864 → ``"64 MiB"``."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value and value % size == 0:
            return f"{value // size} {unit}"
    return f"{value} B"
