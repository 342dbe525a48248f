"""The command line of sendmail(1), as programs have written it for forty years.

Letters with and without arguments run together (``-oi``, ``-fann@example.net``, ``-f ann@example.net``). What other
sendmails know and means nothing here is taken and ignored; what could make this program read or write files of the
caller's choice is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Usage(Exception):
    """A command line that is none of ours (EX_USAGE). `str()` says what is wrong with it."""


class Task(StrEnum):
    """What is asked for."""

    SEND = "send"
    QUEUE = "queue"
    SERVE = "serve"
    FLUSH = "flush"
    NOTHING = "nothing"


@dataclass(slots=True)
class Options:
    """What a command line says.

    sender        of the envelope; None: not given, "": the null sender
    from_header   recipients are (also) those in To, Cc and Bcc (-t)
    dot_ends      a line with a lone dot ends the message (not with -i)
    flush         which messages `-q` is about: column and what is in it
    """

    task: Task = Task.SEND
    sender: str | None = None
    full_name: str = ""
    recipients: list[str] = field(default_factory=list)
    from_header: bool = False
    dot_ends: bool = True
    verbose: bool = False
    dsn_notify: str | None = None
    dsn_ret: str | None = None
    dsn_envid: str | None = None
    flush: tuple[str, str] | None = None


_IGNORED = frozenset("GimnUv")
"""Flags without an argument: -i and -v have their own meaning before this is asked."""

_IGNORED_WITH_ARGUMENT = frozenset("AhLpd")
_TASKS = {"m": Task.SEND, "p": Task.QUEUE, "s": Task.SERVE, "i": Task.NOTHING}
_ENVID = re.compile(r"[!-~]{1,100}")


def parse(program: str, arguments: Sequence[str]) -> Options:
    """`program` is the name it was called by: mailq and newaliases are `-bp` and `-bi`. Raises Usage."""
    options = Options(task={"mailq": Task.QUEUE, "newaliases": Task.NOTHING}.get(program, Task.SEND))
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            options.recipients += waiting
            break
        if not word.startswith("-") or word == "-":
            options.recipients.append(word)
            continue
        _flag(options, word[1], word[2:], waiting)
    return options


def _flag(options: Options, letter: str, rest: str, waiting: list[str]) -> None:
    if letter in _SETTERS:
        _SETTERS[letter](options, rest or _argument(letter, waiting))
    elif letter == "b":
        options.task = _task(rest)
    elif letter == "q":
        options.task, options.flush = Task.FLUSH, _flush(rest, waiting)
    elif letter == "o":
        _old_option(options, rest)
    elif letter in ("X", "C"):
        raise Usage(f"-{letter} names a file, which is not read or written for whoever calls this")
    elif letter in _IGNORED_WITH_ARGUMENT:
        if not rest and letter != "d":
            _argument(letter, waiting)
    else:
        _letters(options, letter + rest)


def _letters(options: Options, letters: str) -> None:
    """Flags without arguments, which may run together: ``-ti``."""
    for place, each in enumerate(letters):
        if each == "t":
            options.from_header = True
        elif each == "i":
            options.dot_ends = False
        elif each == "v":
            options.verbose = True
        elif each == "I" and place == 0:
            options.task = Task.NOTHING
        elif each in _SETTERS and place:  # -tfann@example.net
            raise Usage(f"-{letters}: give -{each} by itself")
        elif each not in _IGNORED:
            raise Usage(f"there is no option -{each}")


def _argument(letter: str, waiting: list[str]) -> str:
    if not waiting:
        raise Usage(f"-{letter} needs an argument")
    return waiting.pop(0)


def _task(rest: str) -> Task:
    if rest not in _TASKS:
        raise Usage(f"-b{rest} is not offered" if rest else "-b needs an argument")
    return _TASKS[rest]


def _flush(rest: str, waiting: list[str]) -> tuple[str, str] | None:
    """-q, -q30m: all of it; -qI, -qR, -qS: by id, recipient, sender."""
    if not rest or rest[0].isdigit():
        return None
    if rest[0] not in "IRS":
        raise Usage(f"-q{rest} is not offered")
    return rest[0], rest[1:] or _argument(f"q{rest[0]}", waiting)


def _old_option(options: Options, rest: str) -> None:
    """-oi: no lone dot; -oQ names a directory; the others mean nothing here."""
    if rest == "i":
        options.dot_ends = False
    elif rest[:1] in ("Q", "X", "C"):
        raise Usage(f"-o{rest} names a file, which is not read or written for whoever calls this")


def _set_sender(options: Options, value: str) -> None:
    options.sender = "" if value == "<>" else value


def _set_full_name(options: Options, value: str) -> None:
    options.full_name = value


def _set_notify(options: Options, value: str) -> None:
    words = value.lower().split(",")
    if words != ["never"] and not set(words) <= {"success", "failure", "delay"}:
        raise Usage(f"-N {value}: never, or of success, failure and delay")
    options.dsn_notify = ",".join(words)


def _set_return(options: Options, value: str) -> None:
    if value.lower() not in ("hdrs", "full"):
        raise Usage(f"-R {value}: hdrs or full")
    options.dsn_ret = value.lower()


def _set_envid(options: Options, value: str) -> None:
    if not _ENVID.fullmatch(value):
        raise Usage("-V: at most 100 printable ASCII characters")
    options.dsn_envid = value


def _set_body(options: Options, value: str) -> None:
    if value.upper() not in ("7BIT", "8BITMIME"):
        raise Usage(f"-B {value}: 7BIT or 8BITMIME")


def _set_long(options: Options, value: str) -> None:
    """-O name=value: those that name files are refused, the others mean nothing here."""
    name = value.partition("=")[0].lower()
    if name in ("queuedirectory", "aliasfile", "statusfile", "errorheader", "hoststatusdirectory", "savefromline"):
        raise Usage(f"-O {value} names a file, which is not read or written for whoever calls this")


_SETTERS = {
    "f": _set_sender,
    "r": _set_sender,
    "F": _set_full_name,
    "N": _set_notify,
    "R": _set_return,
    "V": _set_envid,
    "B": _set_body,
    "O": _set_long,
}
