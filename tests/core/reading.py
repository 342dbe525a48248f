"""A plain message to vary, and the standard library's reading of what became of it."""

from __future__ import annotations

import email
import email.message
import email.policy
from datetime import UTC, datetime
from typing import Any

from outbox.core.message import Message
from outbox.core.render import Rendered

PLAIN = Message(
    id=7,
    token="0123456789abcdef",
    created_at=datetime(2026, 3, 1, 9, 5, 7, 250_000, tzinfo=UTC),
    sender="shop@example.com",
    recipients="ann@example.net",
    subject="Order 7",
    text_body="Thanks",
)


def parsed(rendered: Rendered, policy: Any = email.policy.default) -> email.message.EmailMessage:
    if rendered.smtputf8:
        read = email.message_from_string(rendered.data.decode(), policy=policy)
    else:
        read = email.message_from_bytes(rendered.data, policy=policy)
    assert isinstance(read, email.message.EmailMessage)
    return read
