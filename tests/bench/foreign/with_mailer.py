"""django-mailer: ``python -m … fill|send``."""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import sys

import django
from django.conf import settings
from django.core.mail import send_mail
from django.core.management import call_command
from django.db import transaction

from tests.bench.content import SHOP, TEXT, recipient, subject
from tests.bench.foreign.given import COUNT, FOLDER, PORT


def set_up() -> None:
    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FOLDER / "mailer.db",
        "OPTIONS": {"init_command": "PRAGMA journal_mode = wal"},
    }
    settings.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=["mailer"],
        EMAIL_BACKEND="mailer.backend.DbBackend",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=PORT,
        MAILER_LOCK_PATH=str(FOLDER / "send_mail"),
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()


def fill() -> None:
    call_command("migrate", verbosity=0)
    with transaction.atomic():
        for each in range(COUNT):
            send_mail(subject(each), TEXT, SHOP, [recipient(each)])


if __name__ == "__main__":
    set_up()
    if sys.argv[1] == "fill":
        fill()
    else:
        call_command("send_mail")
