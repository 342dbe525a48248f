"""``outbox stats``: what waits, what ended, and how long mail takes."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox.cli import output
from outbox.cli.session import session_of
from outbox.core.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outbox.store.statistics import Statistics

app = typer.Typer()


class Grouping(StrEnum):
    """The words of `outbox.store.statistics.By`, which is not imported before it is needed."""

    SENDER = "sender"
    CODE = "code"
    DAY = "day"


@app.command()
def stats(
    ctx: typer.Context,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="What ended within, such as 24h or 7d.")
    ] = "24h",
    by: Annotated[Grouping | None, typer.Option("--by", help="Also a table with a line for each of these.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how much waits, what became of the rest, and how long mail takes."""
    from outbox.store.statistics import By, statistics

    try:
        window = parse_duration(since)
        session_of(ctx).clock.now() - window
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    with session_of(ctx).database() as db:
        numbers = statistics(db, window, By(by) if by else None)
    if as_json:
        output.show_json(as_facts(numbers))
    else:
        _draw(numbers, since.strip())


def as_facts(numbers: Statistics) -> dict[str, Any]:
    """What ``stats --json`` prints. Latencies and the age of what has been due longest are in seconds."""
    facts = asdict(numbers)
    facts["waiting"]["oldest_due_seconds"] = _seconds(numbers.waiting.oldest_due_at, numbers.at)
    if numbers.by is None:
        del facts["by"], facts["lines"]
    return facts


def _seconds(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else round((now - moment).total_seconds(), 3)


def _draw(numbers: Statistics, window: str) -> None:
    from outbox.cli.phrases import STYLES, counted, lasting, print_line

    waiting = numbers.waiting
    print_line(("waiting now", "bold"))
    oldest = f"   the oldest for {lasting(numbers.at - waiting.oldest_due_at)}" if waiting.oldest_due_at else ""
    for name, count, words in (
        ("due", waiting.due, oldest),
        ("sending", waiting.sending, ""),
        ("deferred", waiting.deferred, "   tried, and waiting for their next try" if waiting.deferred else ""),
        ("scheduled", waiting.scheduled, ""),
        ("held", waiting.held, "   outbox list --state held" if waiting.held else ""),
    ):
        style = STYLES.get(name, "cyan") if count else "bright_black"
        print_line((f"  {name:<10}{count:>10,}", style), (words, "bright_black"))
    print_line()
    print_line((f"{'ended':<12}{'last hour':>10}{'last ' + window:>12}", "bold"))
    for name in ("sent", "failed", "expired", "cancelled", "doubts"):
        hour, all_of_it = getattr(numbers.last_hour, name), getattr(numbers.window, name)
        style = STYLES.get(name, "magenta") if hour or all_of_it else "bright_black"
        print_line((f"  {name:<10}{hour:>10,}{all_of_it:>12,}", style))
    print_line()
    latency = numbers.latency
    if latency.p50 is None or latency.p95 is None:
        print_line(("enqueue to sent  ", "bold"), (f"nothing was sent in the last {window}", ""))
    else:
        p50, p95 = lasting(timedelta(seconds=latency.p50)), lasting(timedelta(seconds=latency.p95))
        words = f"half within {p50}, 95 % within {p95} (of {counted(latency.count, 'mail')})"
        print_line(("enqueue to sent  ", "bold"), (words, ""))
    if numbers.by is not None:
        print_line()
        _draw_lines(numbers.lines)


def _draw_lines(lines: Sequence[Mapping[str, Any]]) -> None:
    """The table of --by, the same on a terminal and in a pipe: words to the left, numbers to the right."""
    from outbox.cli.phrases import cut, on_terminal, print_line, terminal_width

    if not lines:
        output.note("nothing to show")
        return
    names = list(lines[0])
    cells = [[output.cell(line[name]) for name in names] for line in lines]
    widths = [max(len(name), *(len(row[place]) for row in cells)) for place, name in enumerate(names)]
    excess = sum(widths) + 2 * (len(widths) - 1) - terminal_width()
    if on_terminal() and excess > 0:  # the words are cut, never the numbers
        widest = widths.index(max(widths))
        widths[widest] = max(widths[widest] - excess, len(names[widest]), 10)
        cells = [[cut(text, width) for text, width in zip(row, widths, strict=True)] for row in cells]
    right = [all(isinstance(line[name], int) for line in lines) for name in names]
    for row, style in [([name.upper() for name in names], "bold"), *((row, "") for row in cells)]:
        padded = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, right, strict=True)
        ]
        print_line(("  ".join(padded).rstrip(), style))
