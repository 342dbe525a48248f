"""``outbox suppress …``: whom nobody writes to any more."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox.cli import output
from outbox.cli.account import Json, until_of
from outbox.cli.session import session_of
from outbox.errors import Refused

if TYPE_CHECKING:
    from outbox.core.suppression import Listed, Suppression

app = typer.Typer(help="Addresses and domains that nothing is sent to.", no_args_is_help=True)

MAX_BAD = 20
"""Bad lines that are shown one by one."""

Addresses = Annotated[
    list[str], typer.Argument(metavar="ADDRESS…", help="ann@example.net, or *@example.net (in quotes).")
]
Reason = Annotated[str, typer.Option("--reason", help="For the others: it is the reply of what is not sent.")]
For = Annotated[str, typer.Option("--for", metavar="TIME", help="Such as 30d; else for good.")]


@app.command()
def add(ctx: typer.Context, addresses: Addresses, reason: Reason = "by request", duration: For = "") -> None:
    """Send nothing to these addresses, or domains, from now on. Those that are there get the new reason and end."""
    from outbox.core.suppression import Suppression
    from outbox.store import suppression

    session = session_of(ctx)
    act = session.act()
    until = until_of(duration, act.at)
    patterns = _patterns(addresses)
    why = _reason(reason)
    with session.database() as db, db.atomic():
        suppression.add(db, [Suppression(each, why, until) for each in patterns], act)
    for each in patterns:
        output.say(f"suppressed {each}" + (f" until {output.cell(until)}" if until else ""))


@app.command("list")
def list_(
    ctx: typer.Context,
    matching: Annotated[str, typer.Option("--matching", metavar="TEXT", help="In the address or the reason.")] = "",
    as_json: Json = False,
) -> None:
    """List who is suppressed, and why."""
    from outbox.store import suppression

    session = session_of(ctx)
    with session.database() as db:
        found = suppression.listed(db, matching)
    now = session.clock.now()
    if as_json:
        output.show_json([_facts(each, now) for each in found])
        return
    output.show_table(
        ("address", "since", "until", "reason"),
        [(each.address, each.created_at, _until(each, now), each.reason) for each in found],
        empty="nobody is suppressed" + (f" that matches {matching!r}" if matching else ""),
    )


@app.command()
def remove(ctx: typer.Context, addresses: Addresses) -> None:
    """Send to these addresses, or domains, again. What was not sent to them meanwhile: outbox retry."""
    from outbox.core.address import wildcard
    from outbox.store import suppression

    session = session_of(ctx)
    act = session.act()
    patterns = _patterns(addresses)
    with session.database() as db:
        with db.atomic():
            removed = suppression.remove(db, patterns, act)
        still = suppression.suppressed(db, [each for each in patterns if not each.startswith("*@")], act.at)
    for each in removed:
        output.say(f"no longer suppressed: {each}")
    missing = [each for each in patterns if each not in removed]
    for each in patterns:
        if each in still:
            output.note(f"{each} stays suppressed, by {wildcard(each)}")
    if missing:
        raise Refused(f"not suppressed: {', '.join(missing)}", hint="`outbox suppress list` shows who is")


@app.command("import")
def import_(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="- reads standard input.")],
    reason: Annotated[str, typer.Option("--reason", help="Of new entries that have none.")] = "imported",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Take the good lines, where some are bad.")] = False,
    as_json: Json = False,
) -> None:
    """Suppress a whole file: an address a line, or CSV with a first line address,reason,until. It may come again."""
    from outbox.store import suppression

    session = session_of(ctx)
    why = _reason(reason)
    listed = _read(file)
    _complain(file, listed, skip_bad=skip_bad)
    with session.database() as db:
        entries = listed.entries
        done = suppression.bring_in(
            db, entries, session.act(), source=file, reason=why, progress=_progress(len(entries))
        )
    if as_json:
        output.show_json({"new": done.new, "changed": done.changed, "same": done.same, "bad": len(listed.bad)})
    else:
        output.say(f"{done.new:,} new, {done.changed:,} changed, {done.same:,} as they were")


def _read(file: str) -> Listed:
    from outbox.core.suppression import read_list

    # Whatever is not UTF-8 becomes a surrogate, which no address has: the line is reported with its number.
    if file == "-":
        return read_list(line.decode("utf-8", "surrogateescape") for line in sys.stdin.buffer)
    try:
        with Path(file).open(encoding="utf-8", errors="surrogateescape") as opened:
            return read_list(opened)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror}", param_hint="FILE") from None


def _complain(file: str, listed: Listed, *, skip_bad: bool) -> None:
    """Name the bad lines. Raises Refused, unless they may be skipped."""
    label = "skipped" if skip_bad else "error"
    for number, fault in listed.bad[:MAX_BAD]:
        output.note(f"{label}: {file}, line {number}: {output.cell(fault)}")
    if len(listed.bad) > MAX_BAD:
        output.note(f"{label}: and {len(listed.bad) - MAX_BAD:,} more lines")
    if listed.bad and not skip_bad:
        lines = "1 line is" if len(listed.bad) == 1 else f"{len(listed.bad):,} lines are"
        raise Refused(f"nothing was imported: {lines} bad", hint="correct them, or take the others with --skip-bad")


def _progress(total: int) -> Callable[[int], None]:
    """Say on a terminal how far it is, on one line."""

    def show(done: int) -> None:
        print(f"\r{done:,} of {total:,}", end="" if done < total else "\n", file=sys.stderr, flush=True)

    return show if sys.stderr.isatty() else lambda done: None


def _patterns(addresses: Sequence[str]) -> list[str]:
    from outbox.core.suppression import pattern_of

    try:
        return list(dict.fromkeys(pattern_of(each) for each in addresses))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="ADDRESS") from None


def _reason(text: str) -> str:
    from outbox.core.reply import sanitise
    from outbox.core.suppression import MAX_REASON

    reason = sanitise(text, limit=0)
    if not reason or reason != sanitise(text, limit=MAX_REASON):
        raise typer.BadParameter(f"a reason is one line of 1 to {MAX_REASON} bytes", param_hint="--reason")
    return reason


def _until(entry: Suppression, now: datetime) -> object:
    if entry.until is None:
        return "for good"
    return f"{output.cell(entry.until)}{' (over)' if entry.is_over(now) else ''}"


def _facts(entry: Suppression, now: datetime) -> dict[str, Any]:
    return {
        "address": entry.address,
        "reason": entry.reason,
        "until": entry.until,
        "active": not entry.is_over(now),
        "created_at": entry.created_at,
    }
