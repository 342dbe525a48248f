"""``outbox-sendmail``: the command that programs hand their mail to. Also as sendmail, mailq and newaliases.

It ends with 0 only when the mail is committed, or is a file in the spool. Other ends are those of sysexits.h, as
Postfix uses them. Nothing that is not needed is loaded: programs wait for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import PurePath
from typing import TYPE_CHECKING

from outbox.doors.sendmail.options import Options, Task, Usage, parse
from outbox.errors import ConfigError, DatabaseError, InvalidMail, OutboxError, Refused

if TYPE_CHECKING:
    from outbox.mail import Mail

PROGRAM = "sendmail"


class Exit(IntEnum):
    """sysexits.h."""

    OK = 0
    USAGE = 64
    DATAERR = 65
    NOINPUT = 66
    UNAVAILABLE = 69
    SOFTWARE = 70
    OSERR = 71
    CANTCREAT = 73
    IOERR = 74
    TEMPFAIL = 75
    NOPERM = 77
    CONFIG = 78


_ENDS: tuple[tuple[type[Exception], Exit], ...] = (
    (Usage, Exit.USAGE),
    (ConfigError, Exit.CONFIG),
    (InvalidMail, Exit.DATAERR),
    (Refused, Exit.NOPERM),
    (DatabaseError, Exit.TEMPFAIL),
    (OutboxError, Exit.UNAVAILABLE),
    (BrokenPipeError, Exit.IOERR),
    (OSError, Exit.OSERR),
    (MemoryError, Exit.OSERR),
    (Exception, Exit.SOFTWARE),
)
"""How the command ends after an exception: the first that fits."""


class Ended(Exception):
    """The command ends here, with this status, and `str()` for the person or the log."""

    def __init__(self, status: Exit, message: str) -> None:
        super().__init__(message)
        self.status = status


def main() -> None:
    """The entry point."""
    status = run(PurePath(sys.argv[0]).name, sys.argv[1:])
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # who read it has gone
        status = status or Exit.IOERR
    # What was written is on its way, and nothing is open any more: the interpreter need not tidy up for 10 ms.
    if sys.stderr is not None:
        sys.stderr.flush()
    os._exit(status)


def run(program: str, arguments: Sequence[str]) -> int:
    """The exit status. What went wrong is said on stderr, in one line."""
    try:
        options = parse(program.removesuffix(".exe"), arguments)
        _TASKS[options.task](options)
    except Ended as ended:
        return _say(ended.status, str(ended))
    except KeyboardInterrupt:
        return 128 + 2
    except Exception as error:  # noqa: BLE001 -- a traceback is nothing to the program that called, a status is
        status = next(status for kind, status in _ENDS if isinstance(error, kind))
        if isinstance(error, OutboxError):
            return _say(status, str(error), error.hint if status is not Exit.DATAERR else "")
        return _say(status, str(error) if status is Exit.USAGE else f"{type(error).__name__}: {error}")
    return Exit.OK


def _say(status: Exit, message: str, hint: str = "") -> int:
    if sys.stderr is not None:
        said = f"{PROGRAM}: {message}" + (f" ({hint})" if hint else "")
        print(" ".join(said.split()).encode("ascii", "backslashreplace").decode(), file=sys.stderr)
    return status


def _send(options: Options) -> None:
    from outbox.doors.sendmail.reading import TooLarge, read_message
    from outbox.doors.sendmail.submit import NoRecipient, mail_of, submit

    if not options.recipients and not options.from_header:
        raise Ended(Exit.USAGE, "no recipient: name one, or give -t")
    if sys.stdin is None:
        raise Ended(Exit.NOINPUT, "standard input is closed")
    try:
        raw = read_message(sys.stdin.buffer, dot_ends=options.dot_ends)
    except TooLarge as error:
        raise Ended(Exit.DATAERR, str(error)) from None
    except OSError as error:
        raise Ended(Exit.IOERR, f"standard input: {error.strerror}") from None
    try:
        mail = mail_of(options, raw)
    except NoRecipient:
        raise Ended(Exit.USAGE, "no recipient: there is none in To, Cc and Bcc") from None
    try:
        message_id = submit(mail)
    except DatabaseError as error:
        _spool(mail, error)
        return
    if options.verbose:
        print(f"enqueued as {message_id}")


def _spool(mail: Mail, trouble: DatabaseError) -> None:
    """The database is away: keep the mail all the same, if that was provided for."""
    from outbox.clock import Clock
    from outbox.doors.sendmail.spool import spool

    try:
        kept = spool(mail, Clock())
    except OSError as error:
        raise Ended(Exit.TEMPFAIL, f"{trouble}; and the spool: {error.filename}: {error.strerror}") from None
    if kept is None:
        raise trouble
    if sys.stderr is not None:
        print(f"{PROGRAM}: {trouble}; kept as {kept}", file=sys.stderr)


def _queue(options: Options) -> None:
    from outbox.doors.sendmail.queue import show

    show()


def _flush(options: Options) -> None:
    from outbox.doors.sendmail.queue import flush

    flush(options.flush)


def _serve(options: Options) -> None:
    try:
        from outbox.doors.smtpd.stdio import serve
    except ImportError:
        raise Ended(Exit.UNAVAILABLE, "-bs needs the extra: pip install 'mail-outbox[smtpd]'") from None
    if sys.stdin is None or sys.stdout is None:
        raise Ended(Exit.NOINPUT, "standard input or output is closed")
    serve()


def _nothing(options: Options) -> None:
    """-bi, newaliases: there are no aliases to make new."""


_TASKS = {
    Task.SEND: _send,
    Task.QUEUE: _queue,
    Task.FLUSH: _flush,
    Task.SERVE: _serve,
    Task.NOTHING: _nothing,
}
