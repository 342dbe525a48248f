"""What Flask-Mail promises its users, kept by OutboxMail: suppression, envelopes, extensions, bulk connections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import flask_mail
import pytest
from flask import Flask
from flask_mail import Message
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from outbox.doors.flask import OutboxMail
from outbox.errors import InvalidMail

SHOP = "shop@example.com"


class Shop:
    """An application in a context of its own, and what it has enqueued."""

    def __init__(self, url: str, **config: Any) -> None:
        self.app = Flask("shop")
        self.app.config.update(SQLALCHEMY_DATABASE_URI=url, MAIL_DEFAULT_SENDER=("The Shop", SHOP), **config)
        self.db = SQLAlchemy(self.app)
        self.mail = OutboxMail(self.app)

    def rows(self, columns: str = "recipients") -> list[tuple[Any, ...]]:
        found = self.db.session.execute(text(f"SELECT {columns} FROM outbox ORDER BY id"))
        return [tuple(row) for row in found]


@pytest.fixture
def shops(sqlite_url: str) -> Iterator[Any]:
    contexts: list[tuple[Shop, Any]] = []

    def made(**config: Any) -> Shop:
        shop = Shop(sqlite_url, **config)
        context = shop.app.app_context()
        context.push()
        contexts.append((shop, context))
        return shop

    yield made
    for shop, context in contexts:
        shop.db.session.remove()
        shop.db.engine.dispose()
        context.pop()


def order(number: int = 7, **more: Any) -> Message:
    return Message(f"Order {number}", ["ann@example.net"], "Thanks", **more)


@pytest.mark.parametrize("config", [{"MAIL_SUPPRESS_SEND": True}, {"TESTING": True}])
def test_what_is_suppressed_is_signalled_and_recorded_and_is_no_row(shops: Any, config: dict[str, Any]) -> None:
    shop = shops(**config)
    with shop.mail.record_messages() as recorded:
        shop.mail.send(order())
        with shop.mail.connect() as connection:
            connection.send(order(8))

    assert [message.subject for message in recorded] == ["Order 7", "Order 8"]
    assert shop.rows() == []


def test_a_test_that_wants_rows_has_them_by_suppress_send_false(shops: Any) -> None:
    shop = shops(TESTING=True, MAIL_SUPPRESS_SEND=False)
    with shop.mail.record_messages() as recorded:
        shop.mail.send(order())

    assert len(recorded) == 1
    assert shop.rows() == [("ann@example.net",)]


@pytest.mark.parametrize("envelope_from", ["bounces@example.com", ("Bounces", "bounces@example.com")])
def test_envelope_from_is_the_return_path_and_the_sender_stays(shops: Any, envelope_from: Any) -> None:
    shop = shops()
    with shop.mail.connect() as connection:
        connection.send(order(), envelope_from)
        connection.send(order(8))

    assert shop.rows("sender, return_path") == [(SHOP, "bounces@example.com"), (SHOP, None)]


def test_extensions_find_it_where_flask_mail_is(shops: Any) -> None:
    shop = shops()
    found: Any = shop.app.extensions["mail"]
    found.send(order())
    found.send_message("Order 8", ["bo@example.net"], "Thanks")
    with found.connect() as connection:
        connection.send(order(9, cc=["cy@example.net"]))

    assert shop.rows("recipients, cc") == [
        ("ann@example.net", None),
        ("bo@example.net", None),
        ("ann@example.net", "cy@example.net"),
    ]


def test_init_app_later_and_send_message_are_as_with_flask_mail(sqlite_url: str) -> None:
    mail = OutboxMail()
    db = SQLAlchemy()
    app = Flask("shop")
    app.config.update(SQLALCHEMY_DATABASE_URI=sqlite_url, MAIL_DEFAULT_SENDER=SHOP)
    db.init_app(app)
    mail.init_app(app)
    with app.app_context():
        mail.send_message("Order 7", recipients=["ann@example.net"], body="Thanks")
        assert db.session.execute(text("SELECT source FROM outbox")).fetchall() == [("flask",)]
        db.session.remove()
        db.engine.dispose()


def test_more_mail_than_a_connection_may_have_goes_on(shops: Any) -> None:
    shop = shops(MAIL_MAX_EMAILS=2)
    with shop.mail.connect() as connection:
        for number in range(5):
            connection.send(order(number))

    assert len(shop.rows()) == 5


def test_its_checks_are_made_and_nothing_is_written(shops: Any) -> None:
    shop = shops()
    with pytest.raises(flask_mail.BadHeaderError):
        shop.mail.send(Message("Order 7\r\nBcc: eve@example.org", ["ann@example.net"], "Thanks"))
    with pytest.raises(AssertionError):
        shop.mail.send(Message("Order 7", [], "Thanks"))
    with pytest.raises(InvalidMail):
        shop.mail.send(Message("Order 7", ["no address"], "Thanks"))

    assert shop.rows() == []


def test_bcc_reaches_the_row_and_no_header(shops: Any) -> None:
    shop = shops()
    message: Any = order(bcc=[("Bo", "bo@example.net")], reply_to="desk@example.com", html="<p>Thanks</p>")
    message.attach("invoice.pdf", "application/pdf", b"%PDF-")
    shop.mail.send(message)

    ((bcc, raw),) = shop.rows("bcc, raw")
    assert bcc == "bo@example.net"
    assert b"bo@example.net" not in bytes(raw)
    assert b"invoice.pdf" in bytes(raw)
    assert message.outbox_id == 1
