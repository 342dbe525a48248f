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


_FLAGS = frozenset("GIUcimntvx")
"""Letters without an argument; they may run together, and the last may be one that takes one: ``-tif ann@…``."""

_IGNORED_WITH_ARGUMENT = frozenset("ALehp")
_IGNORED_WITH_REST = frozenset("d")
"""``-d0-99.1``: an argument only where it is in the same word."""

_TASKS = {"m": Task.SEND, "p": Task.QUEUE, "s": Task.SERVE, "i": Task.NOTHING}
_ENVID = re.compile(r"[!-~]{1,100}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FILES = re.compile(r"file|dir|path|map|socket|errorheader|savefromline")
"""In the names of options of a sendmail.cf: those that name files."""


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
        else:
            _letters(options, word[1:], waiting)
    for each in options.recipients:
        if not each.strip():
            raise Usage("a recipient is empty")
    return options


def _letters(options: Options, letters: str, waiting: list[str]) -> None:
    """One word of them: flags, until one takes what follows it, or else the next word, as its argument."""
    for place, each in enumerate(letters, 1):
        rest = letters[place:]
        if each in _FLAGS:
            _flag(options, each)
        elif each in _IGNORED_WITH_REST:
            return
        elif each == "q":
            _queue(options, rest, waiting)
            return
        elif each in _SETTERS or each in _IGNORED_WITH_ARGUMENT:
            value = rest or _argument(each, waiting)
            if each in _SETTERS:
                _SETTERS[each](options, value)
            return
        elif each in ("X", "C"):
            raise Usage(f"-{each} names a file, which is not read or written for whoever calls this")
        else:
            raise Usage(f"there is no option -{each}")


def _flag(options: Options, letter: str) -> None:
    if letter == "t":
        options.from_header = True
    elif letter == "i":
        options.dot_ends = False
    elif letter == "v":
        options.verbose = True
    elif letter == "I":
        options.task = Task.NOTHING


def _argument(letter: str, waiting: list[str]) -> str:
    if not waiting:
        raise Usage(f"-{letter} needs an argument")
    return waiting.pop(0)


def _set_task(options: Options, value: str) -> None:
    if value not in _TASKS:
        raise Usage(f"-b{value} is not offered")
    options.task = _TASKS[value]


def _queue(options: Options, rest: str, waiting: list[str]) -> None:
    """-q: all of it; -qI, -qR, -qS: by id, recipient, sender. -q30m is for a daemon, and means nothing here."""
    if rest[:1].isdigit():
        return
    if rest and rest[0] not in "IRS":
        raise Usage(f"-q{rest} is not offered")
    options.task = Task.FLUSH
    if rest:
        text = rest[1:] or _argument(f"q{rest[0]}", waiting)
        if rest[0] == "I" and not (text.isascii() and text.isdigit() and len(text) < 19):
            raise Usage(f"-qI {text}: an id is a number; mailq shows them")
        options.flush = (rest[0], text)


def _set_old(options: Options, value: str) -> None:
    """-oi: no lone dot; -oQ names a directory; the others mean nothing here."""
    if value == "i":
        options.dot_ends = False
    elif value[:1] in ("Q", "X", "C", "A", "S", "H"):
        raise Usage(f"-o{value} names a file, which is not read or written for whoever calls this")


def _set_sender(options: Options, value: str) -> None:
    """A path in angles, as SMTP has it, will do. No address has white space or control characters outside quotes, and
    what has is somebody's attempt to write more of the header, or of a command line.
    """
    bare = value[1:-1] if value.startswith("<") and value.endswith(">") else value
    if _CONTROL.search(value) or (" " in bare and '"' not in bare):
        raise Usage(f"-f {value!r} is no address")
    options.sender = bare


def _set_full_name(options: Options, value: str) -> None:
    if _CONTROL.search(value):
        raise Usage("-F: there is a control character in the name")
    options.full_name = value


def _set_notify(options: Options, value: str) -> None:
    words = list(dict.fromkeys(value.lower().split(",")))
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
    if _FILES.search(name):
        raise Usage(f"-O {value} names a file, which is not read or written for whoever calls this")


_SETTERS = {
    "b": _set_task,
    "o": _set_old,
    "f": _set_sender,
    "r": _set_sender,
    "F": _set_full_name,
    "N": _set_notify,
    "R": _set_return,
    "V": _set_envid,
    "B": _set_body,
    "O": _set_long,
}
