"""A message becomes a row, committed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from outbox.configfile import machine_file, setting
from outbox.core.address import parse_address_list
from outbox.core.message import NULL_PATH
from outbox.core.raw import addresses_in, read_fields, speaker_of
from outbox.doors.own import connected, refusal
from outbox.doors.sendmail.qualify import qualified, qualified_header, qualified_list
from outbox.doors.sendmail.reading import with_header
from outbox.enqueue import enqueue
from outbox.errors import ConfigError, InvalidMail, Refused
from outbox.mail import Mail, speakers

if TYPE_CHECKING:
    from outbox.doors.sendmail.options import Options

SOURCE = "sendmail"

PATIENCE = 10.0
"""Seconds to wait for a locked database, or a server, before it counts as away."""


class NoRecipient(Exception):
    """Nobody was named, neither on the command line nor, with -t, in the header."""


def mail_of(options: Options, raw: bytes) -> Mail:
    """What is to be sent. Raises InvalidMail, NoRecipient, ConfigError."""
    domain = setting("sendmail.domain") or _host()
    try:
        sender = qualified(options.sender, domain) if options.sender is not None else None
        name = options.full_name or os.environ.get("NAME", "")
        raw = with_header(raw, sender or qualified(_login(), domain), name)
        raw = qualified_header(raw, domain)
        fields = read_fields(raw)
        given = [each for text in options.recipients for each in parse_address_list(qualified_list(text, domain))]
        listed = addresses_in(fields, *_listing(fields)) if options.from_header else ()
        recipients = list(dict.fromkeys(each.email for each in (*given, *listed)))
        speaker = sender or speaker_of(fields).email
    except ValueError as error:
        raise InvalidMail("message", str(error)) from None
    if not recipients:
        raise NoRecipient
    return Mail.from_message(
        raw,
        sender=speaker,
        to=recipients,
        return_path=NULL_PATH if sender == "" else None,
        tag=_caller(),
        dsn_notify=options.dsn_notify,
        dsn_ret=options.dsn_ret,
        dsn_envid=options.dsn_envid,
    )


def _listing(fields: list[tuple[str, bytes]]) -> tuple[str, ...]:
    """The fields that name recipients: of a message that was resent, those of the resending (RFC 5322 §3.6.6)."""
    resent = ("resent-to", "resent-cc", "resent-bcc")
    return resent if any(name in resent for name, _ in fields) else ("to", "cc", "bcc")


def submit(mail: Mail) -> int | None:
    """Commit it; its id. Raises Refused for a sender that is not registered, InvalidMail for what the database refuses,
    ConfigError and DatabaseError.
    """
    with connected(database(), patience=PATIENCE) as connection:
        why = refusal(connection, speakers(mail))
        if why:
            raise Refused(why, hint="outbox sender list; outbox sender add ADDRESS --account NAME")
        return enqueue(connection, mail, source=SOURCE)


def database() -> str:
    """The URL of the one that is configured. Raises ConfigError."""
    url = setting("database")
    if not url:
        raise ConfigError("no database is configured", hint=f"make {machine_file()}, or set OUTBOX_DATABASE")
    return url


def _host() -> str:
    """What this machine calls itself."""
    if hasattr(os, "uname"):
        return os.uname().nodename
    import socket

    return socket.gethostname()


def _login() -> str:
    """Whom a message is from that says nothing of it: the user, whatever the environment calls them."""
    if not hasattr(os, "getuid"):
        return os.environ.get("USERNAME", "nobody")
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container often has no entry for its user
        return f"uid{os.getuid()}"


def _caller() -> str | None:
    """Who has called, for the audit."""
    return f"uid={os.getuid()}" if hasattr(os, "getuid") else None
