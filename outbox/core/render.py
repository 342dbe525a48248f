"""A row becomes a message: complete, CRLF, 7-bit unless it came in raw, and the same bytes every time.

    render       the bytes to hand to a relay (not dot-stuffed, without the final dot: those belong to the transport)
    message_id   the Message-ID it carries

Date and Message-ID come from the row, so a retry repeats them; the boundaries come from its id and token. `Bcc` is
never among the headers. Hand-made, because the standard library needs 800 µs for what takes a few here; the tests hold
it against the standard library's parser.

Standards: RFC 5322, 2045–2047, 2231, 6532, RFC 3834 (Auto-Submitted).
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import lru_cache

from outbox.core.address import Address, excerpt, parse_address_list
from outbox.core.header import check_text, read_headers
from outbox.core.message import Message, bare_sender
from outbox.core.mime import compose_block, compose_body
from outbox.core.pieces import join
from outbox.core.raw import compose_raw, read_fields, value_of
from outbox.core.record import record
from outbox.core.words import address_field, text_field
from outbox.errors import InvalidMessage

MAX_TOKEN = 64

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_AUTOMATIC = ("Auto-Submitted", "Auto-Submitted: auto-generated")
_MIME_VERSION = ("MIME-Version", "MIME-Version: 1.0")
_UNDISCLOSED = ("To", "To: undisclosed-recipients:;")


@record
class Rendered:
    """A message for the wire. `smtputf8`: its header is not all ASCII (RFC 6531); `eight_bit`: something in it is not.

    Whether the *envelope* needs SMTPUTF8 is another question: a Bcc recipient is not in here.
    """

    data: bytes
    smtputf8: bool
    eight_bit: bool


def render(message: Message) -> Rendered:
    """Compose `message`. Raises InvalidMessage, and nothing else, for whatever cannot be composed: 5.6.0, or 5.1.x for
    its addresses.
    """
    try:
        return _pass_on(message, message.raw) if message.raw else _compose(message)
    except InvalidMessage:
        raise
    except UnicodeError:
        raise InvalidMessage("5.6.0", "it has a character in it that is none (a lone surrogate)") from None
    except ValueError as fault:
        raise InvalidMessage("5.6.0", str(fault)) from None
    except Exception as fault:  # whatever a row can provoke fails this message, never the batch
        raise InvalidMessage("5.6.0", f"it cannot be composed ({type(fault).__name__}: {fault})") from fault


def message_id(message: Message) -> str:
    """The Message-ID with its angle brackets: ``<id.token@sender-domain>``, or the one a raw message brings along.

    Raises InvalidMessage.
    """
    if message.raw:
        try:
            own = value_of(read_fields(message.raw), "message-id")
        except (ValueError, TypeError) as fault:
            raise InvalidMessage("5.6.0", str(fault)) from None
        if own:
            return own
    return _generated_id(message, _domain(message.sender))


def _compose(message: Message) -> Rendered:
    if message.text_body is None and message.html_body is None:
        raise InvalidMessage("5.6.0", "it has no body")
    from_field, domain = _voice(message.sender, message.sender_name)
    fields = [("Date", _date(message.created_at)), ("From", from_field), *_address_fields(message)]
    if message.subject:
        fields.append(("Subject", text_field("Subject", message.subject)))
    fields.append(("Message-ID", f"Message-ID: {_generated_id(message, domain)}"))
    if message.headers:
        fields += [(name, text_field(name, value)) for name, value in read_headers(message.headers)]
    if not message.headers or all(name.lower() != "auto-submitted" for name, _ in fields):
        fields.append(_AUTOMATIC)
    fields.append(_MIME_VERSION)
    seed = f"{message.id}.{message.token[:32]}"  # a boundary has at most 70 characters
    body = compose_body(message.text_body, message.html_body, message.attachments, seed)
    fields += body.fields
    block = compose_block(fields)
    international = not block.isascii()
    return Rendered(join((block, *body.body)), smtputf8=international, eight_bit=international)


def _pass_on(message: Message, raw: bytes) -> Rendered:
    if message.attachments:
        raise InvalidMessage("5.6.0", "a raw message has its attachments inside: its row may not have others")
    added = {
        "Date": _date(message.created_at),
        "Message-ID": f"Message-ID: {_generated_id(message, _domain(message.sender))}",
    }
    header, body = compose_raw(raw, added)
    data = join((header, body))
    return Rendered(data, smtputf8=not header.isascii(), eight_bit=not data.isascii())


def _address_fields(message: Message) -> list[tuple[str, str]]:
    fields = []
    if message.recipients.strip():
        fields.append(_address_field("To", message.recipients))
    if message.cc.strip():
        fields.append(_address_field("Cc", message.cc))
    if not fields:
        fields.append(_UNDISCLOSED)
    if message.reply_to.strip():
        fields.append(_address_field("Reply-To", message.reply_to))
    return fields


def _address_field(name: str, text: str) -> tuple[str, str]:
    try:
        return name, address_field(name, parse_address_list(text))
    except ValueError as fault:
        raise InvalidMessage("5.1.3", f"its {name} addresses cannot be read: {fault}") from None


@lru_cache(maxsize=1024)
def _voice(sender: str, name: str) -> tuple[str, str]:
    """The From field, and the domain of the Message-ID: few senders speak in many messages."""
    address = bare_sender(sender)
    check_text(name, "sender_name")
    return address_field("From", [Address(name, address.local, address.domain)]), _domain(sender)


def _domain(sender: str) -> str:
    return bare_sender(sender).wire.rpartition("@")[2].lower()


def _generated_id(message: Message, domain: str) -> str:
    token = message.token
    if not (token.isalnum() and token.isascii() and len(token) <= MAX_TOKEN):
        raise InvalidMessage(
            "5.6.0", f"its token is not made of letters and digits, at most {MAX_TOKEN}: {excerpt(token)}"
        )
    return f"<{message.id:d}.{token}@{domain}>"


def _date(moment: datetime) -> str:
    """RFC 5322 §3.3, in UTC. Not strftime: that speaks the language of the locale."""
    utc = moment.astimezone(UTC)
    day = _day(utc.year, utc.month, utc.day)
    return "Date: %s %02d:%02d:%02d +0000" % (day, utc.hour, utc.minute, utc.second)  # noqa: UP031 - twice as fast


@lru_cache(maxsize=64)
def _day(year: int, month: int, day: int) -> str:
    return f"{_DAYS[date(year, month, day).weekday()]}, {day:02d} {_MONTHS[month]} {year:04d}"
