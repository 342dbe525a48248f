"""``outbox key generate | add | status | rotate | retire``: the keys that seal the passwords of accounts.

To replace a key: `add` (the new one seals, the old one still opens) → `rotate` (seal everything again) → `retire` the
old one. Runners read the key file again when they meet a password that they cannot open.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outbox.cli import output
from outbox.cli.session import session_of
from outbox.errors import ConfigError, Refused, VaultError

if TYPE_CHECKING:
    from outbox.cli.session import Session
    from outbox.core.account import Account
    from outbox.store.opened import Database
    from outbox.vault import Vault

app = typer.Typer(help="The keys that seal the passwords of accounts.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def generate(
    ctx: typer.Context,
    show: Annotated[
        bool, typer.Option("--print", help="Print a fresh key for OUTBOX_KEYS or a systemd credential; make no file.")
    ] = False,
) -> None:
    """Make the configured key file, with one fresh key, private to its owner. Never overwrites one."""
    from outbox import keys

    if show:
        output.say(keys.new().text)
        return
    path = _key_file(session_of(ctx))
    key = keys.create(path)
    output.say(f"made {path} with key {key.id}")
    output.note("keep a copy of it apart from the copies of the database: without it no stored password opens")


@app.command()
def add(ctx: typer.Context) -> None:
    """Put a fresh key before the others: it seals from now on, the others still open."""
    from outbox import keys

    path = _own_file(session_of(ctx))
    key = keys.add(path)
    output.say(f"added key {key.id} to {path}")
    output.note("next: outbox key rotate")


@app.command()
def status(ctx: typer.Context, as_json: Json = False) -> None:
    """Show which keys are loaded, from where, and which accounts each of them seals. Ends with 5 if one is missing."""
    from outbox.store import accounts

    session = session_of(ctx)
    vault = session.vault
    with session.database() as db:
        sealed = [account for account in accounts.accounts(db) if account.secret]
    uses: dict[str, list[str]] = {key_id: [] for key_id in vault.keys.ids}
    for account in sealed:
        uses.setdefault(_sealed_with(account, vault), []).append(account.name)
    rows = [{"id": key_id, "use": _use(key_id, vault.keys.ids), "accounts": names} for key_id, names in uses.items()]
    if as_json:
        output.show_json({"source": vault.keys.source, "keys": rows})
    else:
        output.note(f"keys from {vault.keys.source}")
        output.show_table(("key", "use", "accounts"), [(row["id"], row["use"], row["accounts"]) for row in rows])
    unopened = [name for key_id, names in uses.items() if key_id not in vault.keys.ids for name in names]
    if unopened:
        raise VaultError(
            f"no loaded key opens the password of: {', '.join(unopened)}",
            hint="bring the missing key back, or enter the password again: outbox account set-password NAME",
        )


@app.command()
def rotate(ctx: typer.Context) -> None:
    """Seal every stored password again with the first key. May be interrupted and run again."""
    from outbox.cli.phrases import counted
    from outbox.store import accounts
    from outbox.store.journal import journal

    session = session_of(ctx)
    vault = session.vault
    if len(vault.keys.ids) < 2:
        raise Refused(
            f"only one key is loaded, from {vault.keys.source}: there is nothing to rotate to",
            hint="`outbox key add` puts a new one before it",
        )
    done, failed = [], []
    with session.database() as db:
        act = session.act()
        for account in accounts.accounts(db):
            if not account.secret or vault.key_of(account.secret) == account.key_id == vault.key_id:
                continue
            try:
                token = vault.rotate(account.secret, f"account {account.name}")
            except VaultError:
                failed.append(account.name)
                continue
            with db.atomic():
                if accounts.reseal(db, account, token, vault.key_id):
                    journal(db, act, "key rotate", f"account={account.name}", detail=f"key={vault.key_id}")
                    done.append(account.name)
    output.say(f"sealed {counted(len(done), 'password')} again with key {vault.key_id}")
    for old in vault.keys.ids[1:] if not failed else ():
        output.note(f"next: outbox key retire {old}")
    if failed:
        raise VaultError(
            f"no loaded key opens the password of: {', '.join(failed)}",
            hint="outbox account set-password NAME, or bring the missing key back and rotate again",
        )


@app.command()
def retire(
    ctx: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID", help="As `status` shows it.")]
) -> None:
    """Take a key out of the key file. Refused while any stored password needs it."""
    from outbox import keys
    from outbox.store.journal import journal

    session = session_of(ctx)
    path = _own_file(session)
    with session.database() as db:
        users = _users(session, db, key_id)
        if users:
            first = "outbox key add, then " if len(session.vault.keys.ids) == 1 else ""
            words = f"key {key_id} still seals the passwords of: {', '.join(users)}"
            raise Refused(words, hint=f"{first}outbox key rotate")
        keys.retire(path, key_id)
        journal(db, session.act(), "key retire", f"key={key_id}")
    output.say(f"retired key {key_id} from {path}")


def _sealed_with(account: Account, vault: Vault) -> str:
    """The key that opens it, whatever is written beside it; else the one that is written there and not loaded."""
    if found := vault.key_of(account.secret or ""):
        return found
    return account.key_id if account.key_id and account.key_id not in vault.keys.ids else "unknown"


def _use(key_id: str, loaded: tuple[str, ...]) -> str:
    if key_id not in loaded:
        return "missing"
    return "seals and opens" if key_id == loaded[0] else "opens"


def _users(session: Session, db: Database, key_id: str) -> list[str]:
    """The accounts that need a key, by what opens their token and by what is written beside it."""
    from outbox.store import accounts

    def needs(account: Account) -> bool:
        return account.secret is not None and key_id in (account.key_id, session.vault.key_of(account.secret))

    return [account.name for account in accounts.accounts(db) if needs(account)]


def _key_file(session: Session) -> Path:
    if session.config.key_file is None:
        raise ConfigError(
            "no key file is configured", hint="`outbox init` sets one up; or set OUTBOX_KEY_FILE, or use --print"
        )
    return session.config.key_file


def _own_file(session: Session) -> Path:
    """The key file, where the keys come from one: nothing else is ours to change."""
    source = session.vault.keys.source
    if session.config.key_file is None:
        raise Refused(
            f"the keys come from {source}, which is not ours to change",
            hint="change them there; `outbox key generate --print` makes a fresh one",
        )
    return session.config.key_file
