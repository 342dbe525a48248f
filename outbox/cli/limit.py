"""``outbox limit …``: how much accounts, senders and recipient domains may send. Limits delay, and never hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox.cli import output
from outbox.cli.session import session_of
from outbox.core.limits import Limit, Limited, Span, Window, free, next_free, used
from outbox.core.limits import connections as many

if TYPE_CHECKING:
    from outbox.store.opened import Database

app = typer.Typer(help="How much may be sent in a minute, an hour, a day.", no_args_is_help=True)

Scope = Annotated[Limited, typer.Argument(metavar="SCOPE", help="account, sender or domain (of recipients).")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The account, the sender's address, or the domain.")]
Most = Annotated[int | None, typer.Option("--connections", min=0, help="At a time, by all runners; 0 lifts it.")]
PerMinute = Annotated[int | None, typer.Option("--per-minute", min=0, help="Recipients in a minute; 0 lifts it.")]
PerHour = Annotated[int | None, typer.Option("--per-hour", min=0, help="Recipients in an hour; 0 lifts it.")]
PerDay = Annotated[int | None, typer.Option("--per-day", min=0, help="Recipients in a day; 0 lifts it.")]


@app.command("set")
def set_(
    ctx: typer.Context,
    scope: Scope,
    name: Name,
    connections: Most = None,
    per_minute: PerMinute = None,
    per_hour: PerHour = None,
    per_day: PerDay = None,
) -> None:
    """Limit an account, a sender or a domain. What is not given stays as it is."""
    from outbox.store import limits

    session = session_of(ctx)
    name = _folded(scope, name)
    given = {"connections": connections, "per_minute": per_minute, "per_hour": per_hour, "per_day": per_day}
    changes: dict[str, Any] = {key: value or None for key, value in given.items() if value is not None}
    if not changes:
        raise typer.BadParameter("give --connections, --per-minute, --per-hour or --per-day")
    with session.database() as db, db.atomic():
        changed = replace(_known(db, scope, name) or Limit(scope, name), **changes)
        limits.set_limit(db, changed, session.act())
    output.say(f"limited {scope} {name}: {_words(changed)}")


@app.command("list")
def list_(ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the limits, how much of each is used, and when there is room again."""
    from outbox.store import limits

    session = session_of(ctx)
    with session.database() as db:
        known = limits.limits(db)
        windows = limits.usage(db, known)
    now = session.clock.now()
    if as_json:
        output.show_json([_facts(each, windows, now) for each in known])
        return
    output.show_table(
        ("scope", "name", "connections", "minute", "hour", "day", "next free"),
        [
            (
                each.scope,
                each.name,
                each.connections,
                *(_share_of(each, span, windows, now) for span in Span),
                _next_free(each, windows, now) or "now",
            )
            for each in known
        ],
        empty="nothing is limited; outbox limit set account NAME --per-day N",
    )


@app.command()
def remove(ctx: typer.Context, scope: Scope, name: Name) -> None:
    """Lift all limits of an account, a sender or a domain."""
    from outbox.store import limits

    session = session_of(ctx)
    name = _folded(scope, name)
    with session.database() as db, db.atomic():
        limits.remove_limit(db, scope, name, session.act())
    output.say(f"lifted the limits of {scope} {name}")
    if scope is Limited.DOMAIN:
        output.note("mail that was put off keeps its due time; to send one now: outbox retry ID")


def _known(db: Database, scope: Limited, name: str) -> Limit | None:
    from outbox.store import limits

    return next((each for each in limits.limits(db) if each.key == (scope, name)), None)


def _folded(scope: Limited, name: str) -> str:
    """The name as it is stored: addresses and domains in lower case, domains in ASCII."""
    if scope is Limited.ACCOUNT:
        return name
    if scope is Limited.SENDER:
        from outbox.cli.sender import registrable

        return registrable(name, "NAME")
    from outbox.core.address import ascii_domain

    try:
        return ascii_domain(name).lower()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from None


def _words(limit: Limit) -> str:
    words = [many(limit.connections)] if limit.connections is not None else []
    return ", ".join([*words, *(f"{most} {span.words}" for span, most in limit.rates())])


def _share_of(limit: Limit, span: Span, windows: _Windows, now: datetime) -> str:
    """``12/30``: so many of so many."""
    most = dict(limit.rates()).get(span)
    return "" if most is None else f"{used(_window(limit, span, windows, now), span, now)}/{most}"


def _next_free(limit: Limit, windows: _Windows, now: datetime) -> datetime | None:
    """When one more may go; None for now."""
    waits = [
        next_free(window, span, most, 1, now)
        for span, most in limit.rates()
        if not free(window := _window(limit, span, windows, now), span, most, now)
    ]
    return max(waits, default=None)


def _window(limit: Limit, span: Span, windows: _Windows, now: datetime) -> Window:
    return windows.get((*limit.key, span), Window(now))


def _facts(limit: Limit, windows: _Windows, now: datetime) -> dict[str, Any]:
    return {
        "scope": limit.scope,
        "name": limit.name,
        "connections": limit.connections,
        "per_minute": limit.per_minute,
        "per_hour": limit.per_hour,
        "per_day": limit.per_day,
        "used": {str(span): used(_window(limit, span, windows, now), span, now) for span, _ in limit.rates()},
        "next_free": _next_free(limit, windows, now),
    }


_Windows = dict[tuple[Limited, str, Span], Window]
