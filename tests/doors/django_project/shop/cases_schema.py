"""The tables, the checks and the commands."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any, ClassVar

import django
from django.core.checks import CheckMessage
from django.core.management import call_command
from django.db import connection, connections
from django.db.migrations.exceptions import IrreversibleError
from django.test import TestCase, TransactionTestCase, override_settings

from outbox.doors.django import checks, schema

from .cases_backend import BACKEND, through_outbox


def ids(found: Iterable[CheckMessage]) -> list[str]:
    return [message.id for message in found]


class Schema(TestCase):
    def test_the_tables_are_those_of_this_version(self) -> None:
        assert schema.version_of(connection) == schema.latest_of(connection)

    def test_the_models_are_those_of_the_migrations(self) -> None:
        call_command("makemigrations", "outbox", "--check", "--dry-run", verbosity=0)

    def test_newer_tables_are_an_error_and_left_alone(self) -> None:
        newer = schema.latest_of(connection) + 1
        with connection.cursor() as cursor:
            cursor.execute("UPDATE outbox_meta SET value = %s WHERE key = 'schema_version'", [str(newer)])
        assert ids(checks.check_database(["default"])) == ["outbox.E004"]
        schema.bring_up_to_date("default")
        assert schema.version_of(connection) == newer


class Migration(TransactionTestCase):
    def test_it_is_never_undone(self) -> None:
        with self.assertRaises(IrreversibleError):
            call_command("migrate", "outbox", "zero", verbosity=0)
        assert schema.version_of(connection) == schema.latest_of(connection)

    def test_sqlmigrate_shows_it(self) -> None:
        shown = io.StringIO()
        call_command("sqlmigrate", "outbox", "0001", stdout=shown)
        assert "CREATE TABLE outbox (" in shown.getvalue()


@through_outbox()
class Checks(TestCase):
    databases: ClassVar = {"default", "other"}

    def mailers(self, **options: Any) -> Any:
        """A mailer with these OPTIONS, where there are such."""
        return override_settings(MAILERS={"default": {"BACKEND": BACKEND, "OPTIONS": options}})

    def test_a_project_as_it_should_be_has_no_complaints(self) -> None:
        assert checks.check_settings() == []
        assert checks.check_database(["default", "other"]) == []
        assert checks.check_database(None) == []

    def test_a_sender_that_is_not_registered_is_said(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO outbox_account (name, relay_host, relay_port, tls) VALUES ('a', 'r', 25, 'none')"
            )
            cursor.execute("INSERT INTO outbox_sender (address, account) VALUES ('boss@example.com', 'a')")
        (found,) = checks.check_database(["default"])
        assert found.id == "outbox.W006"
        assert "DEFAULT_FROM_EMAIL and SERVER_EMAIL will fail: shop@example.com" in found.msg
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO outbox_sender (address, account) VALUES ('*@example.com', 'a')")
        assert checks.check_database(["default"]) == []

    def test_a_mailer_on_a_database_without_the_tables(self) -> None:
        if django.VERSION < (6, 1):
            self.skipTest("a mailer has options from Django 6.1 on")
        with self.mailers(using="other"):
            assert ids(checks.check_settings()) == ["outbox.E002"]
        with self.mailers(using="nowhere"):
            assert ids(checks.check_settings()) == ["outbox.E001"]

    def test_sqlite_that_does_not_begin_immediately(self) -> None:
        other = connections["other"]
        given, other.settings_dict["OPTIONS"] = other.settings_dict["OPTIONS"], {}
        try:
            with self.settings(DATABASE_ROUTERS=["shop.cases_backend.Elsewhere"]):
                assert ids(checks.check_settings()) == ["outbox.W002"]
        finally:
            other.settings_dict["OPTIONS"] = given
