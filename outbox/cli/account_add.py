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
from outbox.core.presets import PRESETS, Preset, Provider
from outbox.oauth.setup import MECHANISMS

if TYPE_CHECKING:
    from outbox.core.limits import Limit
    from outbox.core.secret import Secret
    from outbox.vault import Vault

app = typer.Typer(help="Relays and logins, and the pauses of each.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.")]
Username = Annotated[str, typer.Option("--username", help="Log in with this name; the password is asked for.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read it from standard input.")]
FromFile = Annotated[
    Path | None, typer.Option("--password-file", metavar="FILE", help="Read the password from a file.")
]


@app.command()
def add(
    ctx: typer.Context,
    name: Name,
    relay: Annotated[
        str, typer.Option("--relay", metavar="HOST:PORT", help="smtp.example.com:587, [::1]:25", show_default=False)
    ] = "",
    tls: Annotated[
        Tls | None, typer.Option("--tls", help="implicit (465), starttls (587), none (on this machine only).")
    ] = None,
    username: Username = "",
    password_stdin: FromStdin = False,
    password_file: FromFile = None,
    mechanism: Annotated[Mechanism | None, typer.Option("--mechanism", help="How to log in; else auto.")] = None,
    connections: Annotated[
        int | None, typer.Option("--connections", min=1, max=100, help="At a time, by one runner; else 3.")
    ] = None,
    messages: Annotated[
        int | None, typer.Option("--messages", min=1, max=100_000, help="Over one connection; else 100.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", metavar="FILE", help="PEM file of the only authorities to trust.")
    ] = None,
    tls_pin: Annotated[
        list[str] | None,
        typer.Option("--tls-pin", metavar="SHA256", help="Trust only the certificate with this hash. Repeatable."),
    ] = None,
    preset: Annotated[
        Provider | None, typer.Option("--preset", help="A provider: its relay, login and limits, unless given here.")
    ] = None,
    region: Annotated[str, typer.Option("--region", metavar="NAME", help="Of a preset: eu-central-1.")] = "",
) -> None:
    """Add an account: a relay, and how to log in to it. With --username, its password is sealed and stored."""
    facts = PRESETS[preset] if preset is not None else Preset("", (), "")
    if preset is None and (not relay or tls is None):
        raise typer.BadParameter("give --relay and --tls, or a --preset")
    if preset is None and region:
        raise typer.BadParameter("a region belongs to a --preset", param_hint="--region")
    tls = tls if tls is not None else facts.tls
    new = Account(
        _name(name),
        *_relay(relay or _preset_relay(facts, region), tls),
        tls,
        mechanism if mechanism is not None else facts.mechanism,
        username,
        ca_file=str(_existing(ca_file)) if ca_file is not None else "",
        tls_pins=" ".join(dict.fromkeys(parse_pin(each) for each in tls_pin or ())),
        max_connections=connections if connections is not None else facts.connections,
        max_messages=messages if messages is not None else facts.messages,
    )
    if new.tls_pins and new.tls is Tls.NONE:
        raise typer.BadParameter("without TLS a relay shows no certificate", param_hint="--tls-pin")
    limit = facts.limit(new.name) if preset is not None else None
    new = _store(ctx, new, limit, password_stdin=password_stdin, password_file=password_file)
    output.say(
        f"added account {new.name}: {new.relay} ({new.tls})" + (f", logging in as {username}" if username else "")
    )
    if preset is not None:
        _tell(preset, facts, new)
    first = "test" if new.mechanism not in MECHANISMS else "oauth"
    output.note(f"next: outbox account {first} {new.name}; outbox sender add ADDRESS --account {new.name}")


def _store(
    ctx: typer.Context, new: Account, limit: Limit | None, *, password_stdin: bool, password_file: Path | None
) -> Account:
    """Store it with its password and its limits, together."""
    from outbox.store import accounts, limits

    session = session_of(ctx)
    tokens = new.mechanism in MECHANISMS
    if (password_stdin or password_file) and not new.username:
        raise typer.BadParameter("a password needs a --username")
    if tokens and (not new.username or password_stdin or password_file):
        raise typer.BadParameter(f"{new.mechanism} needs a --username, and takes access tokens instead of a password")
    with session.database() as db:
        accounts.check_new(db, new)
        if new.username and not tokens:
            vault = session.vault  # before anybody types a password in vain
            secret = password(prompt(new), from_stdin=password_stdin, from_file=password_file)
            new = sealed(new, vault, secret)
        with db.atomic():
            accounts.add_account(db, new, session.act())
            if limit is not None:
                limits.set_limit(db, limit, session.act())
    return new


def _tell(provider: Provider, facts: Preset, new: Account) -> None:
    """What a preset has set, and who says that it is right."""
    limit = facts.limit(new.name)
    rates = [f"{most} {span.words}" for span, most in limit.rates()]
    rates += [f"{limit.connections} connections together"] if limit.connections is not None else []
    output.say(
        f"preset {provider}: mechanism {new.mechanism}, {new.max_connections} connections a runner,"
        f" {new.max_messages} messages a connection; limits: {', '.join(rates)}"
    )
    output.note(facts.note)
    output.note(f"as of {facts.read}: {' '.join(facts.sources)}")
    output.note(f"to change the limits: outbox limit set account {new.name} --per-day N")


def _preset_relay(facts: Preset, region: str) -> str:
    try:
        return f"{facts.relay_host(region)}:{facts.port}"
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--region") from None


def parse_pin(text: str) -> str:
    """The SHA-256 of a certificate, as OpenSSL and browsers show it, with colons or without: 64 hex digits in lower
    case. A usage error otherwise.
    """
    pin = text.replace(":", "").lower()
    if len(pin) != 64 or not set(pin) <= set("0123456789abcdef"):
        raise typer.BadParameter(
            f"{text!r} is not a SHA-256 in hex: openssl x509 -in FILE -noout -fingerprint -sha256",
            param_hint="--tls-pin",
        )
    return pin


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
