"""A message as it was stored, whom it is for, and in whose name it speaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from outbox.core.address import Address, lane, parse_address, parse_address_list
from outbox.core.dsn import NO_DSN, Dsn
from outbox.core.header import RESERVED_HEADERS, check_header
from outbox.core.raw import Fields, addresses_in, read_fields, resent_fields
from outbox.core.record import record
from outbox.errors import InvalidMessage

__all__ = [
    "NULL_PATH",
    "RESERVED_HEADERS",
    "Attachment",
    "Message",
    "Recipient",
    "bare_sender",
    "check_header",
    "recipients_of",
    "senders_of",
]

NULL_PATH = "<>"
"""How the column `return_path` says that nobody wants to hear of it when the mail bounces (RFC 5321 §4.5.5)."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a mail. `content_id` (without angle brackets) makes it an inline image that html refers to as
    ``cid:…``.
    """

    filename: str
    content: bytes = field(repr=False)
    content_type: str = "application/octet-stream"
    content_id: str = ""


@record
class Message:
    """One row of `outbox` with its attachments, as read by the runner. Text columns that are NULL are ``""``; bodies
    are None, or "" which means the same.

    `created_at` is aware, UTC. `headers` is the JSON text as stored (or ``""``). `raw` is a complete message (RFC
    5322).
    """

    id: int
    token: str
    created_at: datetime
    sender: str
    sender_name: str = ""
    recipients: str = ""
    cc: str = ""
    bcc: str = ""
    reply_to: str = ""
    subject: str = ""
    headers: str = field(default="", repr=False)
    return_path: str = ""
    dsn: Dsn = NO_DSN
    text_body: str | None = field(default=None, repr=False)
    html_body: str | None = field(default=None, repr=False)
    raw: bytes | None = field(default=None, repr=False)
    attachments: tuple[Attachment, ...] = ()


@record
class Recipient:
    """One address of one message. `position` counts from 0 over To, Cc and Bcc together; `kind` is to, cc or bcc."""

    position: int
    address: str
    kind: str


def recipients_of(message: Message) -> tuple[Recipient, ...]:
    """Everybody the message is for, each once: an address that comes again (in any case of letters) keeps its first
    place. Addresses are as SMTP says them, with ASCII domains.

    A raw message whose row names no recipients is for those in its own To, Cc and Bcc, or in the newest Resent-To,
    -Cc and -Bcc if it was resent (RFC 5322 §3.6.6).

    Raises InvalidMessage: 5.1.3 for an address that is none, 5.1.0 if there is nobody.
    """
    found = _listed(message)
    try:
        if message.raw and not found:
            found = _in_headers(message.raw)
        if len(found) == 1:
            kind, address = found[0]
            return (Recipient(0, address.wire, kind),)
        places: dict[str, tuple[str, str]] = {}
        for kind, address in found:
            wire = address.wire
            places.setdefault(lane(wire), (wire, kind))
    except (ValueError, TypeError, AttributeError) as fault:
        raise InvalidMessage("5.1.3", f"the recipients in its header cannot be read: {fault}") from None
    if not places:
        raise InvalidMessage("5.1.0", "it has no recipient")
    return tuple(Recipient(position, wire, kind) for position, (wire, kind) in enumerate(places.values()))


def bare_sender(text: str) -> Address:
    """The column `sender`. Raises InvalidMessage 5.1.7 if it is no address, or more than a bare one."""
    try:
        address = parse_address(text)
    except (ValueError, TypeError) as fault:
        raise InvalidMessage("5.1.7", f"its sender is not an address: {fault}") from None
    if address.name:
        raise InvalidMessage("5.1.7", "its sender is more than a bare address: the name belongs in sender_name")
    return address


def senders_of(message: Message) -> tuple[str, ...]:
    """Every address that must be registered to the account, as `lane` writes its SMTP form: the sender, the return
    path unless it is the null one, and what a raw message says in From, Sender, Resent-From and Resent-Sender.

    Raises InvalidMessage 5.1.7 for one that cannot be read: what we cannot check does not go out.
    """
    if not message.return_path and not message.raw:  # as nearly all
        return (_lane_of(message.sender),)
    found = [bare_sender(message.sender).wire]
    path = message.return_path.strip()
    if path and path != NULL_PATH:
        found.append(_bare_path(path))
    if message.raw:
        try:
            fields = read_fields(message.raw)
            found += [a.wire for a in addresses_in(fields, "from", "sender", "resent-from", "resent-sender")]
        except (ValueError, TypeError, AttributeError) as fault:
            raise InvalidMessage("5.1.7", f"the senders in its header cannot be read: {fault}") from None
    return tuple(dict.fromkeys(lane(address) for address in found))


@lru_cache(maxsize=1024)
def _lane_of(sender: str) -> str:
    return lane(bare_sender(sender).wire)


def _bare_path(text: str) -> str:
    try:
        address = parse_address(text)
    except (ValueError, TypeError) as fault:
        raise InvalidMessage("5.1.7", f"its return path is not an address: {fault}") from None
    if address.name:
        raise InvalidMessage("5.1.7", "its return path is more than a bare address")
    return address.wire


def _listed(message: Message) -> list[tuple[str, Address]]:
    found: list[tuple[str, Address]] = []
    for kind, text in (("to", message.recipients), ("cc", message.cc), ("bcc", message.bcc)):
        try:
            if text.strip():
                found += [(kind, address) for address in parse_address_list(text)]
        except (ValueError, TypeError, AttributeError) as fault:
            # The last two: a column of the wrong type, which SQLite allows.
            column = "recipients" if kind == "to" else kind
            raise InvalidMessage("5.1.3", f"its {column} cannot be read: {fault}") from None
    return found


def _in_headers(raw: bytes) -> list[tuple[str, Address]]:
    fields: Fields = read_fields(raw)
    resent = resent_fields(fields)
    prefix = "resent-" if any(name in ("resent-to", "resent-cc", "resent-bcc") for name, _ in resent) else ""
    source = resent if prefix else fields
    return [(kind, address) for kind in ("to", "cc", "bcc") for address in addresses_in(source, prefix + kind)]
