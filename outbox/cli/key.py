"""``outbox key generate | add | status | rotate | retire``: the keys that seal passwords, OAuth setups and
tokens, and DKIM keys.

To replace a key: `add` (the new one seals, the old one still opens) → `rotate` (seal everything again) → `retire` the
old one. Runners read the key file again when they meet a secret that they cannot open.
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
    from outbox.store.opened import Database
    from outbox.store.sealed import Held
    from outbox.vault import Vault

app = typer.Typer(help="The keys that seal passwords, OAuth tokens and DKIM keys.", no_args_is_help=True)

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
    """Show which keys are loaded, from where, and what each of them seals. Ends with 5 if one is missing."""
    from outbox.store import sealed

    session = session_of(ctx)
    vault = session.vault
    with session.database() as db:
        every = sealed.every(db)
    uses: dict[str, list[Held]] = {key_id: [] for key_id in vault.keys.ids}
    for held in every:
        for key_id in sorted(_sealed_with(held, vault)):
            uses.setdefault(key_id, []).append(held)
    if as_json:
        rows = [
            {
                "id": key_id,
                "use": _use(key_id, vault.keys.ids),
                "accounts": [held.name for held in those if held.kind == "password"],
                "oauth": [held.name for held in those if held.kind == "oauth"],
                "dkim": [held.name for held in those if held.kind == "dkim"],
            }
            for key_id, those in uses.items()
        ]
        output.show_json({"source": vault.keys.source, "keys": rows})
    else:
        output.note(f"keys from {vault.keys.source}")
        table = [(key_id, _use(key_id, vault.keys.ids), _labels(those)) for key_id, those in uses.items()]
        output.show_table(("key", "use", "seals"), table)
    unopened = [held for key_id, those in uses.items() if key_id not in vault.keys.ids for held in those]
    if unopened:
        raise _unopened(unopened, "bring the missing key back, or give them again")


@app.command()
def rotate(ctx: typer.Context) -> None:
    """Seal every stored secret again with the first key. May be interrupted and run again."""
    from outbox.cli.phrases import counted
    from outbox.store import sealed
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
        for held in sealed.every(db):
            if held.key_id == vault.key_id and _sealed_with(held, vault) == {vault.key_id}:
                continue
            try:
                tokens = tuple(vault.rotate(token, held.label) for token in held.tokens)
            except VaultError:
                failed.append(held)
                continue
            with db.atomic():
                if sealed.reseal(db, held, tokens, vault.key_id):
                    journal(db, act, "key rotate", held.owner, detail=f"key={vault.key_id}")
                    done.append(held)
    output.say(f"sealed {counted(len(done), 'secret')} again with key {vault.key_id}")
    for old in vault.keys.ids[1:] if not failed else ():
        output.note(f"next: outbox key retire {old}")
    if failed:
        raise _unopened(failed, "bring the missing key back and rotate again, or give them again")


@app.command()
def retire(
    ctx: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID", help="As `status` shows it.")]
) -> None:
    """Take a key out of the key file. Refused while any stored secret needs it."""
    from outbox import keys
    from outbox.store.journal import journal

    session = session_of(ctx)
    path = _own_file(session)
    with session.database() as db:
        users = _users(session, db, key_id)
        if users:
            first = "outbox key add, then " if len(session.vault.keys.ids) == 1 else ""
            words = f"key {key_id} still seals the secrets of: {_labels(users)}"
            raise Refused(words, hint=f"{first}outbox key rotate")
        keys.retire(path, key_id)
        journal(db, session.act(), "key retire", f"key={key_id}")
    output.say(f"retired key {key_id} from {path}")


def _sealed_with(held: Held, vault: Vault) -> set[str]:
    """The keys that open it, whatever is written beside it; else the one that is written there and not loaded."""
    written = held.key_id if held.key_id and held.key_id not in vault.keys.ids else "unknown"
    return {vault.key_of(token) or written for token in held.tokens}


def _labels(those: list[Held]) -> str:
    return ", ".join(held.label for held in those)


def _unopened(those: list[Held], remedy: str) -> VaultError:
    commands = {
        "password": "outbox account set-password NAME",
        "oauth": "outbox account oauth NAME",
        "dkim": "outbox sender dkim ADDRESS",
    }
    needed = ", ".join(dict.fromkeys(commands[held.kind] for held in those))
    return VaultError(f"no loaded key opens the secrets of: {_labels(those)}", hint=f"{remedy}: {needed}")


def _use(key_id: str, loaded: tuple[str, ...]) -> str:
    if key_id not in loaded:
        return "missing"
    return "seals and opens" if key_id == loaded[0] else "opens"


def _users(session: Session, db: Database, key_id: str) -> list[Held]:
    """What needs a key, by what opens the tokens and by what is written beside them."""
    from outbox.store import sealed

    vault = session.vault
    return [held for held in sealed.every(db) if key_id == held.key_id or key_id in _sealed_with(held, vault)]


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
