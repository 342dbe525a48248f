"""What Django expects of an e-mail backend, and what Outbox promises besides. Run by manage.py test, on either
database. With tests of the same names as in Django's own tests/mail, where they are about the same.
"""

from __future__ import annotations

import email.policy
import socket
from email.message import EmailMessage as Composed
from email.message import MIMEPart
from email.mime.base import MIMEBase
from email.mime.image import MIMEImage
from pathlib import Path
from typing import Any, ClassVar
from unittest import skipUnless

import django
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives, send_mail, send_mass_mail
from django.db import Error, IntegrityError, connection, connections, transaction
from django.test import TestCase, TransactionTestCase, override_settings
from django.utils.translation import gettext_lazy

from outbox import Mail, enqueue
from outbox.doorbell import Shortened
from outbox.doors.django import EmailBackend
from outbox.errors import InvalidMail

from .models import Order

SHOP = "shop@example.com"
ANN = "ann@example.net"
BACKEND = "outbox.doors.django.EmailBackend"


def through_outbox() -> Any:
    """Django's runner has put its own backend in our place: put it back."""
    if django.VERSION >= (6, 1):
        bulk = {"BACKEND": BACKEND, "OPTIONS": {"priority": 9, "tag": "news"}}
        return override_settings(MAILERS={"default": {"BACKEND": BACKEND}, "bulk": bulk})
    return override_settings(EMAIL_BACKEND=BACKEND)


def rows(columns: str = "raw", *, using: str = "default") -> list[Any]:
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM outbox ORDER BY id")
        return list(cursor.fetchall())


def burn() -> None:
    """What goes wrong."""
    raise ZeroDivisionError


def composed() -> list[Composed]:
    """The messages that are stored, read again."""
    return [email.message_from_bytes(bytes(raw), policy=email.policy.default) for (raw,) in rows()]


@through_outbox()
class Accepting(TestCase):
    """Django's own expectations."""

    def the_message(self) -> Composed:
        found = composed()
        assert len(found) == 1
        return found[0]

    def test_send(self) -> None:
        assert EmailMessage("Subject", "Content\n", SHOP, [ANN]).send() == 1
        message = self.the_message()
        assert (message["subject"], message.get_content()) == ("Subject", "Content\r\n")
        assert (message["from"], message.get_all("to")) == (SHOP, [ANN])

    def test_send_unicode(self) -> None:
        assert EmailMessage("Chère maman", "Je t'aime très fort\n", SHOP, [ANN]).send() == 1
        message = self.the_message()
        assert (message["subject"], message.get_content()) == ("Chère maman", "Je t'aime très fort\r\n")

    def test_send_long_lines(self) -> None:
        EmailMessage("Subject", "Comment ça va? " * 100, SHOP, [ANN]).send()
        message = self.the_message()
        assert message.get_content().strip() == ("Comment ça va? " * 100).strip()
        assert max(map(len, bytes(rows()[0][0]).split(b"\r\n"))) <= 998

    def test_send_many(self) -> None:
        pair = [EmailMessage("A", "a", SHOP, [ANN]), EmailMessage("B", "b", SHOP, ["bob@example.net"])]
        assert EmailBackend().send_messages(iter(pair)) == 2
        assert [message["to"] for message in composed()] == [ANN, "bob@example.net"]

    def test_send_messages_empty_list(self) -> None:
        with self.assertNumQueries(0):
            assert EmailBackend().send_messages([]) == 0

    def test_a_message_without_recipients_is_passed_over(self) -> None:
        pair = [EmailMessage("A", "a", SHOP, []), EmailMessage("B", "b", SHOP, ["", ANN])]
        assert EmailBackend().send_messages(pair) == 1
        assert self.the_message()["subject"] == "B"

    def test_send_verbose_name(self) -> None:
        EmailMessage("Subject", "Content", '"Firstname Sürname, Dr." <shop@example.com>', [ANN]).send()
        assert self.the_message()["from"].addresses[0].display_name == "Firstname Sürname, Dr."
        assert rows("sender, sender_name, subject, source") == [(SHOP, "Firstname Sürname, Dr.", "Subject", "django")]

    def test_plaintext_and_html_send_mail(self) -> None:
        send_mail("Subject", "Content", None, [ANN], html_message="<b>Content</b>")
        message = self.the_message()
        assert message.get_content_type() == "multipart/alternative"
        kinds = [part.get_content_type() for part in message.iter_parts()]
        assert kinds == ["text/plain", "text/html"]
        assert str(message["from"]) == "The Shop <shop@example.com>"

    def test_mail_managers_and_admins(self) -> None:
        admins: Any = [ANN] if django.VERSION >= (6, 0) else [("Ann", ANN)]
        with self.settings(ADMINS=admins):
            mail.mail_admins("hi", "there")
        assert self.the_message()["to"] == ANN

    def test_idn_send(self) -> None:
        EmailMessage("Subject", "Content", SHOP, ["to@öäü.example"], cc=["cc@öäü.example"]).send()
        assert self.the_message()["to"] == "to@xn--4ca9at.example"

    def test_lazy_addresses(self) -> None:
        EmailMessage(gettext_lazy("Subject"), "Content", gettext_lazy(SHOP), [gettext_lazy(ANN)]).send()
        assert rows("sender, recipients") == [(SHOP, ANN)]

    def test_close_connection_and_contextmanager(self) -> None:
        EmailBackend().close()
        with EmailBackend() as backend:
            assert backend.send_messages([EmailMessage("A", "a", SHOP, [ANN])]) == 1

    def test_send_mass_mail(self) -> None:
        assert send_mass_mail([("A", "a", None, [ANN]), ("B", "b", SHOP, [ANN])]) == 2
        assert [message["subject"] for message in composed()] == ["A", "B"]

    def test_validate_multiline_headers(self) -> None:
        for broken in (
            EmailMessage("Subject\nBcc: eve@example.org", "a", SHOP, [ANN]),
            EmailMessage("Subject", "a", SHOP, [ANN], headers={"X-Thing": "a\nBcc: eve@example.org"}),
            EmailMessage("Subject", "a", SHOP, [f"{ANN}\nBcc: eve@example.org"]),
        ):
            with self.assertRaises(ValueError):
                EmailBackend().send_messages([broken])
        assert rows() == []

    def test_an_address_without_a_domain_is_refused(self) -> None:
        with self.assertRaises(InvalidMail):
            EmailMessage("Subject", "a", "webmaster", [ANN]).send()


def _image() -> MIMEBase | MIMEPart:
    if django.VERSION < (6, 0):
        image = MIMEImage(b"\x89PNG", "png")
        image.add_header("Content-Disposition", "attachment", filename="logo.png")
        return image
    part = MIMEPart()
    part.set_content(b"\x89PNG", "image", "png", filename="logo.png", disposition="attachment")
    return part


@through_outbox()
class Contents(TestCase):
    def test_bcc_is_a_recipient_and_in_no_header(self) -> None:
        EmailMessage("A", "a", SHOP, [ANN], bcc=["eve@example.org"], cc=["Bo <bo@example.net>"]).send()
        assert rows("recipients, cc, bcc") == [(ANN, "Bo <bo@example.net>", "eve@example.org")]
        assert b"eve@" not in bytes(rows()[0][0])

    def test_headers_are_kept(self) -> None:
        headers = {
            "Message-ID": "<7@example.com>",
            "List-Unsubscribe": "<https://example.com/x>",
            "From": "Boss <b@example.com>",
        }
        EmailMessage("A", "a", SHOP, [ANN], headers=headers, reply_to=["reply@example.com"]).send()
        (message,) = composed()
        found = [message[name] for name in ("Message-ID", "List-Unsubscribe", "From", "Reply-To")]
        assert found == [*headers.values(), "reply@example.com"]
        assert rows("sender") == [(SHOP,)]

    def test_attachments_of_every_kind(self) -> None:
        message = EmailMultiAlternatives("A", "text", SHOP, [ANN])
        message.attach_alternative("<p>html", "text/html")
        message.attach_alternative("BEGIN:VCALENDAR", "text/calendar")
        message.attach("räport.pdf", b"%PDF\x00\xff", "application/pdf")
        message.attach("notes.txt", "ümlaut")
        message.attach("mail.eml", EmailMessage("Inner", "inner", SHOP, [ANN]), "message/rfc822")
        message.attach(_image())
        message.send()
        (stored,) = composed()
        parts = {part.get_filename(): part for part in stored.walk() if part.get_filename()}
        assert parts["räport.pdf"].get_content() == b"%PDF\x00\xff"
        assert parts["notes.txt"].get_content().strip() == "ümlaut"
        assert parts["logo.png"].get_content() == b"\x89PNG"
        assert parts["mail.eml"].get_content()["subject"] == "Inner"
        kinds = [part.get_content_type() for part in stored.walk()]
        assert "text/html" in kinds
        assert "text/calendar" in kinds

    def test_what_else_a_message_says(self) -> None:
        first = EmailMessage("A", "a", SHOP, [ANN])
        first.outbox = {"dedup_key": "order-7", "priority": 0, "tag": "orders"}
        again = EmailMessage("A", "a", SHOP, [ANN])
        again.outbox = {"dedup_key": "order-7"}
        assert (first.send(), again.send()) == (1, 1)
        assert rows("id, dedup_key, priority, tag") == [(first.outbox_id, "order-7", 0, "orders")]
        assert again.outbox_id is None

    def test_options_are_for_all_mail_of_a_mailer(self) -> None:
        if django.VERSION >= (6, 1):
            EmailMessage("A", "a", SHOP, [ANN]).send(using="bulk")
        else:
            EmailMessage("A", "a", SHOP, [ANN], connection=mail.get_connection(priority=9, tag="news")).send()
        assert rows("priority, tag") == [(9, "news")]

    def test_arguments_of_other_backends(self) -> None:
        """Unknown ones are ignored before 6.1, as by Django's own; those of a mailer are an error."""
        if django.VERSION < (6, 1):
            backend = EmailBackend(host="relay", username="ann", timeout=3, fail_silently=True)
            assert backend.fail_silently
        else:
            with self.assertRaises(mail.InvalidMailer):
                EmailBackend(alias="default", host="relay")
            assert EmailBackend(alias="default").alias == "default"


@through_outbox()
class OnAnotherDatabase(TestCase):
    databases: ClassVar = {"default", "other"}

    def test_using_says_which(self) -> None:
        EmailBackend(using="other").send_messages([EmailMessage("A", "a", SHOP, [ANN])])
        assert (rows(), len(rows(using="other"))) == ([], 1)

    def test_a_router_says_which(self) -> None:
        with self.settings(DATABASE_ROUTERS=["shop.cases_backend.Elsewhere"]):
            send_mail("A", "a", SHOP, [ANN])
        assert (rows(), len(rows(using="other"))) == ([], 1)


class Elsewhere:
    def db_for_write(self, model: Any, **_: Any) -> str | None:
        return "other" if model._meta.app_label == "outbox" else None


@through_outbox()
class InTransactions(TransactionTestCase):
    """Each transaction is a real one here."""

    def setUp(self) -> None:
        with connection.cursor() as cursor:  # rows of an earlier test: nobody empties the tables
            cursor.execute("UPDATE outbox_delivery SET state = 'cancelled', final_at = due_at WHERE state = 'queued'")
            cursor.execute("DELETE FROM outbox")

    def send(self, subject: str = "A", **fields: Any) -> int:
        message = EmailMessage(subject, "a", SHOP, [ANN])
        if fields:
            message.outbox = fields
        return int(message.send())

    def test_it_commits_and_rolls_back_with_the_models(self) -> None:
        with transaction.atomic():
            Order.objects.create(number=1, email=ANN)
            self.send("kept")
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            Order.objects.create(number=2, email=ANN)
            self.send("lost")
            burn()
        assert [message["subject"] for message in composed()] == ["kept"]
        assert list(Order.objects.values_list("number", flat=True)) == [1]

    def test_outside_of_a_transaction_it_is_committed_at_once(self) -> None:
        self.send()
        assert not connection.in_atomic_block
        connection.close()
        assert len(rows()) == 1

    def test_a_savepoint_takes_its_mail_with_it(self) -> None:
        with transaction.atomic():
            self.send("outer")
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                self.send("inner")
                burn()
            self.send("after")
        assert [message["subject"] for message in composed()] == ["outer", "after"]

    def test_without_autocommit_it_waits_for_the_commit(self) -> None:
        transaction.set_autocommit(False)
        try:
            self.send("lost")
            transaction.rollback()
            self.send("kept")
            send_mass_mail([("many", "a", SHOP, [ANN])] * 2)
            transaction.commit()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
        assert [message["subject"] for message in composed()] == ["kept", "many", "many"]

    def test_what_the_database_refuses_condemns_the_block(self) -> None:
        """As for a model: on SQLite, too, and whoever catches it."""
        with self.assertRaises(transaction.TransactionManagementError), transaction.atomic():
            Order.objects.create(number=1, email=ANN)
            with self.assertRaises(IntegrityError), connection.execute_wrapper(_refuse_all):
                self.send()
            Order.objects.create(number=2, email=ANN)
        assert Order.objects.count() == 0

    def test_many_are_all_or_none(self) -> None:
        good, bad = EmailMessage("A", "a", SHOP, [ANN]), EmailMessage("B", "b", SHOP, [ANN])
        bad.outbox = {"tag": "t", "dedup_key": "x" * 500}
        with self.assertRaises(Error), connection.execute_wrapper(_refuse_the_second()):
            EmailBackend().send_messages([good, bad] * 40)
        assert rows() == []

    def test_fail_silently_leaves_the_transaction_whole(self) -> None:
        with transaction.atomic():
            Order.objects.create(number=1, email=ANN)
            with connection.execute_wrapper(_refuse_all):
                silent = EmailBackend(fail_silently=True)
                assert silent.send_messages([EmailMessage("A", "a", SHOP, [ANN])]) == 0
            Order.objects.create(number=2, email=ANN)
        assert (Order.objects.count(), rows()) == (2, [])

    def test_djangos_connection_takes_any_mail(self) -> None:
        with transaction.atomic():
            message_id = enqueue(connection, Mail(sender=SHOP, to=ANN, subject="A", text="a", headers={"X-A": "ü"}))
        assert rows("id, subject, source") == [(message_id, "A", "python")]

    def test_one_mail_is_one_query_in_djangos_log(self) -> None:
        with self.assertNumQueries(1):
            self.send()


def _refuse_all(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    """Django's own way between it and its database: a row is wrong that Python has found right."""
    if "INTO outbox" in sql:
        params = tuple(12 if value == 5 else value for value in params)  # the priority
    return execute(sql, params, many, context)


def _refuse_the_second() -> Any:
    seen: list[str] = []

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return (_refuse_all if len(seen) > 1 else _pass)(execute, sql, params, many, context)

    return wrapper


def _pass(execute: Any, *given: Any) -> Any:
    return execute(*given)


@skipUnless(connection.vendor == "sqlite" and hasattr(socket, "AF_UNIX"), "there NOTIFY does it, or nothing can")
@through_outbox()
class Rings(TransactionTestCase):
    """The doorbell of a runner on this machine: docs/operate.md, how soon mail leaves."""

    def test_a_mail_and_many_ring_once_each(self) -> None:
        name = str(connection.settings_dict["NAME"])
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell, Shortened(f"{name}.doorbell".encode()) as short:
            bell.bind(short)
            bell.setblocking(False)
            for messages in (1, 3):
                EmailBackend().send_messages([EmailMessage("A", "a", SHOP, [ANN])] * messages)
                bell.recv(1)
                with self.assertRaises(BlockingIOError):
                    bell.recv(1)
        Path(f"{name}.doorbell").unlink()
