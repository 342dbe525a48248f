"""While the database is away, a message is kept as a file in a pickup folder, of which the runner makes a row later.

This is for callers that take "try again later" (EX_TEMPFAIL) for success, as PHP's mail() does, or cannot try again, as
cron: a file in a watched folder is as durable as a row.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from outbox.clock import Clock
from outbox.configfile import setting
from outbox.core.address import parse_address_list
from outbox.core.dsn import xtext
from outbox.core.message import NULL_PATH
from outbox.core.pickup import MAX_HEADER
from outbox.doors.pickup.archive import write_new
from outbox.mail import MAX_CONTENT, Mail


def spool(mail: Mail, clock: Clock) -> Path | None:
    """Keep it, with its envelope at its head, and return where it is: written to the disk, under its name. None when
    there is no spool, or a pickup folder would not take it. Raises OSError; then there is no file.
    """
    folder = setting("sendmail.spool")
    content = _envelope(mail) + (mail.raw or b"")
    if not folder or len(content) > MAX_CONTENT or content.index(b"\r\n\r\n") > MAX_HEADER:
        return None
    token = clock.token()
    return write_new(Path(folder), [f"{token}.eml"], content, token=token, mode=_mode(Path(folder)))


def _envelope(mail: Mail) -> bytes:
    """The fields by which the pickup folder knows it."""
    columns = mail.columns()
    path = "" if columns.get("return_path") == NULL_PATH else columns["sender"]
    ret = f" RET={mail.dsn_ret}" if mail.dsn_ret else ""
    envid = f" ENVID={xtext(mail.dsn_envid)}" if mail.dsn_envid else ""
    notify = f" NOTIFY={mail.dsn_notify}" if mail.dsn_notify else ""
    lines = [f"X-Sender: <{path}>{ret}{envid}"]
    lines += [f"X-Receiver: <{each.email}>{notify}" for each in parse_address_list(str(columns["recipients"]))]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _mode(folder: Path) -> int:
    """A file is for its owner alone; but in a folder that gives its own group to its files (02730), that is the
    runner's, who reads them as such.
    """
    return 0o640 if os.name == "posix" and folder.stat().st_mode & stat.S_ISGID else 0o600
