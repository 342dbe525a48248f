"""Posts events to the application over HTTP: signed, in their order, at least once, by one runner at a time.

A request has up to BATCH events and is answered by 2xx, or posted again later. Its events are marked as told in the
transaction that takes the next ones. What a receiver gets twice has the same `id` in it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from outbox.clock import Clock
from outbox.core.account import is_loopback
from outbox.core.secret import Secret
from outbox.core.webhook import key_of, name_of, signed_headers
from outbox.errors import ConfigError
from outbox.runner.writing.clerk import Clerk
from outbox.store import Store, events, feedback, leases
from outbox.store.events import Channel, Event
from outbox.store.feedback import Facts
from outbox.store.rows import moment

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger("outbox.webhook")

DEADLINE = 10.0
"""Seconds for a whole request."""

MOST_ANSWER = 64 * 1024
"""Octets at a time of an answer that is read to its end, for which there is DEADLINE."""

LEASE = timedelta(seconds=60)
BATCH = 100
MOST_RECIPIENTS = 1000
"""In one request; it has fewer events where they have many."""

ROUNDS = 100
"""Requests in a row, before others get their turn on the event loop's schedule."""

FIRST_WAIT = 5.0
LONGEST_WAIT = 900.0
"""Seconds after a request that was not accepted; each in a row twice as long."""


class Webhook:
    """`owner()` names the runner in the lease; `secrets` sign, all of them: a receiver may know the old or the new one.

    Raises ConfigError when the extra `webhook` is not installed, or the URL is not a safe one.
    """

    def __init__(
        self,
        clerk: Clerk,
        clock: Clock,
        *,
        owner: Callable[[], str],
        url: str,
        secrets: Sequence[Secret],
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        self._clerk = clerk
        self._clock = clock
        self._owner = owner
        self._url = url
        self._secrets = secrets
        self._host = urlsplit(url).netloc.rpartition("@")[2]
        self._client = client or _client(url)
        self._failures = 0
        self._not_before = float("-inf")

    async def close(self) -> None:
        await self._client.aclose()

    async def post_due(self) -> None:
        """Post what is due, while no other runner does, until a request is not accepted."""
        if self._clock.monotonic() < self._not_before or not await self._clerk.read(partial(_due, 1)):
            return
        posted: list[int] = []
        for _ in range(ROUNDS):
            batch = await self._clerk.upkeep(partial(_next, self._owner(), posted))
            if not batch:
                return
            facts = await self._clerk.read(partial(_facts, batch))
            batch = list(_bounded(batch, facts))
            body = json.dumps({"events": [as_json(each, facts) for each in batch]}).encode()
            ids = [each.id for each in batch]
            if not self._accepted(await self._post(name_of(ids), body)):
                return
            posted = ids
        await self._clerk.upkeep(partial(_heard, posted))

    async def _post(self, name: str, body: bytes) -> str:
        """Why it was not accepted; empty when it was. Never the URL, which may have a secret in it."""
        import httpx2

        headers = signed_headers(name, self._clock.now(), body, self._secrets)
        headers["content-type"] = "application/json"
        try:
            async with (
                asyncio.timeout(DEADLINE),
                self._client.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                async for piece in response.aiter_raw():  # so that the connection can be used again
                    if len(piece) > MOST_ANSWER:
                        break
                return "" if response.is_success else f"it answered {response.status_code}"
        except TimeoutError:
            return f"no answer within {DEADLINE:g} s"
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return f"{type(error).__name__}: {str(error).replace(self._url, 'the URL')}"

    def _accepted(self, fault: str) -> bool:
        if not fault:
            if self._failures:
                log.info("the webhook at %s accepts events again", self._host)
            self._failures = 0
            return True
        wait = min(FIRST_WAIT * 2 ** min(self._failures, 16), LONGEST_WAIT)
        self._failures += 1
        self._not_before = self._clock.monotonic() + wait
        log.warning("the webhook at %s does not accept events: %s; again in %g s", self._host, fault, wait)
        return False


def as_json(event: Event, facts: dict[int, Facts]) -> dict[str, Any]:
    """One event, as it is posted and as ``outbox events --json`` prints it. Of a message that was deleted meanwhile,
    only what the event itself says.
    """
    about = facts.get(event.message_id) if event.message_id is not None else None
    return {
        "id": event.id,
        "at": moment(event.at),
        "kind": str(event.kind),
        "message_id": event.message_id,
        "claim_no": event.claim_no,
        "subject": event.subject,
        "sender": about.sender if about else None,
        "dedup_key": about.dedup_key if about else None,
        "tag": about.tag if about else None,
        "code": event.code,
        "status": event.status,
        "reply": event.reply,
        "recipients": [asdict(each) for each in about.recipients] if about else [],
        "recipients_complete": about.complete if about else True,
    }


def read_secrets(path: Path) -> tuple[Secret, ...]:
    """The secrets of a file that is for its owner only, one a line; ``#`` begins a comment. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(64 * 1024).decode("utf-8-sig", "replace")
    except OSError as error:
        hint = "write one line into it: whsec_ and 24 to 64 random bytes in Base64"
        raise ConfigError(f"cannot read webhook.secret_file {path}: {error.strerror}", hint=hint) from None
    if sys.platform != "win32" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"webhook.secret_file {path} is open to other users", hint=f"chmod 600 {path}")
    lines = [line.strip() for line in content.splitlines()]
    secrets = tuple(Secret(line) for line in lines if line and not line.startswith("#"))
    try:
        for each in secrets:
            key_of(each)
    except ValueError as fault:
        raise ConfigError(f"a secret in webhook.secret_file {path} is of no use: {fault}") from None
    if not secrets:
        raise ConfigError(f"webhook.secret_file {path} holds no secret")
    return secrets


def _client(url: str) -> httpx2.AsyncClient:
    try:
        import httpx2
    except ImportError:
        raise ConfigError("a webhook needs httpx2", hint='pip install "mail-outbox[webhook]"') from None
    here = is_loopback(urlsplit(url).hostname or "")
    if not url.startswith("https://") and not (here and url.startswith("http://")):
        raise ConfigError("webhook.url must begin with https://; http:// only for this machine")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # at INFO it tells of every request, with its URL
    # Proxies of the environment are used, but not to this machine.
    return httpx2.AsyncClient(timeout=DEADLINE, follow_redirects=False, trust_env=not here)


def _bounded(batch: Sequence[Event], facts: dict[int, Facts]) -> Iterator[Event]:
    """The first of them, with at most MOST_RECIPIENTS; one at least."""
    left = MOST_RECIPIENTS
    for number, event in enumerate(batch):
        about = facts.get(event.message_id) if event.message_id is not None else None
        left -= len(about.recipients) if about else 0
        if left < 0 and number:
            return
        yield event


# -- statements


def _due(limit: int, store: Store) -> list[Event]:
    return events.due(store.db, Channel.WEBHOOK, limit)


def _heard(posted: Collection[int], store: Store, now: datetime) -> None:
    if posted:
        events.heard(store.db, Channel.WEBHOOK, posted)


def _next(owner: str, posted: Collection[int], store: Store, now: datetime) -> list[Event]:
    """What to post next, if nobody else is at it."""
    _heard(posted, store, now)
    return _due(BATCH, store) if leases.take(store.db, Channel.WEBHOOK, owner, now, LEASE) else []


def _facts(batch: Sequence[Event], store: Store) -> dict[int, Facts]:
    return feedback.facts(store.db, {each.message_id for each in batch if each.message_id is not None})
