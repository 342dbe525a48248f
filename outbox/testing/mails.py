"""What a mail is to a test: a row of the outbox with its fields apart, and what a relay has received."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from outbox.core.address import parse_address_list
from outbox.core.message import Attachment, Message, recipients_of
from outbox.core.render import render
from outbox.errors import InvalidMessage
from outbox.testing.reading import Rows

if TYPE_CHECKING:
    from email.message import EmailMessage

COLUMNS = (
    *("id", "token", "created_at", "source", "priority", "on_doubt", "due_at", "expires_at", "dedup_key", "tag"),
    *("sender", "sender_name", "return_path", "recipients", "cc", "bcc", "reply_to", "subject", "headers"),
    *("text_body", "html_body", "raw"),
)

ALL = "SELECT id, token FROM outbox ORDER BY id"


def contents(ids: Iterable[int]) -> str:
    """The SELECT of these rows."""
    return f"SELECT {', '.join(COLUMNS)} FROM outbox WHERE id IN ({_listed(ids)}) ORDER BY id"  # noqa: S608 -- ints


def files(ids: Iterable[int]) -> str:
    """The SELECT of their attachments."""
    return (
        "SELECT message_id, filename, content, content_type, content_id FROM outbox_attachment"  # noqa: S608 -- ints
        f" WHERE message_id IN ({_listed(ids)}) ORDER BY message_id, position"
    )


def _listed(ids: Iterable[int]) -> str:
    return ", ".join(str(int(each)) for each in ids) or "NULL"


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A row of the outbox.

    to, cc, bcc       bare addresses, as they go to the relay; of a complete message, those of its header
    subject, text, html, headers, attachments
                      of a complete message (`raw`), what is in it; text and html are None where there is none
    due_at, expires_at, created_at
                      aware, UTC
    """

    id: int
    sender: str
    sender_name: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    bcc: tuple[str, ...]
    reply_to: tuple[str, ...]
    subject: str
    text: str | None = field(repr=False)
    html: str | None = field(repr=False)
    headers: Mapping[str, str | list[str]] = field(repr=False)
    attachments: tuple[Attachment, ...]
    dedup_key: str | None
    tag: str | None
    source: str
    priority: int
    on_doubt: str
    due_at: datetime | None
    expires_at: datetime | None
    return_path: str | None
    raw: bytes | None = field(repr=False)
    created_at: datetime
    row: Message = field(repr=False)

    @property
    def key(self) -> str | None:
        """`dedup_key`."""
        return self.dedup_key

    @property
    def message(self) -> EmailMessage:
        """As it goes to the relay, by the same code. Raises InvalidMessage when it cannot be composed."""
        return parsed(render(self.row).data)

    def __str__(self) -> str:
        whom = ", ".join([*self.to, *(f"cc {each}" for each in self.cc), *(f"bcc {each}" for each in self.bcc)])
        more = "".join(f", {name} {value!r}" for name, value in (("key", self.key), ("tag", self.tag)) if value)
        return f"{self.id}: {self.sender} → {whom}: {self.subject!r}{more}"


@dataclass(frozen=True, slots=True)
class Received:
    """A mail that the relay has accepted: the envelope, and `data`, octet by octet."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes = field(repr=False)

    @property
    def message(self) -> EmailMessage:
        return parsed(self.data)

    @property
    def subject(self) -> str:
        return str(self.message["Subject"] or "")


def parsed(data: bytes) -> EmailMessage:
    """A message of the standard library, whose texts have the line ends that tests write."""
    import email
    import email.policy

    return email.message_from_bytes(data.replace(b"\r\n", b"\n"), policy=email.policy.default)


def read(rows: Rows, attached: Rows) -> Iterator[Enqueued]:
    """The mails of what `contents` and `files` have found."""
    of: dict[int, list[Attachment]] = {}
    for message_id, filename, content, content_type, content_id in attached:
        file = Attachment(_text(filename), bytes(content), _text(content_type), _text(content_id))
        of.setdefault(int(message_id), []).append(file)
    for row in rows:
        columns = dict(zip(COLUMNS, row, strict=True))
        yield _enqueued(columns, tuple(of.get(int(columns["id"]), ())))


def _enqueued(columns: dict[str, Any], attachments: tuple[Attachment, ...]) -> Enqueued:
    raw = columns["raw"]
    raw = None if raw is None or len(raw) == 0 else raw.encode() if isinstance(raw, str) else bytes(raw)
    texts: dict[str, Any] = {name: _text(columns[name]) for name in COLUMNS if name not in _NOT_TEXT}
    headers = columns["headers"]
    headers = headers if isinstance(headers, dict) else json.loads(_text(headers) or "{}")
    created_at = _moment(columns["created_at"]) or datetime.fromtimestamp(0, UTC)
    inner = ("sender", "sender_name", "recipients", "cc", "bcc", "reply_to", "subject", "return_path")
    message = Message(
        int(columns["id"]),
        texts["token"],
        created_at,
        **{name: texts[name] for name in inner},
        headers=json.dumps(headers, ensure_ascii=False) if headers else "",
        text_body=texts["text_body"] or None,
        html_body=texts["html_body"] or None,
        raw=raw,
        attachments=attachments,
    )
    to, cc, bcc = _recipients(message)
    content = (
        {
            "subject": message.subject,
            "text": message.text_body,
            "html": message.html_body,
            "headers": headers,
            "attachments": attachments,
            "reply_to": _addresses(message.reply_to),
        }
        if raw is None
        else _inside(raw)
    )
    return Enqueued(
        id=message.id,
        sender=message.sender,
        sender_name=message.sender_name,
        to=to,
        cc=cc,
        bcc=bcc,
        **content,
        dedup_key=texts["dedup_key"] or None,
        tag=texts["tag"] or None,
        source=texts["source"],
        priority=int(columns["priority"]),
        on_doubt=texts["on_doubt"],
        due_at=_moment(columns["due_at"]),
        expires_at=_moment(columns["expires_at"]),
        return_path=message.return_path or None,
        raw=raw,
        created_at=created_at,
        row=message,
    )


_NOT_TEXT = frozenset({"id", "created_at", "priority", "due_at", "expires_at", "headers", "raw"})


def _recipients(message: Message) -> tuple[tuple[str, ...], ...]:
    """To, Cc and Bcc. A list that cannot be read, which plain SQL can have written, is given as it is."""
    try:
        found = recipients_of(message)
    except InvalidMessage:
        return tuple((text,) if text else () for text in (message.recipients, message.cc, message.bcc))
    return tuple(tuple(each.address for each in found if each.kind == kind) for kind in ("to", "cc", "bcc"))


def _inside(raw: bytes) -> dict[str, Any]:
    message = parsed(raw)
    text, html = (message.get_body((kind,)) for kind in ("plain", "html"))
    headers: dict[str, str | list[str]] = {}
    for name in dict.fromkeys(message.keys()):
        values = [str(value) for value in message.get_all(name, [])]
        headers[name] = values[0] if len(values) == 1 else values
    return {
        "subject": str(message["Subject"] or ""),
        "text": None if text is None else text.get_content(),
        "html": None if html is None else html.get_content(),
        "headers": headers,
        "attachments": tuple(
            Attachment(
                part.get_filename() or "",
                part.get_payload(decode=True) or b"",  # type: ignore[arg-type]
                part.get_content_type(),
                str(part["Content-ID"] or "").strip("<> "),
            )
            for part in message.iter_attachments()
        ),
        "reply_to": _addresses(str(message["Reply-To"] or "")),
    }


def _addresses(text: str) -> tuple[str, ...]:
    try:
        return tuple(each.email for each in parse_address_list(text)) if text.strip() else ()
    except ValueError:
        return (text,)


def _moment(value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(_text(value))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _text(value: Any) -> str:
    """A column of text, also of an application that reads bytes (`text_factory`)."""
    return "" if value is None else value.decode() if isinstance(value, bytes) else str(value)
