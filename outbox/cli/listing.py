"""How a list of messages is drawn: on a terminal, one line a message and, where something is wrong, what it is on a
second one; in a pipe, a plain line a message with everything on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.cells import cell_len

from outbox.cli import output
from outbox.cli.phrases import (
    STYLES,
    ago,
    cut,
    fit,
    joined,
    lasting,
    of_message,
    print_line,
    reply_words,
    terminal_width,
)
from outbox.core.settlement import DOUBT_HELD
from outbox.store.audit import Line

_TROUBLE = {"deferred": "yellow", "failed": "red", "expired": "red", "held": "magenta", "queued": "yellow"}


def draw(lines: Sequence[Line], now: datetime) -> None:
    """For a person, in the width of the terminal."""
    id_width = max(len("ID"), *(len(str(line.id)) for line in lines))
    state_width = max(len("STATE"), *(len(line.standing) for line in lines))
    indent = id_width + 2 + state_width + 2 + 4 + 2
    room = max(terminal_width() - indent, 30)
    widest = max(cell_len(_route(line)) for line in lines) + 2
    subjects = max(cell_len(line.subject or "") for line in lines)
    route_width = min(widest, max(room - subjects, room * 3 // 5))
    heading = f"{'ID':>{id_width}}  {'STATE':<{state_width}}  {'AGE':>4}  {'FROM → TO':<{route_width}}SUBJECT"
    print_line((heading, "bold"))
    for line in lines:
        print_line(
            (f"{line.id:>{id_width}}  ", ""),
            (f"{line.standing:<{state_width}}", STYLES.get(line.standing, "")),
            (f"  {ago(now - line.created_at):>4}  ", "bright_black"),
            (fit(_route(line, route_width - 2), route_width), ""),
            (fit(line.subject or "", room - route_width).rstrip(), ""),
        )
        words = trouble(line, now)
        if words:
            print_line((" " * indent, ""), (fit(words, room).rstrip(), _TROUBLE.get(line.standing, "bright_black")))


def write(lines: Sequence[Line], now: datetime) -> None:
    """For a program, or a file: aligned, whole, one line a message."""
    output.show_table(
        ("id", "state", "created", "from", "to", "subject", "last word"),
        [
            (
                line.id,
                line.standing,
                line.created_at,
                line.sender,
                ", ".join(line.recipients),
                line.subject,
                trouble(line, now) or reply_words(line.last_code, line.last_status, line.last_reply),
            )
            for line in lines
        ],
    )


def trouble(line: Line, now: datetime) -> str:
    """What is wrong with a message, or what it waits for; "" when there is nothing to say."""
    doubts = f"in doubt {line.doubts}×" if line.doubts else ""
    reply = reply_words(line.last_code, line.last_status, line.last_reply)
    if line.standing in ("queued", "scheduled", "deferred"):
        due = f"due in {lasting(line.due_at - now)}" if line.due_at > now else ""
        waits = f"waits: {line.paused}" if line.paused else ""
        return joined((waits, "" if reply in waits else reply, doubts, due))
    if line.standing == "held" and line.hold_reason == DOUBT_HELD:
        return f"{doubts}, the relay may have it: outbox resolve {line.id} --sent, or --resend"
    if line.standing == "held":
        return joined((of_message(line.hold_reason or "held", line.id), doubts))
    if line.standing == "failed":
        return joined((reply or "no reason was recorded", doubts))
    if line.standing == "expired":
        return joined((f"the last reply was: {reply}" if reply else "it was never tried", doubts))
    return f"{doubts}: a second copy is possible" if doubts and line.standing == "sent" else doubts


def _route(line: Line, width: int = 1000) -> str:
    """``shop@example.com → ann@example.net +2`` in at most `width` cells. A long sender yields to the recipient."""
    sender, first = line.sender, line.recipients[0] if line.recipients else "?"
    more = f" +{len(line.recipients) - 1}" if len(line.recipients) > 1 else ""
    room = width - len(" → ") - len(more)
    if cell_len(sender) + cell_len(first) > room:
        sender = cut(sender, max(room - cell_len(first), room * 2 // 5))
        first = cut(first, room - cell_len(sender))
    return f"{sender} → {first}{more}"
