"""``outbox account oauth`` and ``outbox account login``: access tokens instead of a password.

A secret comes from a prompt, standard input or a file, and is never an argument. What is stored is sealed as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox.cli import output
from outbox.cli.account_add import Name
from outbox.cli.session import password, session_of
from outbox.core.account import Account
from outbox.core.secret import Secret
from outbox.errors import OAuthError, Refused
from outbox.oauth.setup import MECHANISMS, PROVIDERS, ClientAuth, Grant, Setup, preset

if TYPE_CHECKING:
    from outbox.cli.session import Session
    from outbox.oauth.answer import Granted
    from outbox.store.opened import Database

app = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Provider = Annotated[str, typer.Option("--provider", help=f"Fill in URLs and scope: {', '.join(PROVIDERS)}.")]
Tenant = Annotated[str, typer.Option("--tenant", help="The directory (tenant) id or domain, for microsoft365.")]
ClientId = Annotated[str, typer.Option("--client-id", help="As the provider has registered this application.")]
SecretStdin = Annotated[bool, typer.Option("--client-secret-stdin", help="Read the secret from standard input.")]
SecretFile = Annotated[
    Path | None, typer.Option("--client-secret-file", metavar="FILE", help="Read the secret from a file.")
]
Placement = Annotated[
    ClientAuth, typer.Option("--client-auth", help="Where the secret goes: into the form, or into the header.")
]
TokenUrl = Annotated[str, typer.Option("--token-url", metavar="URL", help="Where tokens are asked for; https.")]
DeviceUrl = Annotated[str, typer.Option("--device-url", metavar="URL", help="Where `login` begins; https.")]
Scope = Annotated[str, typer.Option("--scope", help="What is asked for, separated by spaces.")]


async def sleep(seconds: float) -> None:
    """While a person decides."""
    import asyncio

    await asyncio.sleep(seconds)


@app.command()
def oauth(
    ctx: typer.Context,
    name: Name,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="PROGRAM", help="After --: for --command; it prints a token.")
    ] = None,
    grant: Annotated[Grant | None, typer.Option("--grant", help="What a token is given for.")] = None,
    provider: Provider = "",
    tenant: Tenant = "",
    client_id: ClientId = "",
    secret_stdin: SecretStdin = False,
    secret_file: SecretFile = None,
    client_auth: Placement = ClientAuth.POST,
    token_url: TokenUrl = "",
    device_url: DeviceUrl = "",
    scope: Scope = "",
    refresh_stdin: Annotated[
        bool, typer.Option("--refresh-token-stdin", help="Read a refresh token from standard input.")
    ] = False,
    refresh_file: Annotated[
        Path | None, typer.Option("--refresh-token-file", metavar="FILE", help="Read a refresh token from a file.")
    ] = None,
    command: Annotated[bool, typer.Option("--command", help="The same as --grant command.")] = False,
    as_json: Json = False,
) -> None:
    """Store how the account gets its access tokens, and lift a pause that the old ones caused. What is not given is not
    kept from before; docs/oauth.md has the whole command for each provider.
    """
    from outbox.store import accounts

    grant = _grant(grant, command=command, arguments=arguments)
    if secret_stdin and refresh_stdin:
        raise typer.BadParameter("only one of them can come from standard input: give the other in a file")
    base = _base(provider, tenant, grant)
    setup = replace(
        base,
        command=tuple(arguments or ()),
        client_id=client_id,
        client_auth=client_auth,
        token_url=token_url or base.token_url,
        device_url=device_url or base.device_url,
        scope=scope or base.scope,
    )
    session = session_of(ctx)
    with session.database() as db:
        account = _account(db, name)
        _ = session.vault  # before anybody types a secret in vain
        if secret_stdin or secret_file or grant is Grant.CLIENT_CREDENTIALS:
            secret = password(_prompt("client secret", setup), secret_stdin, secret_file, what="client secret")
            setup = replace(setup, client_secret=secret)
        if refresh_stdin or refresh_file:
            setup = setup.renewed(
                password(_prompt("refresh token", setup), refresh_stdin, refresh_file, what="refresh token")
            )
        _check(setup)
        _save(session, db, account, setup, None, "account oauth")
        still = accounts.account(db, name).blocked(session.clock.now())
    _say_stored(account, setup, as_json=as_json, still=still)


@app.command()
def login(
    ctx: typer.Context,
    name: Name,
    provider: Provider = "",
    tenant: Tenant = "",
    client_id: ClientId = "",
    secret_stdin: SecretStdin = False,
    secret_file: SecretFile = None,
    client_auth: Placement = ClientAuth.POST,
    token_url: TokenUrl = "",
    device_url: DeviceUrl = "",
    scope: Scope = "",
    as_json: Json = False,
) -> None:
    """Consent in a browser, on any device, that the account sends mail. What is not given is taken from what is stored
    already.
    """
    import asyncio

    from outbox.store import accounts

    session = session_of(ctx)
    with session.database() as db:
        account = _account(db, name)
        vault = session.vault
        base = _base(provider, tenant, Grant.REFRESH_TOKEN) if provider else _stored(session, db, account)
        setup = replace(
            base,
            grant=Grant.REFRESH_TOKEN,
            command=(),
            client_id=client_id or base.client_id,
            client_auth=client_auth if secret_stdin or secret_file else base.client_auth,
            token_url=token_url or base.token_url,
            device_url=device_url or base.device_url,
            scope=scope or base.scope,
        )
        if setup.asked != base.asked:
            setup = replace(setup, client_secret=Secret())  # it was given for another client, or another endpoint
        if secret_stdin or secret_file:
            secret = password(_prompt("client secret", setup), secret_stdin, secret_file, what="client secret")
            setup = replace(setup, client_secret=secret)
        if provider and not setup.device_url:
            words = f"{provider} gives no access to mail for a code; get a refresh token in a browser (docs/oauth.md)"
            raise typer.BadParameter(words, param_hint="--provider")
        _check(setup, device=True)
        assert vault is not None
        granted = asyncio.run(_consent(session, account, setup))
        if granted.refresh_token is None:
            raise OAuthError(
                f"account {name}: the endpoint gave no refresh token, so this would end with the access token",
                permanent=True,
                hint="ask for one with the scope: for many providers, --scope '… offline_access'",
            )
        _save(session, db, account, setup.renewed(granted.refresh_token), granted, "account login")
        still = accounts.account(db, name).blocked(session.clock.now())
    _say_stored(account, setup, as_json=as_json, still=still, granted=granted)


def access_token(session: Session, db: Database, account: Account) -> Secret:
    """The access token of an account, renewed if it has to be, as a runner does it. Raises OAuthError, VaultError."""
    import asyncio

    from outbox.runner.sending.tokens import Direct, Tokens

    who = f"command {session.clock.token()}"
    tokens = Tokens(Direct(db, session.clock), session.clock, lambda: session.vault, who)
    return asyncio.run(tokens.access(account))


@dataclass(frozen=True, slots=True)
class Standing:
    """What can be told of an account's OAuth without opening anything."""

    facts: dict[str, Any] | None
    words: str


def standing(db: Database, account: Account) -> Standing:
    """For `outbox account show`."""
    from outbox.store import oauth as stored

    if account.mechanism not in MECHANISMS:
        return Standing(None, "")
    row = stored.find(db, account.name)
    if row is None:
        return Standing(None, f"not set up: outbox account oauth {account.name}")
    facts = {
        "key_id": row.key_id,
        "version": row.version,
        "refreshed_at": row.refreshed_at,
        "refresh_at": row.refresh_at,
        "expires_at": row.expires_at,
    }
    if row.expires_at is None:
        return Standing(facts, f"sealed with key {row.key_id}; no token yet")
    got, ends = output.cell(row.refreshed_at), output.cell(row.expires_at)
    return Standing(facts, f"sealed with key {row.key_id}; token of {got}, until {ends}")


# ---- the steps


def _grant(grant: Grant | None, *, command: bool, arguments: list[str] | None) -> Grant:
    if command and grant not in (None, Grant.COMMAND):
        raise typer.BadParameter("--command and another --grant do not go together", param_hint="--grant")
    grant = Grant.COMMAND if command else grant
    if grant is None:
        raise typer.BadParameter(f"give one of {', '.join(Grant)}; or --command -- PROGRAM", param_hint="--grant")
    if arguments and grant is not Grant.COMMAND:
        raise typer.BadParameter("a program is for --command", param_hint="PROGRAM")
    return grant


def _base(provider: str, tenant: str, grant: Grant) -> Setup:
    if not provider:
        return Setup(grant)
    try:
        return preset(provider, grant, tenant)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--provider") from None


def _account(db: Database, name: str) -> Account:
    from outbox.store import accounts

    account = accounts.account(db, name)
    if account.mechanism not in MECHANISMS:
        raise Refused(
            f"account {name} logs in by {account.mechanism}, which takes a password and no token",
            hint="an account for tokens: outbox account add NAME … --username USER --mechanism xoauth2",
        )
    if not account.username:
        raise Refused(f"account {name} has no username", hint="outbox account add NAME … --username USER")
    accounts.refuse_clear_text(account)
    return account


def _stored(session: Session, db: Database, account: Account) -> Setup:
    from outbox.store import oauth as stored
    from outbox.vault import Binding, Kind

    row = stored.find(db, account.name)
    if row is None:
        return Setup(Grant.REFRESH_TOKEN)
    packed = session.vault.open(row.setup, Binding.of(account), key_id=row.key_id, kind=Kind.OAUTH)
    return Setup.unpack(packed)


def _check(setup: Setup, *, device: bool = False) -> None:
    try:
        setup.check()
        if device and not setup.device_url:
            raise ValueError("there is no device URL: give --provider, or --device-url")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


async def _consent(session: Session, account: Account, setup: Setup) -> Granted:
    from outbox.oauth import device

    begun = await device.begin(setup)
    output.note(f"to let Outbox send as {account.username}, open  {output.cell(begun.url)}")
    output.note(f"and enter the code  {output.cell(begun.code)}")
    if begun.complete_url:
        output.note(f"or open  {output.cell(begun.complete_url)}")
    minutes = int(begun.seconds // 60)
    output.note(f"waiting; the code is good for {minutes} min" if minutes else "waiting")
    told = begun.seconds

    def pending(left: float) -> None:
        nonlocal told
        if told - left >= 60:
            told = left
            output.note(f"still waiting; {int(left // 60)} min left")

    return await device.finish(setup, begun, session.clock, sleep, pending)


def _save(session: Session, db: Database, account: Account, setup: Setup, granted: Granted | None, verb: str) -> None:
    from outbox.store import oauth as stored
    from outbox.vault import Binding, Kind

    vault, binding = session.vault, Binding.of(account)
    sealed = stored.Sealed(vault.seal(setup.pack(), binding, Kind.OAUTH), vault.key_id)
    if granted is not None:
        token = vault.seal(granted.access_token, binding, Kind.TOKEN)
        sealed = replace(sealed, token=token, life=granted.life)
    with db.atomic():
        stored.save(db, account, sealed, session.act(), verb)


def _prompt(what: str, setup: Setup) -> str:
    return f"{what.capitalize()} of client {setup.client_id}"


def _say_stored(account: Account, setup: Setup, *, as_json: bool, still: str, granted: Granted | None = None) -> None:
    waits = setup.grant is Grant.REFRESH_TOKEN and not setup.refresh_token and granted is None
    if as_json:
        life = granted.life.total_seconds() if granted is not None else None
        output.show_json({"account": account.name, "grant": setup.grant, "logged_in": not waits, "seconds": life})
    else:
        # Where the token will be sent is said again: it is how one notices that somebody has changed the relay.
        where = f"{account.username} at {account.relay} ({account.tls})"
        output.say(f"stored how account {account.name} gets the access tokens of {where}: {setup.grant}")
    output.note(f"next: outbox account {'login' if waits else 'test'} {account.name}")
    if still:
        output.note(f"{still}; to lift that: outbox account resume {account.name}")
