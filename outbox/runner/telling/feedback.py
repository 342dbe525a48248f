"""What a runner does so that the application hears of its mail: events, the webhook, notices, and forgetting.

recording_of(config)    what `Store.recording` has to be
Feedback                the duties, for the schedule
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from outbox.clock import Clock
from outbox.config import Config
from outbox.config.units import words
from outbox.runner.telling.notices import Notices
from outbox.runner.telling.overdue import Overdue
from outbox.runner.telling.webhook import Webhook, read_secrets
from outbox.runner.writing.clerk import Clerk
from outbox.store import Store, events
from outbox.store.events import Kind, Recording

log = logging.getLogger("outbox.events")

REST = 0.05
"""Seconds between two batches of what is forgotten, so that nobody waits long for SQLite's lock."""


def recording_of(config: Config) -> Recording:
    """Which events are recorded, and who is to hear of them, as the settings say."""
    told: list[str] = []
    if config.notices.failure:
        told += [Kind.BOUNCED, Kind.EXPIRED]
    if config.notices.delay:
        told.append(Kind.DELAYED)
    return Recording(
        record=frozenset(words(config.events.record)),
        webhook=frozenset(words(config.webhook.kinds) if config.webhook.url else ()),
        notices=frozenset(map(str, told)),
        delayed_after=config.events.delayed_after,
    )


class Feedback:
    """The duties of one runner, `owner()`. Raises ConfigError when the webhook cannot work as it is configured."""

    def __init__(self, clerk: Clerk, clock: Clock, config: Config, *, owner: Callable[[], str]) -> None:
        self._clerk = clerk
        self._keep = config.events.keep
        self._overdue = Overdue(clerk, recording_of(config), owner=owner)
        self._webhook: Webhook | None = None
        self._notices: Notices | None = None
        if config.webhook.url:
            secrets = read_secrets(config.webhook.secret_file) if config.webhook.secret_file else ()
            self._webhook = Webhook(clerk, clock, owner=owner, url=config.webhook.url, secrets=secrets)
        if config.notices.sender:
            self._notices = Notices(clerk, owner=owner, sender=config.notices.sender, reporting=config.helo)

    async def post(self) -> None:
        """Every second."""
        if self._webhook is not None:
            await self._webhook.post_due()

    async def tell(self) -> None:
        """Every few seconds."""
        if self._notices is not None:
            await self._notices.tell_due()

    async def watch(self) -> None:
        """Every minute: what waits behind a pause is not tried, and so has no settlement that says it is delayed."""
        await self._overdue.tell()

    async def forget(self) -> None:
        """Now and then: delete events that are older than `events.keep`."""
        count = 0
        while await self._clerk.read(partial(_has_old, self._keep, self._clerk.now())):
            forgotten = await self._clerk.upkeep(partial(_forget, self._keep))
            if not forgotten:
                break
            count += forgotten
            await asyncio.sleep(REST)
        if count:
            log.info("%d events were forgotten", count)

    async def close(self) -> None:
        """Hang up."""
        if self._webhook is not None:
            await self._webhook.close()


def _has_old(keep: timedelta, now: datetime, store: Store) -> bool:
    return events.has_old(store.db, now - keep)


def _forget(keep: timedelta, store: Store, now: datetime) -> int:
    return events.forget(store.db, now - keep)
