"""The admin, by its pages. On PostgreSQL its actions have a connection of their own, so nothing here is in a
transaction of a test.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import TransactionTestCase
from django.urls import reverse

from outbox import Mail, enqueue
from outbox.doors.django.models import Message

LIST = "admin:outbox_message_changelist"


class Admin(TransactionTestCase):
    def setUp(self) -> None:
        self.number = enqueue(connection, self.mail("<b>Order</b> 7"))

    def mail(self, subject: str) -> Mail:
        return Mail(sender="shop@example.com", to="ann@example.net", bcc="bo@example.org", subject=subject, text="a")

    def staff(self, *permissions: str) -> User:
        user = User.objects.create_user("ann", password="x", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(content_type__app_label="outbox", codename__in=permissions))
        self.client.force_login(user)
        return user

    def act(self, action: str) -> list[str]:
        """What the page says afterwards."""
        form = {"action": action, "_selected_action": [self.number]}
        answer: Any = self.client.post(reverse(LIST), form, follow=True)
        return [str(each) for each in answer.context["messages"]]

    def state(self) -> str:
        return str(Message.objects.get(pk=self.number).state)

    def test_messages_are_listed_found_and_shown(self) -> None:
        self.staff("view_message")
        page = self.client.get(reverse(LIST), {"q": "Order", "state": "queued"})
        self.assertContains(page, "&lt;b&gt;Order&lt;/b&gt; 7")
        self.assertNotContains(self.client.get(reverse(LIST), {"state": "failed"}), "Order&lt;")
        page = self.client.get(reverse("admin:outbox_message_change", args=[self.number]))
        self.assertContains(page, "<td>ann@example.net</td>", html=True)
        self.assertContains(page, "<td>bo@example.org</td>", html=True)
        self.assertNotContains(page, "_save")

    def test_attempts_are_shown(self) -> None:
        self.staff("view_message")
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO outbox_attempt (message_id, claim_no, runner_id, started_at, ended_at, outcome, reply)"
                " VALUES (%s, 1, 'r', '2026-03-01T09:30:00.000Z', '2026-03-01T09:30:01.000Z', 'deferred', '<i>later')",
                [self.number],
            )
        page = self.client.get(reverse("admin:outbox_message_change", args=[self.number]))
        self.assertContains(page, "<td>&lt;i&gt;later</td>")
        self.assertContains(page, "<td>deferred</td>")

    def test_operators_hold_release_retry_and_cancel(self) -> None:
        self.staff("change_message")
        assert self.act("hold") == ["1 of 1 messages: held"]
        assert self.state() == "held"
        assert self.act("release") == ["1 of 1 messages: released"]
        assert self.state() == "queued"
        self.act("hold")
        assert self.act("retry") == ["1 of 1 messages: queued again"]
        assert self.act("cancel") == ["1 of 1 messages: cancelled"]
        assert self.state() == "cancelled"
        (refusal,) = self.act("retry")
        assert "is cancelled" in refusal
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT verb, who FROM outbox_journal WHERE count = 1 AND filter = %s", [f"id={self.number}"]
            )
            found = cursor.fetchall()
        assert [verb for verb, _ in found] == ["hold", "release", "hold", "retry", "cancel"]
        assert {who for _, who in found} == {"ann (Django admin)"}

    def test_who_may_only_look_cannot_act(self) -> None:
        self.staff("view_message")
        self.assertNotContains(self.client.get(reverse(LIST)), 'value="cancel"')
        self.act("cancel")
        assert self.state() == "queued"

    def test_nothing_is_added_or_deleted(self) -> None:
        user = self.staff()
        user.is_superuser = True
        user.save()
        assert self.client.get(reverse("admin:outbox_message_add")).status_code == 403
        assert (
            self.client.post(reverse("admin:outbox_message_delete", args=[self.number]), {"post": "yes"}).status_code
            == 403
        )
        assert self.state() == "queued"
