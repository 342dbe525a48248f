"""FastAPI-Mail's messages, composed by it: templates, suppression, its signal, files."""

from __future__ import annotations

import asyncio
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from fastapi_mail import ConnectionConfig, FastMail, MessageSchema, MessageType, MultipartSubtypeEnum

from outbox.doors.fastapi import enqueue_fastmail
from outbox.errors import InvalidMail
from outbox.store.database import sqlite_path


def fast_mail(**more: Any) -> FastMail:
    fields: dict[str, Any] = {
        "MAIL_USERNAME": "",
        "MAIL_PASSWORD": "",
        "MAIL_FROM": "shop@example.com",
        "MAIL_FROM_NAME": "The Shop",
        "MAIL_PORT": 25,
        "MAIL_SERVER": "unused.example.com",
        "MAIL_STARTTLS": True,
        "MAIL_SSL_TLS": False,
        **more,
    }
    return FastMail(ConnectionConfig(**fields))


def order(**more: Any) -> MessageSchema:
    fields: dict[str, Any] = {
        "recipients": ["ann@example.net"],
        "subject": "Order 7",
        "subtype": MessageType.html,
        **more,
    }
    return MessageSchema(**fields)


def enqueued(url: str, mail: FastMail, message: MessageSchema, *arguments: Any, **fields: Any) -> Any:
    """What `enqueue_fastmail` returns, and the rows there are then."""

    async def go() -> Any:
        async with aiosqlite.connect(sqlite_path(url)) as connection:
            message_id = await enqueue_fastmail(connection, mail, message, *arguments, **fields)
            await connection.commit()
            rows = await connection.execute_fetchall("SELECT source, sender, recipients, cc, bcc, raw FROM outbox")
            return message_id, list(rows)

    return asyncio.run(go())


def parts(raw: bytes) -> dict[str, str]:
    message = message_from_bytes(raw, policy=policy.SMTP)
    return {
        part.get_content_type(): part.get_content() for part in message.walk() if part.get_content_maintype() == "text"
    }


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "order.html").write_text("<p>Thanks, {{ name }}: {{ number }}</p>")
    (folder / "order.txt").write_text("Thanks, {{ name }}: {{ number }}")
    return folder


def test_a_template_is_rendered_with_the_body_of_the_message(sqlite_url: str, templates: Path) -> None:
    message = order(template_body={"name": "Ann & Bo", "number": 7}, cc=["cy@example.net"], bcc=["di@example.net"])
    message_id, rows = enqueued(sqlite_url, fast_mail(TEMPLATE_FOLDER=templates), message, "order.html")

    ((source, sender, recipients, cc, bcc, raw),) = rows
    assert message_id == 1
    assert (source, sender) == ("fastapi", "shop@example.com")
    assert (recipients, cc, bcc) == ("ann@example.net", "cy@example.net", "di@example.net")
    assert parts(raw)["text/html"].strip() == "<p>Thanks, Ann &amp; Bo: 7</p>"
    assert b"di@example.net" not in raw


def test_two_templates_are_alternatives(sqlite_url: str, templates: Path) -> None:
    message = order(template_body={"name": "Ann", "number": 7}, multipart_subtype=MultipartSubtypeEnum.alternative)
    _, rows = enqueued(
        sqlite_url,
        fast_mail(TEMPLATE_FOLDER=templates),
        message,
        html_template="order.html",
        plain_template="order.txt",
    )

    assert {kind: text.strip() for kind, text in parts(rows[0][5]).items()} == {
        "text/plain": "Thanks, Ann: 7",
        "text/html": "<p>Thanks, Ann: 7</p>",
    }


def test_what_is_suppressed_is_signalled_and_is_no_row(sqlite_url: str, templates: Path) -> None:
    mail = fast_mail(SUPPRESS_SEND=1, TEMPLATE_FOLDER=templates)
    message = order(template_body={"name": "Ann", "number": 7})
    with mail.record_messages() as recorded:
        message_id, rows = enqueued(sqlite_url, mail, message, "order.html")

    assert (message_id, rows) == (None, [])
    assert [each["subject"] for each in recorded] == ["Order 7"]


def test_what_is_not_suppressed_is_recorded_as_well(sqlite_url: str) -> None:
    mail = fast_mail()
    with mail.record_messages() as recorded:
        enqueued(sqlite_url, mail, order(body="<p>Thanks</p>"))

    assert len(recorded) == 1


def test_fields_say_more_and_a_key_is_for_one_mail(sqlite_url: str) -> None:
    first, _ = enqueued(sqlite_url, fast_mail(), order(body="<p>Thanks</p>"), dedup_key="order-7", priority=0)
    second, rows = enqueued(sqlite_url, fast_mail(), order(body="<p>Thanks</p>"), dedup_key="order-7")

    assert (first, second, len(rows)) == (1, None, 1)


def test_a_file_is_in_the_mail(sqlite_url: str, tmp_path: Path) -> None:
    invoice = tmp_path / "invoice.pdf"
    invoice.write_bytes(b"%PDF-")
    _, rows = enqueued(sqlite_url, fast_mail(), order(body="<p>Thanks</p>", attachments=[str(invoice)]))

    message = message_from_bytes(rows[0][5], policy=policy.SMTP)
    assert [part.get_filename() for part in message.walk() if part.get_filename()] == ["invoice.pdf"]


def test_nobody_to_send_to_is_an_error_and_no_row(sqlite_url: str) -> None:
    with pytest.raises(InvalidMail):
        enqueued(sqlite_url, fast_mail(), order(recipients=[], body="<p>Thanks</p>"))
