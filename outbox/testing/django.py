"""For Django's TestCase and TransactionTestCase: mail goes into the outbox, as in production, and is there to look at.

    class OrderTest(OutboxTestMixin, TestCase):
        def test_order(self):
            place_order(7)
            self.assert_enqueued(to="ann@example.net", subject="Order 7")

Django's runner of tests replaces the e-mail backend by one that keeps mail in memory; this puts the real one back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connections
from django.test.utils import override_settings

from outbox.testing.asserting import assert_enqueued
from outbox.testing.capture import Captured, captured
from outbox.testing.draining import Drained, drain, refuse_uncommitted, url_of
from outbox.testing.mails import Enqueued

BACKEND = "outbox.doors.django.EmailBackend"


class OutboxTestMixin:
    """`outbox`: what the test has enqueued; `outbox_using`: the database alias, to be overridden."""

    outbox_using = "default"
    outbox: Captured

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        # From 6.1 on MAILERS wins where it is set; Django refuses a project that has set both.
        from django.conf import settings

        mailers = getattr(settings, "MAILERS", None)
        real = {"MAILERS": {"default": {"BACKEND": BACKEND}}} if mailers else {"EMAIL_BACKEND": BACKEND}
        self._enter(override_settings(**real))
        self.outbox = self._enter(captured(connections[self.outbox_using]))

    def assert_enqueued(self, **wanted: Any) -> list[Enqueued]:
        """See `outbox.testing.assert_enqueued`."""
        return assert_enqueued(self.outbox, **wanted)

    def drain(self, answers: Mapping[str, str | Sequence[str]] | None = None, **named: Any) -> Drained:
        """See `outbox.testing.drain`. In a TransactionTestCase, with a database in a file: what a TestCase does is
        never committed.
        """
        connection = connections[self.outbox_using]
        refuse_uncommitted(connection)
        return drain(url_of(connection), answers=answers, **named)

    def _enter(self, context: Any) -> Any:
        entered = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)  # type: ignore[attr-defined]
        return entered
