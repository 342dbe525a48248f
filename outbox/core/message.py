"""A message as it was stored, and whom it is for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a mail. `content_id` (without angle brackets) makes it an inline image that html refers to as ``cid:…``."""

    filename: str
    content: bytes
    content_type: str = "application/octet-stream"
    content_id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One row of `outbox` with its attachments, as read by the runner. Text columns that are NULL are ``""``; bodies are None.

    `created_at` is aware, UTC. `headers` is the JSON text as stored (or ``""``). `raw` is a complete message (RFC 5322).
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
    headers: str = ""
    return_path: str = ""
    text_body: str | None = None
    html_body: str | None = None
    raw: bytes | None = None
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipient:
    """One address of one message. `position` counts from 0 over To, Cc and Bcc together; `kind` is to, cc or bcc."""

    position: int
    address: str
    kind: str
