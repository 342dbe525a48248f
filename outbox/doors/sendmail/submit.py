"""A message becomes a row, committed; or, where the database is away, a file in a pickup folder.

The spool is for callers that take "try again later" (EX_TEMPFAIL) for success, as PHP's mail() does: a file in a
watched folder is as durable as a row, and the runner makes a row of it when the database is back.
"""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

from outbox.clock import Clock
from outbox.configfile import machine_file, setting
from outbox.core.address import parse_address_list
from outbox.core.dsn import xtext
from outbox.core.raw import addresses_in, read_fields, speaker_of
from outbox.doors.own import connected, is_registered
from outbox.doors.pickup.archive import write_new
from outbox.doors.sendmail.options import Options
from outbox.doors.sendmail.qualify import qualified, qualified_header
from outbox.doors.sendmail.reading import with_header
from outbox.enqueue import enqueue
from outbox.errors import ConfigError, InvalidMail, Refused
from outbox.mail import Mail

SOURCE = "sendmail"

PATIENCE = 10.0
"""Seconds to wait for a locked database, or a server, before it counts as away."""


class NoRecipient(Exception):
    """Nobody was named, neither on the command line nor, with -t, in the header."""


def mail_of(options: Options, raw: bytes) -> Mail:
    """What is to be sent. Raises InvalidMail, NoRecipient."""
    domain = setting("sendmail.domain") or socket.gethostname()
    try:
        sender = qualified(options.sender, domain) if options.sender is not None else None
        raw = with_header(raw, sender or qualified(_login(), domain), options.full_name)
        raw = qualified_header(raw, domain)
        fields = read_fields(raw)
        listed = [each.email for each in addresses_in(fields, *_listing(fields))] if options.from_header else []
        recipients = list(dict.fromkeys([*(qualified(each, domain) for each in options.recipients), *listed]))
        speaker = sender or speaker_of(fields).email
    except ValueError as error:
        raise InvalidMail("message", str(error)) from None
    if not recipients:
        raise NoRecipient
    return Mail.from_message(
        raw,
        sender=speaker,
        to=recipients,
        return_path="<>" if sender == "" else None,
        dsn_notify=options.dsn_notify,
        dsn_ret=options.dsn_ret,
        dsn_envid=options.dsn_envid,
    )


def _listing(fields: list[tuple[str, bytes]]) -> tuple[str, ...]:
    """The fields that name recipients: of a message that was resent, those of the resending (RFC 5322 §3.6.6)."""
    resent = ("resent-to", "resent-cc", "resent-bcc")
    return resent if any(name in resent for name, _ in fields) else ("to", "cc", "bcc")


def submit(mail: Mail) -> int | None:
    """Commit it; its id. Raises Refused for a sender that is not registered; ConfigError, DatabaseError."""
    url = setting("database")
    if not url:
        raise ConfigError("no database is configured", hint=f"make {machine_file()}, or set OUTBOX_DATABASE")
    with connected(url, patience=PATIENCE) as connection:
        sender = str(mail.columns()["sender"])
        if not is_registered(connection, sender):
            raise Refused(f"{sender} is not a registered sender", hint=f"outbox sender add {sender} --account NAME")
        return enqueue(connection, mail, source=SOURCE)


def spool(mail: Mail, clock: Clock) -> Path | None:
    """Keep it as a file in the spool, a pickup folder, with its envelope at its head. Where it is; None when there is
    no spool. Raises OSError.
    """
    folder = setting("sendmail.spool")
    if not folder:
        return None
    return write_new(Path(folder), [f"{clock.token()}.eml"], _envelope(mail) + (mail.raw or b""))


def _envelope(mail: Mail) -> bytes:
    """The fields by which the pickup folder knows it."""
    columns = mail.columns()
    path = "" if columns.get("return_path") == "<>" else columns["sender"]
    ret = f" RET={mail.dsn_ret}" if mail.dsn_ret else ""
    envid = f" ENVID={xtext(mail.dsn_envid)}" if mail.dsn_envid else ""
    notify = f" NOTIFY={mail.dsn_notify}" if mail.dsn_notify else ""
    lines = [f"X-Sender: <{path}>{ret}{envid}"]
    lines += [f"X-Receiver: <{each.email}>{notify}" for each in parse_address_list(str(columns["recipients"]))]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _login() -> str:
    """Whom a message is from that says nothing of it: the user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container often has no entry for its user
        return f"uid{os.getuid()}" if hasattr(os, "getuid") else "nobody"
