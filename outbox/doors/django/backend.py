"""The e-mail backend: what `send_mail` and `EmailMessage.send` hand over becomes a row in your transaction.

A message is stored as Django has composed it, with its Date and Message-ID, and goes out so. Its sender is
`from_email`, its recipients are `to`, `cc` and `bcc`, as with Django's own SMTP backend.
"""

from __future__ import annotations

import email.policy
from collections.abc import Iterable, Sequence
from typing import Any

import django
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend
from django.db import Error, connections, router, transaction

from outbox.enqueue import enqueue_many
from outbox.mail import Mail

SOURCE = "django"


class EmailBackend(BaseEmailBackend):
    """OPTIONS of a mailer (Django ≥ 6.1), or arguments of `get_connection`:

    using        the database alias; else what the routers say of `outbox.Message`
    priority, on_doubt, tag, return_path
                 of every mail that does not say it itself: see `Mail`

    A message says more about itself in an attribute, ``message.outbox = {"dedup_key": "order-7"}``: arguments of
    `Mail.from_message`. Once it is enqueued, `message.outbox_id` is its id (None: the dedup_key was there already).
    """

    def __init__(
        self,
        fail_silently: bool = False,
        *,
        using: str | None = None,
        priority: int | None = None,
        on_doubt: str | None = None,
        tag: str | None = None,
        return_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fail_silently = fail_silently
        self.using = using
        given = {"priority": priority, "on_doubt": on_doubt, "tag": tag, "return_path": return_path}
        self._defaults = {name: value for name, value in given.items() if value is not None}

    def send_messages(self, email_messages: Iterable[Any]) -> int:
        """Enqueue all of them or none, in the transaction that is open on this thread. Returns how many that were;
        those without recipients are passed over.

        Raises: InvalidMail (a ValueError) and ValueError for what cannot be sent; django.db.Error, unless
        `fail_silently`: then what the database refuses is undone by a savepoint, and not counted.
        """
        messages = [message for message in email_messages if message.recipients()]
        if not messages:
            return 0
        alias = self.using or default_alias()
        mails = [mail_of(message, self._defaults) for message in messages]
        if not self.fail_silently:
            _insert(alias, messages, mails)
            return len(mails)
        return sum(_tried(alias, message, mail) for message, mail in zip(messages, mails, strict=True))


def default_alias() -> str:
    """The database whose transactions mail is part of, as the routers say."""
    try:
        model = apps.get_model("outbox", "Message")
    except LookupError:
        raise ImproperlyConfigured('add "outbox.doors.django" to INSTALLED_APPS') from None
    return str(router.db_for_write(model))


def mail_of(message: Any, defaults: dict[str, Any]) -> Mail:
    """What is enqueued of a Django EmailMessage. Raises ValueError, InvalidMail."""
    return Mail.from_message(
        _composed(message),
        sender=str(message.from_email),
        to=_addresses(message.to),
        cc=_addresses(message.cc),
        bcc=_addresses(message.bcc),
        **{**defaults, **getattr(message, "outbox", {})},
    )


def _composed(message: Any) -> Any:
    if django.VERSION >= (6, 0):
        return message.message(policy=email.policy.SMTP)
    return message.message().as_bytes()  # of a class of Django's own, whose as_bytes takes no policy


def _addresses(given: Iterable[Any]) -> list[str]:
    return [str(address) for address in given if address]  # some are lazy translations, and Django passes over ""


def _insert(alias: str, messages: Sequence[Any], mails: Sequence[Mail]) -> None:
    ids = enqueue_many(connections[alias], mails, source=SOURCE)
    for message, message_id in zip(messages, ids, strict=True):
        message.outbox_id = message_id


def _tried(alias: str, message: Any, mail: Mail) -> bool:
    try:
        with transaction.atomic(using=alias):
            _insert(alias, [message], [mail])
    except Error:
        return False
    return True
