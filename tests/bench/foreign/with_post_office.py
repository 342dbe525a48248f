"""django-post_office: ``python -m … fill|send``."""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import sys

import django
from django.conf import settings
from django.core.management import call_command

from tests.bench.content import SHOP, TEXT, recipient, subject
from tests.bench.foreign.given import COUNT, FOLDER, PORT, TUNED

PROCESSES = 2 if TUNED else 1


def set_up() -> None:
    options = {"init_command": "PRAGMA journal_mode = wal"} if TUNED else {}
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "post_office.db", "OPTIONS": options}
    tuned = {"BATCH_SIZE": 1000, "THREADS_PER_PROCESS": 2, "LOG_LEVEL": 1} if TUNED else {}
    settings.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=["django.contrib.contenttypes", "post_office"],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        EMAIL_BACKEND="post_office.EmailBackend",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=PORT,
        POST_OFFICE=tuned,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()


def fill() -> None:
    from post_office import mail

    call_command("migrate", verbosity=0)
    mails = [
        {"recipients": [recipient(each)], "sender": SHOP, "subject": subject(each), "message": TEXT}
        for each in range(COUNT)
    ]
    mail.send_many(mails)


if __name__ == "__main__":
    set_up()
    if sys.argv[1] == "fill":
        fill()
    else:
        call_command("send_queued_mail", processes=PROCESSES, log_level=None)
