"""``outbox account …``: relays and logins; `add` is in `account_add.py`, `oauth` and `login` in `oauth.py`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox.cli import account_add, oauth, output, pauses
from outbox.cli.account_add import FromFile, FromStdin, Name, Username, prompt, sealed
from outbox.cli.session import confirm, password, session_of
from outbox.core.account import Account, Tls
from outbox.core.units import parse_duration
from outbox.errors import Refused
from outbox.oauth.setup import MECHANISMS

if TYPE_CHECKING:
    from outbox.core.outcome import Report
    from outbox.smtp.connection import Relay

app = account_add.app
app.add_typer(oauth.app)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

TEST_FAILED = 7
TEST_PATIENCE = 10.0
"""Seconds that a test waits for each answer."""


@app.command("list")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the accounts, and why any of them may not send."""
    from outbox.cli.checks.pauses import remedy
    from outbox.store import accounts

    session = session_of(ctx)
    with session.database() as db:
        known = accounts.registry(db)
        found = sorted(known.accounts.values(), key=lambda each: each.name)
        failed = {each.name: pauses.failed_by_brake(db, each) for each in found}
    now = session.clock.now()
    registered = {each.name: [s.address for s in known.senders.values() if s.account == each.name] for each in found}
    if as_json:
        output.show_json([_facts(each, sorted(registered[each.name]), failed[each.name], now) for each in found])
        return
    output.show_table(
        ("name", "relay", "tls", "login", "senders", "state"),
        [
            (each.name, each.relay, each.tls, each.username, len(registered[each.name]), _standing(each, now))
            for each in found
        ],
        empty="there are no accounts; outbox account add NAME --relay HOST:PORT --tls starttls --username USER",
    )
    for each in found:
        if failed[each.name]:
            output.note(pauses.note(f"account {each.name}", each, failed[each.name]))
        if each.blocked(now):
            output.note(f"to end the pause of account {each.name}: {remedy(each)}")


@app.command()
def show(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """Show one account: everything but its password."""
    from outbox.cli.checks.pauses import remedy
    from outbox.store import accounts

    session = session_of(ctx)
    with session.database() as db:
        found = accounts.account(db, name)
        senders = [each.address for each in accounts.senders(db, name)]
        tokens = oauth.standing(db, found)
        failed = pauses.failed_by_brake(db, found)
    now = session.clock.now()
    if as_json:
        output.show_json({**_facts(found, senders, failed, now), **({"oauth": tokens.facts} if tokens.words else {})})
        return
    output.show_record(
        {
            "name": found.name,
            "relay": found.relay,
            "tls": found.tls,
            "login": found.username,
            "mechanism": found.mechanism,
            "password": f"sealed with key {found.key_id}" if found.secret else "none",
            **({"oauth": tokens.words} if tokens.words else {}),
            "password version": found.credential_version,
            "authorities": found.ca_file or "the system's",
            **({"pinned certificates": found.tls_pins.split()} if found.tls_pins else {}),
            "connections": found.max_connections,
            "messages per connection": found.max_messages,
            "state": _standing(found, now),
            **({"to end it": remedy(found)} if found.blocked(now) else {}),
            **({"brake": found.brake} if found.brake else {}),
            **({"failed by a brake": pauses.retry(failed)} if failed else {}),
            "relay failures": found.breaker_failures,
            "created": found.created_at,
            "senders": senders,
        }
    )


@app.command()
def set_password(
    ctx: typer.Context,
    name: Name,
    username: Username = "",
    password_stdin: FromStdin = False,
    password_file: FromFile = None,
) -> None:
    """Store a new password for the account as it is now, and lift a pause that the old one caused."""
    from outbox.store import accounts

    session = session_of(ctx)
    with session.database() as db:
        found = accounts.account(db, name)
        changed = replace(found, username=username or found.username)
        if not changed.username:
            raise Refused(f"account {name} has no login", hint=f"outbox account set-password {name} --username USER")
        if found.mechanism in MECHANISMS:
            words = f"account {name} logs in by {found.mechanism}, which takes access tokens and no password"
            raise Refused(words, hint=f"outbox account oauth {name}")
        vault = session.vault
        changed = sealed(changed, vault, password(prompt(changed), from_stdin=password_stdin, from_file=password_file))
        with db.atomic():
            accounts.set_password(db, changed, session.act())
        still = accounts.account(db, name).blocked(session.clock.now())
    # Where it will be sent is said again: it is how one notices that somebody has changed the relay.
    output.say(f"stored the password of {changed.username} at {changed.relay} ({changed.tls}) for account {name}")
    if still:
        output.note(f"{still}; to lift that: outbox account resume {name}")


@app.command("test")
def try_out(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """Connect, secure and log in, without sending anything. Ends with 7 if the relay, or the way to it, says no."""
    import asyncio

    from outbox.core.secret import Secret
    from outbox.smtp.connection import Relay
    from outbox.store import accounts

    session = session_of(ctx)
    with session.database() as db:
        found = accounts.account(db, name)
        if found.mechanism in MECHANISMS:
            secret = oauth.access_token(session, db, found)
        else:
            secret = session.vault.open_account(found) if found.secret else Secret()
    relay = Relay.of(found, helo=session.config.helo, password=secret, networks=session.config.networks())
    report, peer, security = asyncio.run(_try(relay))
    words = "" if report is None else str(report.reply) if report.reply is not None else report.fault
    stage = "" if report is None else str(report.stage)
    if as_json:
        facts = {
            "account": name,
            "ok": report is None,
            "relay": peer,
            "tls": security or None,
            "stage": stage,
            "reply": words,
        }
        output.show_json(facts)
    elif report is None:
        login = f"logged in as {found.username}" if found.username else "no login"
        output.say(f"account {name} works: {peer}, {security or 'no TLS'}, {login}")
    if report is not None:
        output.note(f"error: account {name}: {stage}: {output.cell(words)}")
        if hint := _remedy(found, stage, words):
            output.note(f"hint: {hint}")
        raise typer.Exit(TEST_FAILED)


def _remedy(account: Account, stage: str, words: str) -> str:
    """What to do about a test that failed; "" where only the relay's own words help."""
    if stage == "auth":
        return f"outbox account {'oauth' if account.mechanism in MECHANISMS else 'set-password'} {account.name}"
    if "WRONG_VERSION_NUMBER" in words or "RECORD_LAYER_FAILURE" in words:
        return "this port does not begin with TLS: --tls starttls"
    if stage == "banner" and words.startswith("no answer") and account.tls is not Tls.IMPLICIT:
        return "a port that speaks TLS at once (465) wants --tls implicit"
    if "does not offer STARTTLS" in words:
        return "use the relay's port for TLS (465) with --tls implicit, or ask its operator for STARTTLS"
    if "certificate is not to be trusted" in words and ("self" in words or "issuer" in words):
        return "if you know the authority that signed it: --ca-file FILE"
    return ""


@app.command()
def pause(
    ctx: typer.Context,
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="For the others, and for the journal.")] = "paused",
    duration: Annotated[str, typer.Option("--for", metavar="TIME", help="Such as 2h; else until `resume`.")] = "",
) -> None:
    """Send nothing through this account; its mail waits."""
    from outbox.store import accounts

    session = session_of(ctx)
    until = until_of(duration, session.clock.now())
    with session.database() as db, db.atomic():
        accounts.pause_account(db, name, reason, until, session.act())
    output.say(f"paused account {name}" + (f" until {output.cell(until)}" if until else ""))


@app.command()
def resume(ctx: typer.Context, name: Name) -> None:
    """Lift every pause of the account, and try its relay at once."""
    from outbox.store import accounts

    session = session_of(ctx)
    with session.database() as db, db.atomic():
        accounts.resume_account(db, name, session.act())
    output.say(f"resumed account {name}")
    output.note("its deferred mail keeps its due time; to send that now: outbox retry --state deferred")


@app.command()
def remove(
    ctx: typer.Context, name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Remove an account, its password and its limits. Refused while it has senders."""
    from outbox.core.limits import Limited
    from outbox.store import accounts, limits

    session = session_of(ctx)
    with session.database() as db:
        accounts.check_removable(db, name)
        confirm(f"Remove account {name} and its password?", yes=yes)
        with db.atomic():
            accounts.remove_account(db, name, session.act())
            limits.forget_limit(db, Limited.ACCOUNT, name)
    output.say(f"removed account {name}")


def _standing(account: Account, now: datetime) -> str:
    """Why it may not send now, said beside its name; else that it may."""
    return account.blocked(now).removeprefix(f"account {account.name} is ") or "ready"


def until_of(duration: str, now: datetime) -> datetime | None:
    """The end of a pause given by --for; None for none."""
    if not duration:
        return None
    try:
        return now + parse_duration(duration)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None


def _facts(account: Account, senders: list[str], failed: list[int], now: datetime) -> dict[str, Any]:
    """The account as JSON shows it: stable names, and no secret among them."""
    return {
        "name": account.name,
        "relay_host": account.relay_host,
        "relay_port": account.relay_port,
        "tls": account.tls,
        "mechanism": account.mechanism,
        "username": account.username,
        "has_password": account.secret is not None,
        "key_id": account.key_id,
        "credential_version": account.credential_version,
        "ca_file": account.ca_file,
        "tls_pins": account.tls_pins.split(),
        "max_connections": account.max_connections,
        "max_messages": account.max_messages,
        **pauses.facts(account, failed, now),
        "breaker_failures": account.breaker_failures,
        "breaker_until": account.breaker_until,
        "breaker_reason": account.breaker_reason,
        "blocked": account.blocked(now),
        "created_at": account.created_at,
        "senders": senders,
    }


async def _try(relay: Relay) -> tuple[Report | None, str, str]:
    """What went wrong, or None; the peer; the TLS version and cipher."""
    from outbox.core.outcome import Report
    from outbox.smtp.connection import Connection, Deadlines

    # A person is waiting: shorter than for mail, and longer than a relay that works ever takes.
    brief = Deadlines(**dict.fromkeys(("connect", "banner", "ehlo", "starttls", "tls", "auth"), TEST_PATIENCE))
    opened = await Connection.open(relay, brief)
    if isinstance(opened, Report):
        return opened, opened.relay, opened.tls
    peer, security = opened.relay_name, opened.tls_name
    await opened.close()
    return None, peer, security
