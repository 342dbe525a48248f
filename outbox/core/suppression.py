"""Whom nobody writes to any more: an address, or ``*@domain``, with the reason, perhaps for a time.

    pattern_of     what people write → how it is stored and compared
    patterns_for   a recipient's address → what could suppress it
    withheld       the fate of a recipient that is not tried, and says so
    read_list      a file of them → entries, and the lines that are none

Addresses are compared without regard to case, local parts too: a suppression that misses is worse than one that takes
an address that differs only in case, which no relay of today has.
"""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from unicodedata import normalize

from outbox.core.account import fold
from outbox.core.address import ascii_domain, parse_address, wildcard
from outbox.core.fate import Fate, RecipientFate
from outbox.core.message import Recipient
from outbox.core.outcome import Outcome, Scope, Stage, Verdict
from outbox.core.reply import Reply, sanitise

STATUS = "5.7.1"
"""RFC 3463 §3.8: delivery not authorized, message refused."""
MAX_REASON = 300
"""Octets of UTF-8."""

_NOT_TRIED = Outcome(Verdict.BOUNCE, Scope.RECIPIENT)
_ADDRESS, _REASON, _UNTIL = "address", "reason", "until"
_COLUMNS = {"address": _ADDRESS, "email": _ADDRESS, "recipient": _ADDRESS, "reason": _REASON, "until": _UNTIL}


@dataclass(frozen=True, slots=True)
class Suppression:
    """One row of `outbox_suppression`. `until` None: for good."""

    address: str
    reason: str
    until: datetime | None = None
    created_at: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        return self.until is not None and self.until <= now


def pattern_of(text: str) -> str:
    """An address or ``*@domain`` in lower case, its domain in ASCII. Raises ValueError with a sentence."""
    text = text.strip()
    if text.startswith("*@"):
        ascii_domain(text[2:])
    else:
        address = parse_address(text)
        if address.local == "*":
            raise ValueError("a whole domain is written *@example.com, and nothing else")
        text = address.email
    return _folded(fold(text))


def patterns_for(address: str) -> tuple[str, str]:
    """What could stand for this address of an envelope: itself, and its whole domain."""
    address = _folded(address)
    return address, wildcard(address)


def _folded(address: str) -> str:
    """In lower case, an accent and its letter being one character: which of the two it is, nobody can see."""
    return address.lower() if address.isascii() else normalize("NFC", address.lower())


def withhold(recipient: Recipient, reason: str) -> RecipientFate:
    """The fate of a recipient that our own policy keeps from being tried."""
    return RecipientFate(recipient, Fate.BOUNCED, Reply(0, STATUS, reason), _NOT_TRIED, Stage.POLICY)


def withheld(recipient: Recipient, by: Suppression) -> RecipientFate:
    """… because it is suppressed."""
    command = f"outbox suppress remove {shlex.quote(by.address)}"
    return withhold(recipient, f"suppressed: {by.reason}; `{command}`, then retry")


# -- a file of them


@dataclass(frozen=True, slots=True)
class Listed:
    """What a file says. An entry without a reason of its own has ``""``. `bad`: number and fault of each other line."""

    entries: tuple[Suppression, ...] = ()
    bad: tuple[tuple[int, str], ...] = ()


def read_list(lines: Iterable[str]) -> Listed:
    """One address (or ``*@domain``) a line; or CSV, where the first line names its columns: ``address`` (or ``email``),
    and, where they are there, ``reason`` and ``until`` (ISO 8601). Other columns are not read. Empty lines, and those
    that begin with ``#``, do not count. An address that comes again is taken as it comes last.
    """
    entries: dict[str, Suppression] = {}
    bad: list[tuple[int, str]] = []
    columns: list[str] | None = None
    for number, line in _significant(lines):
        if columns is None:
            columns = _columns(line)
            if columns:
                continue
        try:
            entry = _entry(_cells(columns, line) if columns else {_ADDRESS: line})
        except ValueError as fault:
            bad.append((number, str(fault)))
        else:
            entries[entry.address] = entry
    return Listed(tuple(entries.values()), tuple(bad))


def _significant(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        line = line.removeprefix("\ufeff") if number == 1 else line
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def _columns(line: str) -> list[str]:
    """What the columns of a CSV file are, told by its first line; nothing if it is none."""
    columns = [_COLUMNS.get(name.strip().lower(), "") for name in line.replace('"', "").split(",")]
    return columns if _ADDRESS in columns else []


def _cells(columns: list[str], line: str) -> dict[str, str]:
    """A line by itself: a quote that somebody forgot to close must not swallow the lines after it."""
    try:
        (cells,) = csv.reader([line], strict=True)
    except csv.Error as fault:
        raise ValueError(f"it is not CSV: {fault}") from None
    return dict(zip(columns, cells, strict=False))


def _entry(row: dict[str, str]) -> Suppression:
    until = row.get(_UNTIL, "").strip()
    return Suppression(
        pattern_of(row.get(_ADDRESS, "")),
        sanitise(row.get(_REASON, ""), limit=MAX_REASON),
        _moment(until) if until else None,
    )


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:40]!r} is not a date or a time in ISO 8601") from None
