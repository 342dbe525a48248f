"""FastAPI-Mail's messages, for an application whose mail shall be rows in its own transaction.

    await enqueue_fastmail(connection, fast_mail, message)      # in place of fast_mail.send_message(message)

`aenqueue(connection, mail)` needs nothing of this: it is for those who have MessageSchemas and templates already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi_mail.fastmail import FastMail, email_dispatched

from outbox.enqueue import aenqueue
from outbox.mail import Mail

if TYPE_CHECKING:
    from fastapi_mail import MessageSchema

    from outbox.enqueue import AsyncConnection
else:
    AsyncConnection = Any

SOURCE = "fastapi"


async def enqueue_fastmail(
    connection: AsyncConnection,
    fast_mail: FastMail,
    message: MessageSchema,
    template_name: str | None = None,
    html_template: str | None = None,
    plain_template: str | None = None,
    **fields: Any,
) -> int | None:
    """Enqueue `message` in the transaction of `connection`, composed as `fast_mail.send_message` would; `fields` are
    arguments of `Mail.from_message`. Returns what `aenqueue` does. With SUPPRESS_SEND nothing is inserted;
    FastAPI-Mail's own signal is sent either way, so that its `record_messages` goes on recording.

    Raises: as `aenqueue`; InvalidMail.
    """
    composed: Any = await fast_mail.get_message(message, template_name, html_template, plain_template)
    message_id = None
    if not fast_mail.config.SUPPRESS_SEND:
        message_id = await aenqueue(connection, Mail.from_message(composed, **fields), source=SOURCE)
    email_dispatched.send(composed)
    return message_id
