"""``outbox user …``: who may hand over mail to `outbox smtpd`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outbox.cli import output
from outbox.cli.session import password, session_of

if TYPE_CHECKING:
    from outbox.clock import Clock
    from outbox.core.secret import Secret

app = typer.Typer(help="Who may hand over mail to outbox smtpd.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="What the client logs in as.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
FromFile = Annotated[Path | None, typer.Option("--password-file", help="Read it from a file.")]


@app.command()
def add(
    ctx: typer.Context,
    name: Name,
    sender: Annotated[
        list[str] | None, typer.Option(help="May send from: an address, *@domain; else all that are registered.")
    ] = None,
    password_stdin: FromStdin = False,
    password_file: FromFile = None,
) -> None:
    """Add a user. The password is asked for."""
    from outbox.cli.sender import registrable
    from outbox.core.user import User
    from outbox.store import accounts, users

    session = session_of(ctx)
    if not (0 < len(name) <= 100 and name.isprintable() and name == name.strip()):
        raise typer.BadParameter("1 to 100 printable characters, without spaces around them", param_hint="NAME")
    senders = tuple(registrable(each, "--sender") for each in sender or ())
    secret = password(f"Password of {name}", password_stdin, password_file)
    new = User(name, _hashed(secret, session.clock), senders)
    with session.database() as db, db.atomic():
        users.add_user(db, new, session.act())
        unregistered = [each for each in senders if accounts.covering(db, each) is None]
    output.say(f"added user {name}")
    for each in unregistered:
        output.note(f"next: outbox sender add {shlex.quote(each)} --account NAME; until then its mail is refused")


@app.command("list")
def list_(ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the users, and from which addresses each may send."""
    from outbox.store import users

    with session_of(ctx).database() as db:
        known = users.users(db)
    if as_json:
        output.show_json([{"name": each.name, "senders": list(each.senders)} for each in known])
        return
    output.show_table(
        ("name", "senders"),
        [(each.name, ", ".join(each.senders) or "all registered") for each in known],
        empty="there are no users; outbox user add NAME",
    )


@app.command("password")
def password_(
    ctx: typer.Context, name: Name, password_stdin: FromStdin = False, password_file: FromFile = None
) -> None:
    """Give a user a new password."""
    from outbox.store import users

    session = session_of(ctx)
    secret = password(f"New password of {name}", password_stdin, password_file)
    with session.database() as db, db.atomic():
        users.set_password(db, name, _hashed(secret, session.clock), session.act())
    output.say(f"changed the password of {name}")


@app.command()
def remove(ctx: typer.Context, name: Name) -> None:
    """Let a user hand over nothing any more."""
    from outbox.store import users

    session = session_of(ctx)
    with session.database() as db, db.atomic():
        users.remove_user(db, name, session.act())
    output.say(f"removed user {name}")


def _hashed(secret: Secret, clock: Clock) -> str:
    from outbox.core.user import hashed

    return hashed(secret, clock.token())
