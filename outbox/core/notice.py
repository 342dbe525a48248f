"""A notice of mail that was not delivered: multipart/report of words for people, a delivery status for programs, and
the header of the original (RFC 3461 §6, RFC 3462, RFC 3464). Always 7-bit.

    compose     a Notice ──► a complete message, but for its Date and Message-ID, which come from its row

Whatever a relay or an address says in it stays in its own field: what is not printable is a space, and each block is
verified to have the fields that were meant.
"""

from __future__ import annotations

import re
from binascii import b2a_qp
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import StrEnum

from outbox.core.address import Address, parse_address
from outbox.core.lines import has_long_line
from outbox.core.mime import Part, compose_block, multipart, text_part
from outbox.core.pieces import join
from outbox.core.reply import sanitise
from outbox.core.words import address_field, pieces_field, text_field

MOST_RECIPIENTS = 500
"""Of whom a notice tells one by one."""

MOST_HEADER = 64 * 1024
"""Octets of the original's header that go back."""

_WORD = 900  # longer than any address, shorter than a line may be
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")


class Action(StrEnum):
    """What has become of a recipient (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"


@dataclass(frozen=True, slots=True)
class Unreached:
    """A recipient who has not got the mail. `code` 0: the words are ours, and not a relay's."""

    address: str
    code: int = 0
    status: str = ""
    text: str = ""
    relay: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be told.

    sender, to      addresses: in whose name, and the original's return path
    reporting       the name by which we introduce ourselves to relays
    gave_up         it was given up; else it was refused. Of a delay that means nothing
    message_id      the original's Message-ID; it and `subject` may be empty
    header          the original's header, lines with CRLF; empty when it is gone
    seed            makes the boundary
    """

    sender: str
    to: str
    reporting: str
    action: Action
    recipients: Sequence[Unreached]
    enqueued_at: datetime
    seed: str
    gave_up: bool = False
    subject: str = ""
    message_id: str = ""
    envelope_id: str = ""
    header: bytes = b""


def compose(notice: Notice) -> bytes:
    """The notice. Raises ValueError when one of its own two addresses is none, or when there is no recipient."""
    if not notice.recipients:
        raise ValueError("there is no recipient to tell of")
    people, status, original = text_part(_words(notice)), _delivery_status(notice), _original(notice)
    body = multipart("report", [people, status, original], notice.seed, " report-type=delivery-status;")
    title = "Delayed mail" if notice.action is Action.DELAYED else "Undelivered mail"
    subject = sanitise(notice.subject, limit=200)
    sender = parse_address(notice.sender)
    fields = [
        ("From", address_field("From", [Address("Mail Delivery System", sender.local, sender.domain)])),
        ("To", address_field("To", [parse_address(notice.to)])),
        ("Subject", text_field("Subject", f"{title}: {subject}" if subject else title)),
        ("Auto-Submitted", "Auto-Submitted: auto-replied"),
    ]
    if _MESSAGE_ID.fullmatch(notice.message_id):
        fields += [(name, f"{name}: {notice.message_id}") for name in ("In-Reply-To", "References")]
    fields += [("MIME-Version", "MIME-Version: 1.0"), *body.fields]
    return join((compose_block(fields), *body.body))


# -- for people


def _words(notice: Notice) -> str:
    lines = [_OPENING[notice.action, notice.gave_up], ""]
    facts = (("Subject", notice.subject), ("Message-ID", notice.message_id), ("Enqueued", _date(notice.enqueued_at)))
    lines += [f"    {name}: {sanitise(text, limit=500)}" for name, text in facts if text]
    shown = notice.recipients[:MOST_RECIPIENTS]
    for each in shown:
        lines += ["", f"<{sanitise(each.address, limit=320)}>"]
        said = sanitise(" ".join(filter(None, (str(each.code or ""), each.status, each.text))), limit=1200)
        lines += [f"    {said}"] if said else []
    if len(notice.recipients) > len(shown):
        lines += ["", f"and {len(notice.recipients) - len(shown)} more recipients"]
    return "\n".join(lines) + "\n"


_FAILED = "Your message could not be delivered to the recipients below. It is not tried any more."
_OPENING = {
    (Action.FAILED, False): _FAILED,
    (Action.FAILED, True): "Your message was given up: it could not be delivered in time to the recipients below.",
    (Action.DELAYED, False): "Your message has not been delivered yet to the recipients below. You need not send it\n"
    "again: it is tried until it is delivered or given up, and you are told if it is given up.",
}
_OPENING[Action.DELAYED, True] = _OPENING[Action.DELAYED, False]


# -- for programs


def _delivery_status(notice: Notice) -> Part:
    """RFC 3464 §2.2 and §2.3: a block about the message, then one for each recipient."""
    about = [("Original-Envelope-Id", notice.envelope_id)] if notice.envelope_id else []
    about += [("Reporting-MTA", f"dns; {notice.reporting}"), ("Arrival-Date", _date(notice.enqueued_at))]
    blocks = [_block(about), *(_block(_of(notice, each)) for each in notice.recipients[:MOST_RECIPIENTS])]
    # The empty line that ends the last one belongs to the boundary.
    return Part((("Content-Type", "Content-Type: message/delivery-status"),), (b"".join(blocks)[:-2],))


def _of(notice: Notice, each: Unreached) -> Iterable[tuple[str, str]]:
    address = _typed_address(each.address)
    yield "Original-Recipient", address
    yield "Final-Recipient", address
    yield "Action", notice.action
    yield "Status", _status(notice, each)
    host = each.relay.partition("[")[0].partition(":")[0]
    if host and each.code:
        yield "Remote-MTA", f"dns; {host}"
    said = " ".join(filter(None, (str(each.code or ""), each.status, each.text)))
    if said:
        yield "Diagnostic-Code", f"{'smtp' if each.code else 'X-Outbox'}; {said}"
    if each.at is not None:
        yield "Last-Attempt-Date", _date(each.at)


def _status(notice: Notice, each: Unreached) -> str:
    """The relay's, where it gave one. A delay is of class 4, whatever a relay said of an account meanwhile."""
    status = each.status if _STATUS.fullmatch(each.status) else ""
    if notice.action is Action.DELAYED:
        return f"4{status[1:]}" if status else "4.0.0"
    if status:
        return status
    if each.code >= 400:
        return f"{each.code // 100}.0.0"
    return "5.4.7" if notice.gave_up else "5.0.0"  # 5.4.7: delivery time expired (RFC 3463 §3.5)


def _typed_address(address: str) -> str:
    """RFC 3464 §2.1.2; with other letters than ASCII, RFC 6533 §3 in its 7-bit form."""
    clean = sanitise(address, limit=320)
    if clean.isascii():
        return f"rfc822; {clean}"
    return "utf-8; " + "".join(each if each.isascii() else f"\\x{{{ord(each):X}}}" for each in clean)


def _block(fields: Iterable[tuple[str, str]]) -> bytes:
    return compose_block([(name, _field(name, value)) for name, value in fields])


def _field(name: str, value: str) -> str:
    """Folded between words; what is not ASCII becomes a question mark, as the format has no place for it."""
    words = sanitise(value).encode("ascii", "replace").decode().split()
    pieces = [f" {word[at : at + _WORD]}" for word in words for at in range(0, len(word), _WORD)]
    return pieces_field(name, pieces or [" "])


def _date(moment: datetime) -> str:
    return format_datetime(moment.astimezone(UTC).replace(microsecond=0))


# -- the original


def _original(notice: Notice) -> Part:
    header = _shortened(notice.header) if not has_long_line(notice.header) else b""
    if not header:
        known = [("Message-ID", notice.message_id)] if _MESSAGE_ID.fullmatch(notice.message_id) else []
        fields = [(name, f"{name}: {value}") for name, value in known]
        if subject := sanitise(notice.subject, limit=500):
            fields.append(("Subject", text_field("Subject", subject)))
        header = "".join(f"{field}\r\n" for _, field in fields).encode()
    if header.isascii():
        return Part((_HEADERS_7BIT,), (header,))
    encoded = b2a_qp(header, istext=True)
    quoted = ("Content-Transfer-Encoding", "Content-Transfer-Encoding: quoted-printable")
    return Part((_HEADERS_UTF8, quoted), (encoded,))


_HEADERS_7BIT = ("Content-Type", "Content-Type: text/rfc822-headers")
_HEADERS_UTF8 = ("Content-Type", "Content-Type: text/rfc822-headers; charset=utf-8")


def _shortened(header: bytes) -> bytes:
    """Whole lines of it, as many as may go back."""
    if len(header) <= MOST_HEADER:
        return header
    return header[: header.rfind(b"\r\n", 0, MOST_HEADER) + 2]
