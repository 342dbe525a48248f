"""What is answered to MAIL, RCPT and DATA."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from outbox.core.address import parse_address
from outbox.core.dsn import unxtext
from outbox.core.message import NULL_PATH
from outbox.core.raw import read_fields, speaker_of
from outbox.doors.smtpd.counter import Counter
from outbox.errors import DatabaseError, InvalidMail
from outbox.mail import Mail, speakers

log = logging.getLogger("outbox.smtpd")

MOST_RECIPIENTS = 1000
"""Of one transaction (RFC 5321 §4.5.3.1.8 asks for 100 at least)."""

AWAY = "451 4.3.0 The database is not available; try again later"


class Handler:
    """Takes mail from senders that are registered, and that are the user's own, where there is a user."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    async def handle_EHLO(  # noqa: N802 -- the names are aiosmtpd's
        self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        offered = [f"250-{each}" for each in ("PIPELINING", "ENHANCEDSTATUSCODES", "DSN")]
        return [*responses[:-1], *offered, responses[-1]]

    async def handle_MAIL(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address not in ("", NULL_PATH):  # whom a notification is from, its header says
            refusal = await self._refusal(session, (address,))
            if refusal:
                return refusal
        envelope.mail_from = address or NULL_PATH
        envelope.mail_options.extend(options)
        envelope.dsn_ret = server.asked.get("RET", "").lower() or None
        envelope.dsn_envid = unxtext(server.asked.get("ENVID", "")) or None
        return "250 2.1.0 Ok"

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if len(envelope.rcpt_tos) >= MOST_RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        try:
            parse_address(address)
        except ValueError as error:
            return f"553 5.1.3 {_said(error)}"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.append(server.asked.get("NOTIFY", "").lower())
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        try:
            mails = _mails(envelope)
            refusal = await self._refusal(session, speakers(mails[0]))
            if refusal:
                return refusal
            ids = await self._counter.commit(mails)
        except DatabaseError as error:
            log.error("a mail from %s was not taken: %s", envelope.mail_from, error)
            return AWAY
        except ValueError as error:
            return f"550 5.6.0 {_said(error)}"
        return f"250 2.0.0 Ok: queued as {', '.join(map(str, ids))}"

    async def _refusal(self, session: Any, addresses: Sequence[str]) -> str:
        """Why mail may not be sent from there; empty when it may."""
        try:
            why = await self._counter.refusal(addresses, getattr(session, "auth_data", None) or "")
        except DatabaseError as error:
            log.error("%s", error)
            return AWAY
        return f"550 5.7.1 {_one_line(why)}" if why else ""


def _mails(envelope: Any) -> list[Mail]:
    """One; or one for each kind of notification that recipients want, which a mail can ask for one of. Raises
    ValueError.
    """
    content: bytes = envelope.content
    is_null = envelope.mail_from == NULL_PATH
    sender = speaker_of(read_fields(content)).email if is_null else envelope.mail_from
    groups: dict[str, list[str]] = {}
    for address, notify in zip(envelope.rcpt_tos, envelope.rcpt_options, strict=True):
        groups.setdefault(notify, []).append(address)
    return [
        Mail.from_message(
            content,
            sender=sender,
            to=recipients,
            return_path=NULL_PATH if is_null else None,
            dsn_notify=notify or None,
            dsn_ret=envelope.dsn_ret,
            dsn_envid=envelope.dsn_envid,
        )
        for notify, recipients in groups.items()
    ]


def _said(error: ValueError) -> str:
    return _one_line(error.reason if isinstance(error, InvalidMail) else str(error))


def _one_line(text: str) -> str:
    """For a reply, in which there is room for 512 octets."""
    return " ".join(text.split())[:400].encode("utf-8", "backslashreplace").decode()
