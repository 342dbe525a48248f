"""``outbox events``: what happened to mail, in order, once or as it happens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from threading import Event as Bell
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox.cli import output
from outbox.cli.session import session_of

if TYPE_CHECKING:
    import peewee

    from outbox.store.events import Event

app = typer.Typer()

_LOOK_EVERY = 0.5  # seconds
_UNSETTLED = timedelta(seconds=10)
"""On PostgreSQL an event may appear behind one with a higher id, for as long as its transaction takes."""
_AT_ONCE = 500


@app.command()
def events(
    ctx: typer.Context,
    since: Annotated[int | None, typer.Option("--since", metavar="ID", min=0, help="Only what came after it.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="Such as bounced, or bounced,expired.")
    ] = None,
    message: Annotated[int | None, typer.Option("--message", metavar="ID", help="Only of this message.")] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=100_000, help="At most this many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, and show what happens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; with --follow, one event a line.")] = False,
) -> None:
    """Show events: the newest, or with --since the next ones."""
    from outbox.store import events as stored

    which: dict[str, Any] = {"kinds": _kinds(kind or ()), "message_id": message}
    with session_of(ctx).database() as db:
        if since is None:
            found = stored.newest(db, limit=limit, **which)
        else:
            found = stored.listing(db, since=since, limit=limit, **which)
        if not follow:
            _show(db, found, as_json=as_json)
            return
        before = since if since is not None else found[0].id - 1 if found else stored.latest(db)
        _follow(db, found, before, which, as_json=as_json)


def _kinds(given: Sequence[str]) -> list[str]:
    from outbox.store.events import Kind

    words = [word.strip().lower() for text in given for word in text.split(",") if word.strip()]
    for word in words:
        if word not in list(Kind):
            raise typer.BadParameter(f"{word!r} is not one of {', '.join(Kind)}", param_hint="--kind")
    return words


def _show(db: peewee.Database, found: Sequence[Event], *, as_json: bool) -> None:
    if as_json:
        output.show_json(list(_facts(db, found)))
        return
    rows = [(each.id, each.at, each.kind, _about(each), _said(each)) for each in found]
    output.show_table(("id", "at", "kind", "about", "reply"), rows, empty="no events")


def _follow(db: peewee.Database, found: Sequence[Event], since: int, which: dict[str, Any], *, as_json: bool) -> None:
    """Print what has been found, and what comes, until Ctrl-C. What has just been shown is read again and not shown
    again, in case one with a lower id appears behind it.
    """
    from outbox.store import audit
    from outbox.store import events as stored

    shown: dict[int, Event] = {}
    while True:
        fresh = [each for each in found if each.id not in shown]
        _print_lines(db, fresh, as_json=as_json)
        shown.update((each.id, each) for each in fresh)
        settled = [each.id for each in shown.values() if each.at < audit.now(db) - _UNSETTLED]
        since = max([since, *settled])
        shown = {each: event for each, event in shown.items() if each > since}
        if len(fresh) < _AT_ONCE:
            Bell().wait(_LOOK_EVERY)
        found = stored.listing(db, since=since, limit=_AT_ONCE + len(shown), **which)


def _print_lines(db: peewee.Database, found: Sequence[Event], *, as_json: bool) -> None:
    if as_json:
        for facts in _facts(db, found):
            print(json.dumps(facts), flush=True)
        return
    for each in found:
        words = (str(each.id), output.iso(each.at), f"{each.kind:<8}", _about(each), _said(each))
        print(output.cell("  ".join(words)).rstrip(), flush=True)


def _facts(db: peewee.Database, found: Sequence[Event]) -> Iterator[dict[str, Any]]:
    """As a webhook gets them."""
    from outbox.runner.telling.webhook import as_json
    from outbox.store import feedback

    for start in range(0, len(found), _AT_ONCE):
        some = found[start : start + _AT_ONCE]
        facts = feedback.facts(db, {each.message_id for each in some if each.message_id is not None})
        yield from (as_json(each, facts) for each in some)


def _about(event: Event) -> str:
    return event.subject or f"message {event.message_id}"


def _said(event: Event) -> str:
    from outbox.cli.phrases import reply_words

    return reply_words(event.code, event.status, event.reply)
