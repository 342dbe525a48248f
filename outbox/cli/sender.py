"""``outbox sender …``: the addresses that may send, and the account of each. What is not registered here is refused."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox.cli import output, pauses
from outbox.cli.account import Json, until_of
from outbox.cli.dkim import dkim
from outbox.cli.session import confirm, session_of
from outbox.core.account import Sender

if TYPE_CHECKING:
    from outbox.core.account import Registry

app = typer.Typer(help="The addresses that may send, and the account of each.", no_args_is_help=True)
app.command()(dkim)

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="shop@example.com, or *@example.com (in quotes).")]


@app.command()
def add(
    ctx: typer.Context,
    address: Address,
    account: Annotated[str, typer.Option("--account", help="Through which its mail leaves.")],
    name: Annotated[str, typer.Option("--name", help="Display name of mails that give none.")] = "",
    return_path: Annotated[
        str, typer.Option("--return-path", metavar="ADDRESS", help="Where bounces go; registered to the same account.")
    ] = "",
) -> None:
    """Register an address, or every address of a domain, to an account."""
    from outbox.store import senders

    session = session_of(ctx)
    new = Sender(
        registrable(address),
        account,
        _display_name(name),
        registrable(return_path, "--return-path", whole_domain=False) if return_path else "",
    )
    with session.database() as db, db.atomic():
        senders.add_sender(db, new, session.act())
    output.say(f"registered {new.address} to account {account}")


@app.command("list")
def list_(
    ctx: typer.Context,
    account: Annotated[str, typer.Option("--account", help="Only those of this account.")] = "",
    as_json: Json = False,
) -> None:
    """List the senders, and why any of them may not send."""
    from outbox.store import accounts

    session = session_of(ctx)
    with session.database() as db:
        known = accounts.registry(db)
        found = sorted((each for each in known.senders.values() if account in ("", each.account)), key=_by_domain)
        failed = {each.address: pauses.failed_by_brake(db, each) for each in found}
    now = session.clock.now()
    if as_json:
        output.show_json([_facts(each, known, failed[each.address], now) for each in found])
        return
    output.show_table(
        ("address", "account", "name", "return path", "state"),
        [
            (each.address, each.account, each.display_name, each.return_path, _blocked(each, known, now) or "ready")
            for each in found
        ],
        empty="there are no senders; outbox sender add ADDRESS --account NAME",
    )
    for each in found:
        if failed[each.address]:
            output.note(pauses.note(f"sender {each.address}", each, failed[each.address]))


@app.command()
def pause(
    ctx: typer.Context,
    address: Address,
    reason: Annotated[str, typer.Option("--reason", help="For the others, and for the journal.")] = "paused",
    duration: Annotated[str, typer.Option("--for", metavar="TIME", help="Such as 2h; else until `resume`.")] = "",
) -> None:
    """Send nothing from this address, or from this domain; its mail waits."""
    from outbox.store import senders

    session = session_of(ctx)
    until = until_of(duration, session.clock.now())
    with session.database() as db, db.atomic():
        senders.pause_sender(db, address, reason, until, session.act())
    output.say(f"paused {address}" + (f" until {output.cell(until)}" if until else ""))


@app.command()
def resume(ctx: typer.Context, address: Address) -> None:
    """Lift the pause of an address or domain."""
    from outbox.store import senders

    session = session_of(ctx)
    with session.database() as db, db.atomic():
        senders.resume_sender(db, address, session.act())
    output.say(f"resumed {address}")


@app.command()
def remove(
    ctx: typer.Context, address: Address, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Take an address or domain out of the register. Its mail fails from then on."""
    from outbox.store import accounts, senders

    session = session_of(ctx)
    with session.database() as db:
        found = accounts.sender(db, address)
        rest = _others(found, accounts.senders(db))
        covered = bool(rest) and not found.address.startswith("*@")
        waiting = accounts.waiting(db, found.address)
        fate = "still have a sender" if covered else "will fail"
        confirm(f"Remove {found.address}? {waiting} of its messages are waiting, and {fate}.", yes=yes)
        with db.atomic():
            senders.remove_sender(db, found.address, session.act())
    output.say(f"removed {found.address}")
    if rest:
        output.note(f"still registered: {', '.join(rest)}")


def _others(removed: Sender, senders: list[Sender]) -> list[str]:
    """What of the same domain stays: the addresses registered by themselves, or the domain that covers this one."""
    domain = removed.address.rpartition("@")[2]
    if removed.address.startswith("*@"):
        return [each.address for each in senders if each.address.endswith(f"@{domain}") and each != removed]
    return [each.address for each in senders if each.address == f"*@{domain}"]


def registrable(text: str, option: str = "ADDRESS", *, whole_domain: bool = True) -> str:
    """An address as it is registered: a bare address or, where allowed, ``*@domain``. A usage error otherwise."""
    from outbox.core.account import fold
    from outbox.core.address import ascii_domain, parse_address

    try:
        if whole_domain and text.startswith("*@"):
            ascii_domain(text[2:])
            return fold(text)
        parsed = parse_address(text)
        if parsed.local == "*":
            raise ValueError("a whole domain cannot stand here")
        if parsed.name:
            raise ValueError("give the bare address; the display name goes into --name")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    return fold(parsed.email)


def _display_name(name: str) -> str:
    if any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in name) or len(name) > 200:
        raise typer.BadParameter("a display name is one line of at most 200 characters", param_hint="--name")
    return name


def _by_domain(sender: Sender) -> tuple[str, str]:
    local, _, domain = sender.address.rpartition("@")
    return domain, local


def _blocked(sender: Sender, known: Registry, now: datetime) -> str:
    """Why it may not send: its own pause, that of its domain, that of its account, its relay."""
    route = known.resolve(sender.address)
    return (
        route.blocked(now) if route is not None else sender.blocked(now) or known.accounts[sender.account].blocked(now)
    )


def _facts(sender: Sender, known: Registry, failed: list[int], now: datetime) -> dict[str, Any]:
    return {
        "address": sender.address,
        "account": sender.account,
        "display_name": sender.display_name,
        "return_path": sender.return_path,
        **pauses.facts(sender, failed, now),
        "blocked": _blocked(sender, known, now),
        "created_at": sender.created_at,
    }
