"""Django's way in: an e-mail backend whose mail is a row in the transaction of your models, and an admin for it.

    INSTALLED_APPS = [..., "outbox.doors.django"]
    MAILERS = {"default": {"BACKEND": "outbox.doors.django.EmailBackend"}}       # Django ≥ 6.1
    EMAIL_BACKEND = "outbox.doors.django.EmailBackend"                           # before

With the app installed, ``enqueue(django.db.connection, Mail(...))`` works, too. docs/django.md has the whole of it.
"""

from outbox.doors.django.backend import EmailBackend

__all__ = ["EmailBackend"]
