"""What a mail asks of notifications (RFC 3461), from the application through the database to the runner."""

from __future__ import annotations

import peewee
import pytest

from outbox import Mail, enqueue
from outbox.core.dsn import NO_DSN, Dsn
from outbox.core.message import Message
from outbox.errors import InvalidMessage
from outbox.store import Store, audit
from outbox.store.database import dialect
from tests.contract.stores import add, claim
from tests.statements import run


def read(store: Store) -> Message | InvalidMessage:
    """The only message, as a runner reads it."""
    (claimed,) = claim(store)
    return store.content(claimed).message


def mail(**dsn: str) -> Mail:
    return Mail(sender="shop@example.com", to="ann@example.net", text="Thanks", **dsn)  # type: ignore[arg-type]


def test_what_is_asked_of_notifications_reaches_the_runner(store: Store, database: peewee.Database) -> None:
    message_id = enqueue(database, mail(dsn_notify="failure,delay", dsn_ret="hdrs", dsn_envid="order 7"))
    assert message_id is not None
    message = read(store)
    assert isinstance(message, Message)
    assert message.dsn == Dsn("failure,delay", "hdrs", "order 7")
    assert audit.message(database, message_id).dsn == message.dsn


@pytest.mark.parametrize("asked", [{"dsn_notify": "never"}, {"dsn_ret": "full"}])
def test_a_mail_that_asks_for_any_is_called_by_its_id(
    store: Store, database: peewee.Database, asked: dict[str, str]
) -> None:
    message_id = enqueue(database, mail(**asked))
    message = read(store)
    assert isinstance(message, Message)
    assert message.dsn.envid == str(message_id)


def test_a_mail_that_asks_for_nothing_says_nothing(store: Store, database: peewee.Database) -> None:
    add(database)
    message = read(store)
    assert isinstance(message, Message)
    assert message.dsn is NO_DSN


def test_a_value_that_got_around_the_constraints_fails_its_message(store: Store, database: peewee.Database) -> None:
    if dialect(database) == "sqlite":
        run(database, "PRAGMA ignore_check_constraints = 1")
        add(database, dsn_envid="7\r\nRCPT TO:<eve@example.org>")
    else:  # they are in triggers
        add(database)
        run(database, "ALTER TABLE outbox DISABLE TRIGGER USER")
        run(database, "UPDATE outbox SET dsn_envid = E'7\\r\\nRCPT TO:<eve@example.org>'")
        run(database, "ALTER TABLE outbox ENABLE TRIGGER USER")
    message = read(store)
    assert isinstance(message, InvalidMessage)
    assert message.status == "5.5.4"
    assert message.reason.startswith("dsn_envid must be printable ASCII, at most 100 characters, not '7")
