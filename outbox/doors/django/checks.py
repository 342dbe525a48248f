"""System checks: what keeps mail from being in the transaction, or from leaving. Those that ask the database run with
`migrate` and with ``check --database default``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.utils import parseaddr
from typing import Any

from django.conf import settings
from django.core import checks
from django.db import Error, connections
from django.utils.module_loading import import_string

from outbox.core.account import fold
from outbox.core.address import wildcard
from outbox.doors.django.backend import EmailBackend, default_alias
from outbox.doors.django.schema import DIALECTS, latest_of, version_of


def register() -> None:
    """Have Django run them."""
    checks.register(check_settings, "outbox")
    checks.register(check_database, checks.Tags.database)


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """What the settings alone show."""
    return [*_backends(), *_databases()]


def check_database(databases: Iterable[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """What a database shows: whether the tables are there, and the senders registered."""
    asked = set(databases or ())
    return [found for alias in sorted(_aliases() & asked) for found in _tables(alias)]


def _mailers() -> dict[str, dict[str, Any]]:
    """The mailers that are ours, their OPTIONS."""
    configured = getattr(settings, "MAILERS", None)
    if configured is None:
        configured = {"default": {"BACKEND": settings.EMAIL_BACKEND}}
    return {
        alias: mailer.get("OPTIONS", {}) for alias, mailer in configured.items() if _is_ours(mailer.get("BACKEND", ""))
    }


def _is_ours(path: str) -> bool:
    try:
        found = import_string(path)
    except ImportError:  # Django's own check complains of it
        return False
    return isinstance(found, type) and issubclass(found, EmailBackend)


def _is_tested() -> bool:
    """Whether Django's test runner has put its own backend in our place."""
    from django.core import mail

    return hasattr(mail, "outbox")


def _aliases() -> set[str]:
    """The databases that mail is written to, as far as they exist."""
    named = {options.get("using") or default_alias() for options in _mailers().values()}
    return {alias for alias in {*named, default_alias()} if alias in connections}


def _backends() -> Iterator[checks.CheckMessage]:
    mailers = _mailers()
    if not mailers and not _is_tested():
        yield checks.Warning(
            "No mail of Django goes through Outbox: its backend is not in use.",
            hint='EMAIL_BACKEND, or a BACKEND of MAILERS, is "outbox.doors.django.EmailBackend".',
            id="outbox.W001",
        )
    for alias, options in mailers.items():
        using = options.get("using") or default_alias()
        if using not in connections:
            yield checks.Error(f"There is no database {using!r}, which the mailer {alias!r} uses.", id="outbox.E001")
        elif using != default_alias():
            yield checks.Error(
                f"The mailer {alias!r} writes to the database {using!r}, but the routers keep the tables of Outbox in"
                f" {default_alias()!r}.",
                hint="Let a router answer for the app `outbox`: docs/django.md#several-databases.",
                id="outbox.E002",
            )


def _databases() -> Iterator[checks.CheckMessage]:
    for alias in sorted(_aliases()):
        connection = connections[alias]
        if connection.vendor not in DIALECTS:
            yield checks.Error(
                f"Outbox needs SQLite or PostgreSQL, and the database {alias!r} is {connection.display_name}.",
                id="outbox.E003",
            )
        elif connection.vendor == "sqlite":
            mode = connection.settings_dict["OPTIONS"].get("transaction_mode") or ""
            if str(mode).upper() not in ("IMMEDIATE", "EXCLUSIVE"):
                yield checks.Warning(
                    f"A transaction of the SQLite database {alias!r} that reads before it writes fails with"
                    ' "database is locked" when a runner wrote in between.',
                    hint='Its OPTIONS: {"transaction_mode": "IMMEDIATE"}.',
                    id="outbox.W002",
                )


def _tables(alias: str) -> Iterator[checks.CheckMessage]:
    connection = connections[alias]
    if connection.vendor not in DIALECTS:
        return
    try:
        version, latest = version_of(connection), latest_of(connection)
        if version == 0:
            yield checks.Warning(
                f"The tables of Outbox are not in the database {alias!r}.", hint="manage.py migrate", id="outbox.W003"
            )
        elif version < latest:
            yield checks.Warning(
                f"The tables of Outbox in {alias!r} are at version {version}, and {latest} is needed.",
                hint="manage.py migrate",
                id="outbox.W004",
            )
        elif version > latest:
            yield checks.Error(
                f"The tables of Outbox in {alias!r} are newer than this program: {version}, not {latest}.",
                hint='pip install --upgrade "mail-outbox"',
                id="outbox.E004",
            )
        else:
            yield from _senders(connection)
    except Error as error:
        yield checks.Warning(f"The database {alias!r} does not answer: {error}", id="outbox.W005")


def _senders(connection: Any) -> Iterator[checks.CheckMessage]:
    """Where some senders are registered, but not those of Django. (Where there are none, `outbox doctor` says so: a
    database of tests has none, either.)
    """
    names: dict[str, list[str]] = {}
    for name in ("DEFAULT_FROM_EMAIL", "SERVER_EMAIL"):
        names.setdefault(fold(parseaddr(str(getattr(settings, name)))[1]), []).append(name)
    with connection.cursor() as cursor:
        for address, settings_of_it in names.items():
            cursor.execute(
                "SELECT count(*), coalesce(sum(CASE WHEN address IN (%s, %s) THEN 1 ELSE 0 END), 0) FROM outbox_sender",
                (address, wildcard(address)),
            )
            registered, fitting = cursor.fetchone()
            if registered and not fitting:
                yield checks.Warning(
                    f"Mail from {' and '.join(settings_of_it)} will fail: {address} is not a registered sender.",
                    hint=f"Set it to a registered one; or manage.py outbox sender add {address} --account ACCOUNT",
                    id="outbox.W006",
                )
