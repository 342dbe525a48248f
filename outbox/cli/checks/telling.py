"""Who is told of what happened: the webhook, and notices to return paths."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from outbox.cli.checks import Check, Result, failed
from outbox.errors import ConfigError

if TYPE_CHECKING:
    import peewee

    from outbox.cli.session import Session
    from outbox.store.events import Channel

_LATE = timedelta(minutes=10)
"""What nobody has been told for so long should have been told."""


def examine(session: Session, db: peewee.Database) -> Iterator[Check]:
    """What is configured, and what should have been told long ago. Nothing is posted."""
    yield from _webhook(session, db)
    yield from _notices(session, db)


def _webhook(session: Session, db: peewee.Database) -> Iterator[Check]:
    from importlib.util import find_spec
    from urllib.parse import urlsplit

    from outbox.runner.telling.webhook import read_secrets
    from outbox.store.events import Channel

    config = session.config.webhook
    if not config.url:
        return
    found: list[Check] = []
    host = urlsplit(config.url).netloc.rpartition("@")[2]  # the rest may have a secret in it
    if find_spec("httpx2") is None:
        words = "a webhook is configured, and httpx2 is not installed: runners do not start"
        found.append(Check("webhook", Result.FAIL, words, "pip install 'mail-outbox[webhook]'"))
    if config.secret_file is not None:
        try:
            read_secrets(config.secret_file)
        except ConfigError as error:
            found.append(failed("webhook", error))
    late = _late(db, Channel.WEBHOOK)
    if late:
        words = f"{late}: {host} does not accept them, or nobody posts"
        found.append(Check("webhook", Result.WARN, words, "the log of `outbox run` says what it answers"))
    yield from found or [Check("webhook", Result.OK, f"posts to {host}")]


def _notices(session: Session, db: peewee.Database) -> Iterator[Check]:
    from outbox.store import accounts
    from outbox.store.events import Channel

    config = session.config.notices
    if not (config.failure or config.delay):
        return
    found: list[Check] = []
    if accounts.registry(db).resolve(config.sender) is None:
        words = f"notices go out from {config.sender}, which is not registered, so all of them fail"
        hint = f"outbox sender add {shlex.quote(config.sender)} --account NAME"
        found.append(Check("notices", Result.FAIL, words, hint))
    late = _late(db, Channel.NOTICES)
    if late:
        found.append(Check("notices", Result.WARN, f"{late}: nobody enqueues them", "outbox run"))
    yield from found or [Check("notices", Result.OK, f"from {config.sender}")]


def _late(db: peewee.Database, channel: Channel) -> str:
    """What has been waiting for too long, in words; empty when nothing has."""
    from outbox.cli.phrases import counted, lasting
    from outbox.store import audit, health

    untold = health.untold(db, channel)
    age = audit.now(db) - untold.oldest_at if untold.oldest_at is not None else timedelta(0)
    if age <= _LATE:
        return ""
    noun = counted(untold.count, "event")
    return f"{noun} {'is' if untold.count == 1 else 'are'} still to be told, the oldest for {lasting(age)}"
