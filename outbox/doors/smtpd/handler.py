"""What is answered to MAIL, RCPT and DATA. The dialogue itself is aiosmtpd's."""

from __future__ import annotations

import logging
from typing import Any

from outbox.core.address import parse_address
from outbox.core.raw import addresses_in, read_fields, speaker_of
from outbox.core.user import User
from outbox.doors.smtpd.counter import Counter
from outbox.errors import DatabaseError, InvalidMail
from outbox.mail import Mail

log = logging.getLogger("outbox.smtpd")

MOST_RECIPIENTS = 1000
"""Of one transaction (RFC 5321 §4.5.3.1.8 asks for 100 at least)."""

NULL_PATH = "<>"


class Handler:
    """Takes mail from senders that are registered, and that are the user's own, where there is a user."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    async def handle_MAIL(  # noqa: N802 -- the name is aiosmtpd's
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address not in ("", NULL_PATH):  # whom a notification is from, its header says
            refusal = await self._refusal(session, address)
            if refusal:
                return refusal
        envelope.mail_from = address or NULL_PATH
        envelope.mail_options.extend(options)
        return "250 2.1.0 Ok"

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if len(envelope.rcpt_tos) >= MOST_RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        try:
            parse_address(address)
        except ValueError as error:
            return f"553 5.1.3 {error}"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        try:
            mail, spoken = _mail(envelope)
        except ValueError as error:
            return f"550 5.6.0 {_said(error)}"
        for each in spoken:
            refusal = await self._refusal(session, each)
            if refusal:
                return refusal
        try:
            message_id = await self._counter.commit(mail)
        except DatabaseError as error:
            log.error("a mail from %s was not taken: %s", mail.sender, error)
            return "451 4.3.0 The database is not available; try again later"
        except InvalidMail as error:
            return f"550 5.6.0 {_said(error)}"
        return f"250 2.0.0 Ok: queued as {message_id}"

    async def _refusal(self, session: Any, address: str) -> str:
        """Why mail may not be sent from there; empty when it may."""
        user: User | None = getattr(session, "auth_data", None)
        try:
            registered = await self._counter.is_registered(address)
        except ValueError:  # no address
            return f"553 5.1.7 {address} is not an address"
        except DatabaseError as error:
            log.error("%s", error)
            return "451 4.3.0 The database is not available; try again later"
        if not registered:
            return f"550 5.7.1 {address} is not a registered sender"
        if isinstance(user, User) and not user.may_send(address):
            return f"550 5.7.1 {user.name} may not send from {address}"
        return ""


def _mail(envelope: Any) -> tuple[Mail, list[str]]:
    """The mail, and everybody whom its header names as a sender."""
    content: bytes = envelope.content
    fields = read_fields(content)
    null = envelope.mail_from == NULL_PATH
    sender = speaker_of(fields).email if null else envelope.mail_from
    spoken = [each.wire for each in addresses_in(fields, "from", "sender", "resent-from", "resent-sender")]
    mail = Mail.from_message(content, sender=sender, to=envelope.rcpt_tos, return_path=NULL_PATH if null else None)
    return mail, list(dict.fromkeys([sender, *spoken]))


def _said(error: ValueError) -> str:
    reason = error.reason if isinstance(error, InvalidMail) else str(error)
    return " ".join(reason.split())[:400]
