"""A pickup folder, what of it is picked up, and for whom a file is: all of it that needs no file.

The rules are those of the folders that people come from: IIS and Exchange (pickup, replay), .NET's
SpecifiedPickupDirectory, and Mail Queue Dispatcher, which Outbox took the place of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import count

from outbox.core.account import fold
from outbox.core.address import parse_address, wildcard
from outbox.core.dsn import unxtext
from outbox.core.header import unfolded
from outbox.core.raw import Fields, addresses_in, speaker_of

MAX_HEADER = 64 * 1024
"""Octets of a header, as Exchange has it."""

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".swp", ".lock", ".bad", ".sent", ".json", "~")
"""How names end of files that are being written, or that we have put there."""


class Mode(StrEnum):
    """How a folder reads its files.

    PICKUP   ``*.eml``; recipients are X-Receiver's where there is one, else those of To, Cc and Bcc (IIS, .NET)
    REPLAY   ``*.eml``; X-Sender and X-Receiver are needed, and come before all other fields (Exchange)
    MQD      any name; recipients are X-Receiver's together with those of To, Cc and Bcc (Mail Queue Dispatcher)
    """

    PICKUP = "pickup"
    REPLAY = "replay"
    MQD = "mqd"


class Archive(StrEnum):
    """When a file leaves the folder for `sentmail`: when all is known of its mail, or as soon as its row is there."""

    ON_OUTCOME = "on-outcome"
    ON_INGEST = "on-ingest"


@dataclass(frozen=True, slots=True)
class Folder:
    """One row of `outbox_pickup`. Paths are absolute.

    sentmail   where what was sent goes; empty: it is deleted
    senders    who may send through it, folded: addresses and ``*@domain``; none: everybody who is registered
    settle     for how long a file must not have changed
    max_bytes  of one file
    """

    name: str
    path: str
    badmail: str
    sentmail: str = ""
    mode: Mode = Mode.PICKUP
    senders: tuple[str, ...] = ()
    poll: timedelta = timedelta(seconds=5)
    settle: timedelta = timedelta(seconds=2)
    max_bytes: int = 25 * 1024 * 1024
    archive: Archive = Archive.ON_OUTCOME

    def takes(self, name: str) -> bool:
        """Whether a file of this name is for us; else it is somebody's who has not finished it, or of another kind."""
        lower = name.lower()
        return is_finished(name) and (self.mode is Mode.MQD or lower.endswith(".eml"))

    def admits(self, address: str) -> bool:
        """Whether `address` may send through this folder."""
        folded = fold(address)
        return not self.senders or folded in self.senders or wildcard(folded) in self.senders


def is_finished(name: str) -> bool:
    """Whether a name is not one of those that are in use while a file is written."""
    return not name.startswith((".", "~")) and not name.lower().endswith(UNFINISHED)


class Result(StrEnum):
    """What became of a file: its mail reached all of its recipients, some, or none."""

    SENT = "sent"
    PARTIAL = "partial"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Taken:
    """A file that was taken from a folder. `name` as it was dropped; `owner`: the uid of who dropped it."""

    claim: str
    folder: str
    name: str
    octets: int | None = None
    sha256: str | None = None
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class Addressee:
    """One recipient of a mail that has ended, and what was last said of it. `fate` is empty where it was not tried."""

    address: str
    fate: str = ""
    code: int | None = None
    status: str = ""
    reply: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """A file whose mail has ended. `state` is empty where the mail is no longer in the database. `file`: where the file
    was put before. `final_at`: when it has ended. `refusal`: why it became no mail at all.
    """

    claim: str
    name: str
    message_id: int
    state: str = ""
    sender: str = ""
    attempts: int = 0
    reply: Addressee = Addressee("")
    recipients: tuple[Addressee, ...] = ()
    file: str = ""
    final_at: datetime | None = None
    refusal: str = ""

    @property
    def failed(self) -> tuple[Addressee, ...]:
        """Those whom it has not reached."""
        return tuple(each for each in self.recipients if each.fate != "accepted")

    @property
    def result(self) -> Result:
        if self.state == "sent":
            return Result.SENT
        return Result.PARTIAL if len(self.failed) < len(self.recipients) else Result.BAD


@dataclass(frozen=True, slots=True)
class Envelope:
    """For whom a file is. `recipients` None: for those in its own To, Cc and Bcc. `return_path` None: the sender's."""

    sender: str
    recipients: tuple[str, ...] | None
    return_path: str | None = None
    dsn_notify: str | None = None
    dsn_ret: str | None = None
    dsn_envid: str | None = None


def read_envelope(fields: Fields, mode: Mode) -> Envelope:
    """What the header says. Raises ValueError with a sentence.

    X-Sender and X-Receiver may carry parameters of MAIL and RCPT (RFC 3461): RET and ENVID, NOTIFY. Others mean nothing
    to us, nor does ORCPT, which we say ourselves.
    """
    told = _leading_x(fields) if mode is Mode.REPLAY else fields
    senders = _paths(told, "x-sender", lenient=mode is Mode.MQD)
    receivers = _paths(told, "x-receiver", lenient=False)
    if mode is Mode.REPLAY and not (senders and receivers):
        raise ValueError("a file to be replayed begins with X-Sender and X-Receiver, and this one does not")
    sender, of_mail = senders[0] if senders else ("", {})
    recipients = tuple(address for address, _ in receivers)
    if "" in recipients:
        raise ValueError("an X-Receiver names nobody")
    if mode is Mode.MQD:
        listed = (each.email for each in addresses_in(fields, "to", "cc", "bcc"))
        recipients = tuple(dict.fromkeys((*listed, *recipients)))
    return Envelope(
        sender or _speaker(fields, mode),
        recipients or None,
        return_path="<>" if senders and not sender else None,
        dsn_notify=_notify([of_rcpt.get("NOTIFY", "") for _, of_rcpt in receivers]) or None,
        dsn_ret=of_mail.get("RET", "").lower() or None,
        dsn_envid=unxtext(of_mail.get("ENVID", "")) or None,
    )


def _speaker(fields: Fields, mode: Mode) -> str:
    """Mail Queue Dispatcher took the first From, whatever Sender says."""
    found = addresses_in(fields, "from") if mode is Mode.MQD else ()
    return (found[0] if found else speaker_of(fields)).email


def _leading_x(fields: Fields) -> Fields:
    """The fields before the first that is not an X- field."""
    end = next((place for place, (name, _) in enumerate(fields) if not name.startswith("x-")), len(fields))
    return fields[:end]


_PATH = re.compile(r"\s*([^<>]*<[^<>]*>|[^\s<>]+)\s*(.*)", re.DOTALL)

Parameters = dict[str, str]


def _paths(fields: Fields, name: str, *, lenient: bool) -> list[tuple[str, Parameters]]:
    """The address of each field of this name, "" for ``<>``, with its parameters in capitals. `lenient`: what is no
    address does not count.
    """
    found = []
    for seen, field in fields:
        if seen == name:
            with suppress(*([ValueError] if lenient else [])):
                found.append(_path(unfolded(field)))
    return found


def _path(text: str) -> tuple[str, Parameters]:
    match = _PATH.fullmatch(text)
    if match is None:
        raise ValueError(f"{text.strip()!r} is no address")
    pairs = (word.partition("=") for word in match[2].split())
    address = "" if match[1].strip() == "<>" else parse_address(match[1]).email
    return address, {key.upper(): value for key, _, value in pairs}


def _notify(asked: list[str]) -> str:
    """One NOTIFY for all recipients: everything that any of them asks for; never, where all say so."""
    words = {word.lower() for each in asked for word in each.split(",") if word}
    if words != {"never"} or not all(asked):
        words.discard("never")
    return ",".join(sorted(words))


_REST = rb"[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*"
_HEAD = re.compile(rb"(?>(?:x-[!-9;-~]*+" + _REST + rb")*)", re.IGNORECASE)
_REPLAYED = re.compile(
    rb"^x-(?:createdby|endofinjectedxheaders|extendedmessageprops|helodomain|source|sourceipaddress)" + _REST,
    re.IGNORECASE | re.MULTILINE,
)


def without_replayed(raw: bytes) -> bytes:
    """A message to be replayed, without the fields at its head that are for the server alone (Exchange). X-Sender and
    X-Receiver are taken out of every message.
    """
    head = _HEAD.match(raw)
    end = head.end() if head else 0
    return _REPLAYED.sub(b"", raw[:end]) + raw[end:]


_HEADER_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")


def has_header_end(raw: bytes) -> bool:
    """Whether there is an empty line in it."""
    return _HEADER_END.search(raw) is not None


# ---------------------------------------------------------------- names of files

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def shown(name: str) -> str:
    """The name of a file as text that can be stored, printed, and be a file's name again: control characters, and
    bytes that are no UTF-8, become ``%1b``.
    """
    return _UNPRINTABLE.sub(lambda found: f"%{ord(found[0]) & 0xFF:02x}", name)


def sent_names(name: str, at: datetime) -> Iterator[str]:
    """Names for it in `sentmail`, to be taken by turns until one is free: ``2026-03-01_093000-order.eml.sent``."""
    stem = f"{at.astimezone(UTC):%Y-%m-%d_%H%M%S}-{shortened(name)}.sent"
    yield stem
    yield from (f"{stem}-{number}" for number in count(2))


def bad_names(name: str, at: datetime) -> Iterator[str]:
    """Names for it in `badmail`: ``order.eml.bad``; then, as Exchange does, with the time behind it."""
    stem = f"{shortened(name)}.bad"
    yield stem
    timed = f"{stem}-{at.astimezone(UTC):%Y%m%dT%H%M%S%f}"
    yield timed
    yield from (f"{timed}-{number}" for number in count(2))


def shortened(name: str, octets: int = 180) -> str:
    """A file system takes 255 octets, and there is more to say than the name. Its end says what kind it is."""
    try:
        encoded = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # on Windows a name may hold half of a character
        return shortened(shown(name), octets)
    return name if len(encoded) <= octets else encoded[-octets:].decode("utf-8", "surrogateescape")
