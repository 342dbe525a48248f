"""While the database is away, a message is kept as a file in a pickup folder, of which the runner makes a row later.

This is for callers that take "try again later" (EX_TEMPFAIL) for success, as PHP's mail() does, or cannot try again, as
cron: a file in a watched folder is as durable as a row.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from outbox.clock import Clock
from outbox.configfile import setting
from outbox.core.address import parse_address_list
from outbox.core.dsn import xtext
from outbox.mail import MAX_CONTENT, Mail

MAX_HEADER = 64 * 1024
"""What a pickup folder takes."""


def spool(mail: Mail, clock: Clock) -> Path | None:
    """Keep it, with its envelope at its head, and return where it is: written to the disk, under its name. None when
    there is no spool, or a pickup folder would not take it. Raises OSError; then there is no file.
    """
    folder = setting("sendmail.spool")
    content = _envelope(mail) + (mail.raw or b"")
    if not folder or len(content) > MAX_CONTENT or content.index(b"\r\n\r\n") > MAX_HEADER:
        return None
    return _written(Path(folder), clock.token(), content)


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


def _written(folder: Path, token: str, content: bytes) -> Path:
    """Under a name that the folder overlooks until all of it is on the disk."""
    new, path = folder / f".{token}.part", folder / f"{token}.eml"
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb") as file:
            file.write(content)
            file.flush()
            _let_the_runner_read(folder, file.fileno())
            os.fsync(file.fileno())
        new.rename(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    _keep_name(folder)
    return path


def _let_the_runner_read(folder: Path, descriptor: int) -> None:
    """In a folder that gives its own group to its files (02730), that is the runner's, who reads them as such. In any
    other, a file is for its owner alone.
    """
    if os.name == "posix" and folder.stat().st_mode & stat.S_ISGID:
        os.fchmod(descriptor, 0o640)


def _keep_name(folder: Path) -> None:
    """So that it survives a loss of power. Who may not read the folder, as in a drop box, has all disks written."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        os.sync()
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
