"""For the tests of an application: what has been enqueued, and what comes of it.

    with captured(connection) as mails:
        place_order(connection, 7)
    assert_enqueued(mails, to="ann@example.net", subject="Order 7", key="order-7")

    drained = drain("sqlite:///test.db", answers={"rcpt:bo@example.net": "550 5.1.1 no such user"})
    assert [mail.subject for mail in drained.received] == ["Order 7"]

    reading.py    a SELECT on any connection that enqueue() takes, which leaves its transaction as it was
    mails.py      what a row of the outbox is to a test
    capture.py    the mails that are there since
    asserting.py  which of them, and what to say when there are none
    draining.py   the real runner, in a process of its own (rehearsal.py), and a relay with a script (relay.py)
    plugin.py     the fixtures of pytest
    django.py     the same for Django's TestCase

Importing this is cheap, and needs no pytest.
"""

from outbox.testing.asserting import assert_enqueued
from outbox.testing.capture import Captured, acaptured, captured
from outbox.testing.draining import HANG_UP, Drained, drain
from outbox.testing.mails import Enqueued, Received

__all__ = [
    "HANG_UP",
    "Captured",
    "Drained",
    "Enqueued",
    "Received",
    "acaptured",
    "assert_enqueued",
    "captured",
    "drain",
]
