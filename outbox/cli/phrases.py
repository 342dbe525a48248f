"""How lengths of time, counts and states are said to people, and how a line with colours is printed."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from datetime import timedelta

from outbox.log import one_line

Segment = tuple[str, str]
"""Text, and its style in rich's words ("bold red"), or ""."""

STYLES = {
    "queued": "cyan",
    "scheduled": "blue",
    "deferred": "yellow",
    "sending": "bright_cyan",
    "sent": "green",
    "failed": "bold red",
    "expired": "red",
    "held": "bold magenta",
    "cancelled": "bright_black",
    "pending": "cyan",
    "accepted": "green",
    "bounced": "bold red",
    "doubt": "bold magenta",
    "lost": "magenta",
    "paused": "yellow",
    "relinquished": "bright_black",
    "ok": "green",
    "note": "cyan",
    "warn": "yellow",
    "fail": "bold red",
}
"""The colours of the states, fates, outcomes and checks."""


def on_terminal() -> bool:
    return sys.stdout.isatty()


def terminal_width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def print_line(*segments: Segment) -> None:
    """One line on stdout, in colour on a terminal unless NO_COLOR is set. Control characters become spaces."""
    clean = [(one_line(text), style) for text, style in segments]
    if not on_terminal() or os.environ.get("NO_COLOR"):
        print("".join(text for text, _ in clean).rstrip())
        return
    from rich.console import Console
    from rich.text import Text

    Console().print(Text.assemble(*clean), no_wrap=True, overflow="ignore", crop=False, soft_wrap=True)


def fit(text: str, width: int) -> str:
    """`text`, on one line, in exactly `width` cells of a terminal: padded, or cut with an ellipsis."""
    from rich.cells import set_cell_size

    return set_cell_size(cut(text, width), width)


def cut(text: str, width: int) -> str:
    """`text`, on one line, in at most `width` cells of a terminal."""
    from rich.cells import cell_len, set_cell_size

    text = one_line(text)
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)).rstrip() + "…"


def print_hanging(head: Sequence[Segment], text: str, style: str = "") -> None:
    """`text` beside `head`; on a terminal that is too narrow, it goes on below itself. In a pipe it stays one line."""
    indent = sum(len(each) for each, _ in head)
    room = max(terminal_width() - indent, 30)
    lines = textwrap.wrap(one_line(text), room, break_on_hyphens=False) if on_terminal() else [text]
    for place, line in enumerate(lines or [""]):
        print_line(*(head if place == 0 else [(" " * indent, "")]), (line, style))


def ago(span: timedelta) -> str:
    """An age in at most four characters, for a column: ``12s``, ``3m``, ``47h``, ``9d``. What is to come is 0s."""
    seconds = max(0, int(span.total_seconds()))
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def lasting(span: timedelta) -> str:
    """A length of time in its two largest units: ``12ms``, ``1.3s``, ``4m 10s``, ``2d 3h``."""
    seconds = span.total_seconds()
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for length, unit, smaller, small_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= length:
            rest = whole % length // smaller
            return f"{whole // length}{unit} {rest}{small_unit}" if rest else f"{whole // length}{unit}"
    raise AssertionError("unreachable")


def counted(count: int, noun: str) -> str:
    """``1 message``, ``1,234 messages``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def reply_words(code: int | None, status: str | None, reply: str | None) -> str:
    """A reply as a relay would say it: ``550 5.1.1 no such user``."""
    return " ".join(part for part in (str(code) if code else "", status or "", reply or "") if part)


def joined(parts: Sequence[str]) -> str:
    """The parts that are there, with dots between them."""
    return " · ".join(part for part in parts if part)


def of_message(words: str, message_id: int) -> str:
    """Stored advice, whose commands say ID, for one message."""
    return re.sub(r"\bID\b", str(message_id), words)
