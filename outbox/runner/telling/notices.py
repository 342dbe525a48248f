"""Notices by mail: the return path of a message is told that it failed, was given up or is delayed (RFC 3464).

A notice is an ordinary row of `outbox`, enqueued in the transaction that marks its event as told, so there is one for
each event, and it is tried, recorded and shown like any other mail. Its own return path is the null one, and nobody is
told of a notice: two machines cannot go on answering each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from outbox.core.lifecycle import DEAD, State
from outbox.core.message import NULL_PATH, Message
from outbox.core.notice import Action, Notice, Unreached, compose
from outbox.core.render import render
from outbox.core.settlement import Fate
from outbox.errors import InvalidMessage, Refused
from outbox.runner.writing.clerk import Clerk
from outbox.store import Store, audit, events, feedback, leases
from outbox.store.audit import RecipientLine, Record
from outbox.store.events import Channel, Event, Kind
from outbox.store.feedback import NOTICE, Original

log = logging.getLogger("outbox.notices")

LEASE = timedelta(seconds=60)
BATCH = 20


class Notices:
    """`sender` is in whose name, a registered address; `reporting` the name by which we introduce ourselves to relays;
    `owner()` the runner, as the lease names it.
    """

    def __init__(self, clerk: Clerk, *, owner: Callable[[], str], sender: str, reporting: str) -> None:
        self._clerk = clerk
        self._owner = owner
        self._sender = sender
        self._reporting = reporting

    async def tell_due(self) -> None:
        """Enqueue a notice for each event that is due, while no other runner does."""
        if not await self._clerk.read(partial(_due, 1)):
            return
        while batch := await self._clerk.upkeep(partial(_take, self._owner())):
            for event in batch:
                await self._tell(event)

    async def _tell(self, event: Event) -> None:
        notice, raw = await self._notice(event), b""
        if isinstance(notice, Notice):
            try:
                raw = await asyncio.to_thread(compose, notice)
            except ValueError as fault:  # its return path is none
                notice = str(fault)
        if isinstance(notice, str):
            log.info("id=%s: nobody is told that it is %s: %s", event.message_id, event.kind, notice)
            await self._clerk.upkeep(partial(_heard, event))
        else:
            await self._clerk.upkeep(partial(_file, event, notice.sender, notice.to, raw))

    async def _notice(self, event: Event) -> Notice | str:
        """What to tell, or why nobody is told."""
        if event.message_id is None:
            return "it is about no message"
        try:
            original = await self._clerk.read(partial(_original, event.message_id))
        except Refused:
            return "it has been deleted"
        reason = why_not(event, original)
        if reason:
            return reason
        message = await self._clerk.read(partial(_message, event.message_id))
        header = await asyncio.to_thread(_header, message)
        return self._about(event, original, header)

    def _about(self, event: Event, original: Original, header: bytes) -> Notice:
        record = original.record
        return Notice(
            sender=self._sender,
            to=original.return_path,
            reporting=self._reporting,
            action=Action.DELAYED if event.kind is Kind.DELAYED else Action.FAILED,
            recipients=unreached(event, record),
            enqueued_at=record.created_at,
            seed=f"{event.id}.{record.id}",
            gave_up=event.kind is Kind.EXPIRED,
            subject=record.subject or "",
            message_id=record.message_id or "",
            envelope_id=original.dsn.envid or (str(record.id) if original.dsn else ""),
            header=header,
        )


def why_not(event: Event, original: Original) -> str:
    """Why nobody may, or wants to, be told of this event; empty when somebody is."""
    record, delayed = original.record, event.kind is Kind.DELAYED
    if record.source == NOTICE:
        return "it is a notice itself"
    if original.return_path == NULL_PATH:
        return "its return path is the null one"
    if not original.registered:  # whoever may INSERT could have a notice sent to anybody
        return "its return path is not registered to the account of its sender"
    asked, wanted = original.dsn.notify, "delay" if delayed else "failure"
    if asked and wanted not in asked.split(","):
        return f"it asks for notices of {asked}"
    if (record.state in DEAD) is delayed or record.state in (State.SENT, State.CANCELLED):
        return f"it is {record.state} meanwhile"
    if not unreached(event, record):
        return "its recipients are not known any more"
    return ""


def unreached(event: Event, record: Record) -> Sequence[Unreached]:
    """Whom the event is about: those who were refused, or where it is not about one of them, all who have not got
    it.
    """
    open_ = [each for each in record.recipients if each.fate is not Fate.ACCEPTED]
    refused = [each for each in open_ if each.fate is Fate.BOUNCED]
    about = refused if refused and event.kind is Kind.BOUNCED else open_
    relay = next((each.relay for each in reversed(record.attempts) if each.relay), None)
    return [_unreached(event, each, relay or "") for each in about]


def _unreached(event: Event, line: RecipientLine, relay: str) -> Unreached:
    """What was said of them, else what was said of the message."""
    own = line.reply is not None or line.code is not None
    code, status, text = (line.code, line.status, line.reply) if own else (event.code, event.status, event.reply)
    return Unreached(line.address, code or 0, status or "", text or "", relay if code else "", line.at)


# -- statements


def _due(limit: int, store: Store) -> list[Event]:
    return events.due(store.db, Channel.NOTICES, limit)


def _take(owner: str, store: Store, now: datetime) -> list[Event]:
    """The next events, if nobody else is at it."""
    return _due(BATCH, store) if leases.take(store.db, Channel.NOTICES, owner, now, LEASE) else []


def _original(message_id: int, store: Store) -> Original:
    return feedback.original(store.db, message_id)


def _message(message_id: int, store: Store) -> Message | None:
    try:
        return audit.message(store.db, message_id)
    except (InvalidMessage, Refused):
        return None  # erased, deleted, or no text: then the notice goes without its header


def _header(message: Message | None) -> bytes:
    """The header as it went out; empty when there is none any more."""
    try:
        return render(message).data.partition(b"\r\n\r\n")[0] + b"\r\n" if message is not None else b""
    except InvalidMessage:
        return b""


def _file(event: Event, sender: str, to: str, raw: bytes, store: Store, now: datetime) -> None:
    feedback.file_notice(store.db, event, sender, to, raw)
    _heard(event, store, now)


def _heard(event: Event, store: Store, now: datetime) -> None:
    events.heard(store.db, Channel.NOTICES, [event.id])
