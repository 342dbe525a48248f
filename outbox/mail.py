"""What an application hands over: a mail, checked before the database sees it.

    Mail(to="ann@example.net", subject="Order 7", text="Thanks", sender="Shop <shop@example.com>")
    Mail.from_message(message)          an email.message.EmailMessage, or the bytes of a complete message

A `Mail` that exists can be inserted and can be composed: whatever is wrong with it was raised by the constructor, as
InvalidMail with the field and the reason. `columns()` is its row of the table `outbox`.

Nothing here knows a database, a clock or the runner, and importing it is cheap: web applications do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from outbox.core.address import Address, parse_address, parse_address_list
from outbox.core.dsn import Dsn
from outbox.core.header import MAX_FIELDS, check_header, check_text
from outbox.core.message import NULL_PATH, Attachment, Message, recipients_of, senders_of
from outbox.core.mime import check_attachment
from outbox.core.pieces import join
from outbox.core.raw import compose_raw, read_fields, speaker_of, subject_of, written
from outbox.core.render import render
from outbox.errors import InvalidMail, InvalidMessage

if TYPE_CHECKING:
    import email.message

    from outbox.templates import Source

__all__ = ["Attachment", "Mail"]

MAX_CONTENT = 25 * 1024 * 1024
"""Octets of a body, an attachment or a raw message."""

MAX_ADDRESSES = 1024 * 1024
MAX_HEADERS = 256 * 1024
MAX_REPLY_TO = 10_000
MAX_SUBJECT = 2_000
MAX_DEDUP_KEY = 500
MAX_TAG = 255

Addresses = str | Sequence[str]
"""An address list as text, ``"ann@example.net, Bo <bo@example.net>"``, or one address for each item."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to enqueue.

    sender       ``Shop <shop@example.com>`` or the bare address; it must be registered with an account
    to, cc, bcc  address lists; at least one recipient in all. A list has one address an item, so that a name somebody
                 typed cannot add recipients
    text, html   bodies, at least one of them; both make alternatives
    attachments  `Attachment`s; with a content_id and html, they are inline images
    headers      more header fields: name → text or list of texts; not those composed from fields of a Mail
    return_path  where bounces go; ``""`` or ``"<>"``: nowhere. None: the sender registration's, else the sender
    priority     0 (most urgent) … 9
    due_at       not before (aware datetime); None: now
    expires_at   give up then (aware datetime); None: the runner's policy
    dedup_key    a second mail with the same key is not inserted
    on_doubt     when the relay fell silent after the whole mail was sent: ``retry``, or ``hold`` for a human
    tag          a word of yours to find mails by
    dsn_notify   of what the relays on the way are to tell the return path, where they can (RFC 3461): ``never``, or
                 some of ``success``, ``failure`` and ``delay``, with commas. None: as they like
    dsn_ret      how much of the mail they bring back: ``full`` or ``hdrs``
    dsn_envid    by which name they call it: printable ASCII, at most 100 characters. None: its id
    raw          a complete message instead of subject, bodies, attachments and headers; see `from_message`

    Raises InvalidMail (`field`, `reason`) for anything that cannot be stored or composed.
    """

    to: Addresses = ()
    subject: str = ""
    text: str | None = field(default=None, repr=False)
    _: KW_ONLY
    sender: str
    html: str | None = field(default=None, repr=False)
    cc: Addresses = ()
    bcc: Addresses = ()
    reply_to: Addresses = ()
    attachments: Sequence[Attachment] = ()
    headers: Mapping[str, str | Sequence[str]] | None = field(default=None, repr=False)
    return_path: str | None = None
    priority: int = 5
    due_at: datetime | None = None
    expires_at: datetime | None = None
    dedup_key: str | None = None
    on_doubt: str = "retry"
    tag: str | None = None
    dsn_notify: str | None = None
    dsn_ret: str | None = None
    dsn_envid: str | None = None
    raw: bytes | None = field(default=None, repr=False)
    _columns: dict[str, object] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # What was checked is what is stored: a list or dict the caller changes later must not matter.
        object.__setattr__(self, "attachments", _attachments(self.attachments, inline=bool(self.html)))
        columns = {
            **_delivery(self),
            **_envelope(self),
            **_dsn(self),
            **(_content(self) if self.raw is None else _raw(self)),
        }
        object.__setattr__(self, "_columns", {name: value for name, value in columns.items() if value is not None})
        if self.raw is not None:
            _check_raw(self._columns)
        elif not self._columns.keys() & {"recipients", "cc", "bcc"}:
            raise InvalidMail("to", "there is no recipient in to, cc or bcc")

    @classmethod
    def from_message(
        cls,
        message: email.message.Message | bytes,
        *,
        sender: str | None = None,
        to: Addresses | None = None,
        cc: Addresses | None = None,
        bcc: Addresses | None = None,
        return_path: str | None = None,
        priority: int = 5,
        due_at: datetime | None = None,
        expires_at: datetime | None = None,
        dedup_key: str | None = None,
        on_doubt: str = "retry",
        tag: str | None = None,
        dsn_notify: str | None = None,
        dsn_ret: str | None = None,
        dsn_envid: str | None = None,
    ) -> Mail:
        """A mail of a complete message, which goes out as it is, but for its Bcc.

        The recipients are `to`, `cc` and `bcc` if any is given, else those of its header (Resent-… if it was resent);
        the sender is `sender`, else its Sender, else its only From.
        """
        with _named("message"):
            raw = message if isinstance(message, bytes) else written(message)
            composed = join(compose_raw(raw, {}))
        with _named("sender"):
            speaker = speaker_of(read_fields(raw)).email if sender is None else sender
        if to is None and cc is None and bcc is None:
            to, cc, bcc = _header_recipients(raw)
        return cls(
            sender=speaker,
            to=to or (),
            cc=cc or (),
            bcc=bcc or (),
            return_path=return_path,
            priority=priority,
            due_at=due_at,
            expires_at=expires_at,
            dedup_key=dedup_key,
            on_doubt=on_doubt,
            tag=tag,
            dsn_notify=dsn_notify,
            dsn_ret=dsn_ret,
            dsn_envid=dsn_envid,
            raw=composed,
        )

    @classmethod
    def from_template(cls, name: str, context: Mapping[str, Any], *, templates: Source, **fields: Any) -> Mail:
        """A mail whose subject and bodies are rendered now, from the templates called `name` (see `outbox.templates`).
        `fields` are the other arguments of a Mail; they win.
        """
        from outbox.templates import of_source

        return cls(**{**of_source(templates).render(name, context), **fields})

    def columns(self) -> dict[str, object]:
        """The row for ``INSERT INTO outbox``: column → text, int, bytes or (UTC) datetime. Columns that would be NULL
        are left out; `attachments` has the rows of the other table.
        """
        return dict(self._columns)


def _delivery(mail: Mail) -> dict[str, object]:
    if type(mail.priority) is not int or not 0 <= mail.priority <= 9:
        raise InvalidMail("priority", f"it must be a whole number from 0 (most urgent) to 9, not {mail.priority!r}")
    if mail.on_doubt not in ("retry", "hold"):
        raise InvalidMail("on_doubt", f"it must be 'retry' or 'hold', not {mail.on_doubt!r}")
    due_at, expires_at = _moment("due_at", mail.due_at), _moment("expires_at", mail.expires_at)
    if due_at is not None and expires_at is not None and expires_at <= due_at:
        raise InvalidMail("expires_at", "it is not after due_at, so the mail could never be sent")
    return {
        "priority": mail.priority,
        "on_doubt": mail.on_doubt,
        "due_at": due_at,
        "expires_at": expires_at,
        "dedup_key": _text("dedup_key", mail.dedup_key, MAX_DEDUP_KEY, least=1),
        "tag": _text("tag", mail.tag, MAX_TAG) or None,
    }


def _envelope(mail: Mail) -> dict[str, object]:
    sender = _address("sender", mail.sender)
    if sender.local.startswith('"'):
        raise InvalidMail("sender", f"an address that needs quotes cannot be registered: {sender.email}")
    return {
        "sender": sender.email,
        "sender_name": sender.name or None,
        "return_path": _return_path(mail.return_path),
        "recipients": _address_list("to", mail.to),
        "cc": _address_list("cc", mail.cc),
        "bcc": _address_list("bcc", mail.bcc),
    }


def _dsn(mail: Mail) -> dict[str, object]:
    columns: dict[str, object] = {}
    if mail.dsn_notify is None and mail.dsn_ret is None and mail.dsn_envid is None:
        return columns
    for name in ("dsn_notify", "dsn_ret", "dsn_envid"):
        value = _text(name, getattr(mail, name), MAX_TAG) or None
        if value is not None and (flaw := Dsn(**{name.removeprefix("dsn_"): value}).flaw()):
            raise InvalidMail(name, flaw.replace(name, "it", 1))
        columns[name] = value
    return columns


def _content(mail: Mail) -> dict[str, object]:
    subject = _text("subject", mail.subject, MAX_SUBJECT) or ""
    if not (subject.isascii() and subject.isprintable()):
        with _named("subject"):
            check_text(subject, "it")
    text, html = _body("text", mail.text), _body("html", mail.html)
    if text is None and html is None:
        raise InvalidMail("text", "there is no body: text and html are both empty")
    return {
        "reply_to": _address_list("reply_to", mail.reply_to, MAX_REPLY_TO),
        "subject": subject or None,
        "headers": _headers(mail.headers),
        "text_body": text,
        "html_body": html,
    }


def _raw(mail: Mail) -> dict[str, object]:
    if mail.subject or mail.text or mail.html or mail.attachments or mail.headers or mail.reply_to:
        raise InvalidMail("raw", "a complete message has its subject, bodies, attachments and headers inside")
    if not isinstance(mail.raw, bytes):
        raise InvalidMail("raw", f"it must be bytes, not {type(mail.raw).__name__}")
    if len(mail.raw) > MAX_CONTENT:
        raise InvalidMail("raw", f"it is larger than {MAX_CONTENT} bytes")
    if not mail.raw:
        raise InvalidMail("raw", "it is empty")
    return {"raw": mail.raw, "subject": subject_of(mail.raw)[:MAX_SUBJECT] or None}


def speakers(mail: Mail) -> tuple[str, ...]:
    """Everybody in whose name it speaks, and who has to be registered: see `core.message.senders_of`."""
    return senders_of(_probe(mail._columns))


def _probe(columns: Mapping[str, Any]) -> Message:
    """As the runner will see it, as far as its envelope and its raw message go."""
    names = ("sender", "recipients", "cc", "bcc", "return_path", "raw")
    given = {name: columns[name] for name in names if name in columns}
    return Message(1, "0", datetime(2000, 1, 1, tzinfo=UTC), **given)


def _check_raw(columns: dict[str, Any]) -> None:
    """What the runner will do with a raw message, once, here."""
    probe = _probe(columns)
    try:
        senders_of(probe)
        recipients_of(probe)
        render(probe)
    except InvalidMessage as invalid:
        raise InvalidMail("to" if invalid.status == "5.1.0" else "raw", invalid.reason) from None


@contextmanager
def _named(field: str) -> Iterator[None]:
    """A ValueError raised inside becomes InvalidMail about `field`."""
    try:
        yield
    except ValueError as fault:
        raise InvalidMail(field, str(fault)) from None


def _text(field: str, value: object, limit: int, *, least: int = 0) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidMail(field, f"it must be a str, not {type(value).__name__}")
    if not least <= len(value) <= limit:
        raise InvalidMail(field, f"it must have {least} to {limit} characters, not {len(value)}")
    if "\0" in value:
        raise InvalidMail(field, "there is a NUL character in it")
    _octets(field, value)
    return value


def _octets(field: str, value: str) -> int:
    try:
        return len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise InvalidMail(field, "there is a character in it that is none (a lone surrogate)") from None


def _body(field: str, value: object) -> str | None:
    text = _text(field, value, MAX_CONTENT)
    if text and len(text) > MAX_CONTENT // 4 and _octets(field, text) > MAX_CONTENT:
        raise InvalidMail(field, f"it is larger than {MAX_CONTENT} bytes")
    return text or None


def _moment(field: str, value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidMail(field, f"it must be a datetime, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise InvalidMail(field, "it is naive: give it its time zone, as in datetime.now(UTC)")
    try:
        utc = value.astimezone(UTC)
    except OverflowError:
        utc = datetime.min.replace(tzinfo=UTC)
    if not 1970 <= utc.year < 9999:
        raise InvalidMail(field, f"{value.isoformat()} is out of range: 1970 to 9998")
    return utc


def _address(field: str, value: object) -> Address:
    if not isinstance(value, str):
        raise InvalidMail(field, f"it must be an address as a str, not {type(value).__name__}")
    try:
        return parse_address(value)
    except ValueError as fault:
        raise InvalidMail(field, str(fault)) from None


def _address_list(field: str, value: object, limit: int = MAX_ADDRESSES) -> str | None:
    if value == () or value == "":  # most lists of most mails
        return None
    if isinstance(value, str):
        try:
            found = parse_address_list(value) if value.strip() else ()
        except ValueError as fault:
            raise InvalidMail(field, str(fault)) from None
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        found = tuple(_address(field, item) for item in value)
    else:
        raise InvalidMail(field, f"it must be a str, or a list of them, not {type(value).__name__}")
    text = ", ".join(map(str, found))
    if len(text.encode()) > limit:
        raise InvalidMail(field, f"the addresses are longer than {limit} bytes")
    return text or None


def _return_path(value: object) -> str | None:
    if value is None:
        return None
    if value in ("", NULL_PATH):
        return NULL_PATH
    address = _address("return_path", value)
    if address.name:
        raise InvalidMail("return_path", "it must be a bare address, without a name")
    return address.email


def _headers(value: object) -> str | None:
    if not value:
        return None
    if not isinstance(value, Mapping):
        raise InvalidMail("headers", f"it must map names to texts, not be a {type(value).__name__}")
    fields: dict[str, list[str]] = {}
    with _named("headers"):
        for name, given in value.items():
            fields[name] = (
                [given] if isinstance(given, str) else list(given) if isinstance(given, Sequence) else [given]
            )
            for text in fields[name]:
                check_header(name, text)
    if sum(map(len, fields.values())) > MAX_FIELDS:
        raise InvalidMail("headers", f"there are more than {MAX_FIELDS} of them")
    text = json.dumps(
        {name: texts[0] if len(texts) == 1 else texts for name, texts in fields.items()}, ensure_ascii=False
    )
    if len(text.encode()) > MAX_HEADERS:
        raise InvalidMail("headers", f"they are larger than {MAX_HEADERS} bytes")
    return text


def _attachments(value: object, *, inline: bool) -> tuple[Attachment, ...]:
    if value == ():
        return ()
    if not isinstance(value, Sequence) or not all(isinstance(each, Attachment) for each in value):
        raise InvalidMail("attachments", "it must be a list of Attachment")
    seen: set[str] = set()
    for each in value:
        texts = (each.filename, each.content_type, each.content_id)
        if not isinstance(each.content, bytes) or not all(isinstance(text, str) for text in texts):
            raise InvalidMail("attachments", "the content must be bytes, and filename, content_type and content_id str")
        if len(each.content) > MAX_CONTENT:
            raise InvalidMail("attachments", f"{each.filename!r} is larger than {MAX_CONTENT} bytes")
        if inline and each.content_id in seen:
            raise InvalidMail("attachments", f"two of them have the content_id {each.content_id!r}")
        seen.update(filter(None, [each.content_id]))
        with _named("attachments"):
            check_attachment(each)
    return tuple(value)


def _header_recipients(raw: bytes) -> tuple[list[str], list[str], list[str]]:
    try:
        found = recipients_of(_probe({"sender": "nobody@invalid", "raw": raw}))
    except InvalidMessage as invalid:
        raise InvalidMail("to", invalid.reason) from None
    to, cc, bcc = ([each.address for each in found if each.kind == kind] for kind in ("to", "cc", "bcc"))
    return to, cc, bcc
