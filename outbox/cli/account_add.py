"""``outbox account add``: a new relay and login.

A password comes from a prompt, standard input or a file; it is never an argument, where `ps` and the shell's history
show it, and never printed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outbox.cli import output
from outbox.cli.session import password, session_of
from outbox.core.account import Account, Mechanism, Tls, parse_relay
from outbox.oauth.setup import MECHANISMS

if TYPE_CHECKING:
    from outbox.core.secret import Secret
    from outbox.vault import Vault

app = typer.Typer(help="Relays and logins, and the pauses of each.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The account's name.")]
Username = Annotated[str, typer.Option("--username", help="Log in with this name; the password is asked for.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read it from standard input.")]
FromFile = Annotated[
    Path | None, typer.Option("--password-file", metavar="FILE", help="Read the password from a file.")
]


@app.command()
def add(
    ctx: typer.Context,
    name: Name,
    relay: Annotated[str, typer.Option("--relay", metavar="HOST:PORT", help="smtp.example.com:587, [::1]:25")],
    tls: Annotated[Tls, typer.Option("--tls", help="implicit (465), starttls (587), none (on this machine only).")],
    username: Username = "",
    password_stdin: FromStdin = False,
    password_file: FromFile = None,
    mechanism: Annotated[Mechanism, typer.Option("--mechanism", help="How to log in.")] = Mechanism.AUTO,
    connections: Annotated[int, typer.Option("--connections", min=1, max=100, help="At a time, by one runner.")] = 3,
    messages: Annotated[int, typer.Option("--messages", min=1, max=100_000, help="Over one connection.")] = 100,
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", metavar="FILE", help="PEM file of the only authorities to trust.")
    ] = None,
) -> None:
    """Add an account: a relay, and how to log in to it. With --username, its password is sealed and stored."""
    from outbox.store import accounts

    session = session_of(ctx)
    new = Account(
        _name(name),
        *_relay(relay, tls),
        tls,
        mechanism,
        username,
        ca_file=str(_existing(ca_file)) if ca_file is not None else "",
        max_connections=connections,
        max_messages=messages,
    )
    if (password_stdin or password_file) and not username:
        raise typer.BadParameter("a password needs a --username")
    if mechanism in MECHANISMS and (not username or password_stdin or password_file):
        raise typer.BadParameter(f"{mechanism} needs a --username, and takes access tokens instead of a password")
    with session.database() as db:
        accounts.check_new(db, new)
        if username and mechanism not in MECHANISMS:
            vault = session.vault  # before anybody types a password in vain
            secret = password(prompt(new), from_stdin=password_stdin, from_file=password_file)
            new = sealed(new, vault, secret)
        with db.atomic():
            accounts.add_account(db, new, session.act())
    output.say(
        f"added account {new.name}: {new.relay} ({new.tls})" + (f", logging in as {username}" if username else "")
    )
    first = "test" if mechanism not in MECHANISMS else "oauth"
    output.note(f"next: outbox account {first} {new.name}; outbox sender add ADDRESS --account {new.name}")


def sealed(account: Account, vault: Vault, secret: Secret) -> Account:
    from outbox.vault import Binding

    return replace(account, secret=vault.seal(secret, Binding.of(account)), key_id=vault.key_id)


def prompt(account: Account) -> str:
    return f"Password of {account.username} at {account.relay} ({account.tls})"


def _name(name: str) -> str:
    if (
        not name
        or len(name) > 100
        or not all(letter.isalnum() or letter in "._@-" for letter in name)
        or name[0] == "-"
    ):
        raise typer.BadParameter("a name is letters, digits, dots, hyphens, underscores and @", param_hint="NAME")
    return name


def _relay(text: str, tls: Tls) -> tuple[str, int]:
    try:
        return parse_relay(text, tls)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--relay") from None


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise typer.BadParameter(f"there is no file {file}", param_hint="--ca-file")
    return file.absolute()
