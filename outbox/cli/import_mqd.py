"""``outbox import-mqd``: the accounts, senders and folder of a Mail Queue Dispatcher, taken over."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outbox.cli import output
from outbox.cli.session import Session, session_of
from outbox.errors import OutboxError, Refused, VaultError

if TYPE_CHECKING:
    from outbox.core.account import Account, Sender
    from outbox.core.pickup import Folder
    from outbox.doors.mqd import Entry, Setup
    from outbox.store.opened import Database

app = typer.Typer()

CHANGES = (
    "what is different from now on: refused and failed mail is tried again; Bcc, X-Sender and X-Receiver do not reach"
    " recipients; who has got it stays served when others are refused; badmail says why, in NAME.bad.json"
)


@app.command("import-mqd")
def import_mqd(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Its .smtp-dispatcher.settings, or the directory.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    map_path: Annotated[
        list[str] | None,
        typer.Option(metavar="FROM=TO", help=r"Where a path of Windows is here: 'C:\Mail=/srv/mail'. Repeatable."),
    ] = None,
) -> None:
    """Take over accounts, senders and folders of a Mail Queue Dispatcher. Can be done again."""
    from outbox.doors.mqd import read_settings

    setup = read_settings(path, dict(_mapped(each) for each in map_path or ()))
    session = session_of(ctx)
    for note in setup.notes:
        output.note(f"note: {note}")
    with session.database() as db, db.atomic() as transaction:
        _Import(session, db, dry_run=dry_run).run(setup)
        if dry_run:
            transaction.rollback()
    output.note(f"note: {CHANGES}")
    for each in setup.errors:
        output.note(f"failed: {each}")
    if dry_run:
        output.note("dry run: nothing was changed")
    else:
        output.note("next: outbox account test NAME for each; then destroy the settings file: it has the passwords")
    if setup.errors:
        raise OutboxError(f"{len(setup.errors)} of its entries could not be taken over")


def _mapped(text: str) -> tuple[str, str]:
    beginning, equals, target = text.partition("=")
    if not (beginning and equals and target):
        raise typer.BadParameter("it is FROM=TO", param_hint="--map-path")
    return beginning, target


class _Import:
    """In the caller's transaction. What the register refuses is an error of its entry, which then is left out whole."""

    def __init__(self, session: Session, db: Database, *, dry_run: bool) -> None:
        self._session = session
        self._db = db
        self._dry_run = dry_run

    def run(self, setup: Setup) -> None:
        taken = []
        for entry in setup.entries:
            try:
                with self._db.atomic():
                    lines = self._enter(entry)
            except Refused as error:
                setup.errors.append(f"connection {entry.key!r}: {error}")
                continue
            taken.append(entry.sender.address)
            for line in lines:
                output.say(line)
        if setup.folder is None or not taken:
            return
        folder = replace(setup.folder, senders=tuple(each for each in setup.folder.senders if each in taken))
        try:
            with self._db.atomic():
                output.say(self._watch(folder))
        except OutboxError as error:
            setup.errors.append(f"the folder: {error}")

    def _enter(self, entry: Entry) -> list[str]:
        """Lines that say what has changed. Raises Refused."""
        account, of_account = self._account(entry)
        lines = [of_account]
        if entry.envelope:
            from outbox.core.account import Sender

            lines.append(self._sender(Sender(entry.envelope, account.name)))
        lines.append(self._sender(replace(entry.sender, account=account.name)))
        return lines

    def _account(self, entry: Entry) -> tuple[Account, str]:
        """The one with this server and username, whatever it is called."""
        from outbox.cli.account_add import sealed
        from outbox.store import accounts

        wanted = entry.account
        known = accounts.accounts(self._db)
        found = next((e for e in known if (e.relay, e.username) == (wanted.relay, wanted.username)), None)
        vault = self._session.vault
        if found is None:
            new = sealed(replace(wanted, name=_name(wanted, {each.name for each in known})), vault, entry.password)
            accounts.add_account(self._db, new, self._session.act())
            return new, f"account {new.name}: added: {new.relay} ({new.tls}), logging in as {new.username}"
        with suppress(VaultError):  # sealed with a key that is gone: it is given anew
            if found.secret is not None and vault.open_account(found) == entry.password:
                return found, f"account {found.name}: unchanged"
        accounts.set_password(self._db, sealed(found, vault, entry.password), self._session.act())
        return found, f"account {found.name}: its password changed"

    def _sender(self, wanted: Sender) -> str:
        from outbox.store import accounts, senders

        found = accounts.find_sender(self._db, wanted.address)
        if found is not None and found.account == wanted.account:
            differs = wanted.return_path and found.return_path != wanted.return_path
            kept = f", and keeps its return path {found.return_path or found.address}" if differs else ""
            return f"sender {wanted.address}: unchanged{kept}"
        senders.add_sender(self._db, wanted, self._session.act())
        path = f", return path {wanted.return_path}" if wanted.return_path else ""
        return f"sender {wanted.address}: registered to account {wanted.account}{path}"

    def _watch(self, wanted: Folder) -> str:
        """Raises OutboxError."""
        from outbox.cli.pickup import make
        from outbox.store import pickup

        act = self._session.act()
        known = pickup.folders(self._db)
        found = next((each for each in known if each.path == wanted.path), None)
        found = found or next((each for each in known if each.name == wanted.name), None)
        wanted = replace(wanted, name=found.name) if found is not None else wanted
        if found == wanted:
            return f"folder {wanted.name}: unchanged"
        if not self._dry_run:
            make(wanted, force=False)
        if found is not None:
            pickup.remove_folder(self._db, found.name, act)
        pickup.add_folder(self._db, wanted, act)
        put = f"sent to {wanted.sentmail}" if wanted.sentmail else "deleted when it is sent"
        said = f"{wanted.path}, {put}, bad to {wanted.badmail}; only for {', '.join(wanted.senders)}"
        return f"folder {wanted.name}: {'changed' if found is not None else 'added'}: {said}"


def _name(account: Account, taken: set[str]) -> str:
    """For the account: ``shop@smtp.example.com``, as a name is written."""
    whole = account.username if "@" in account.username else f"{account.username}@{account.relay_host}"
    name = re.sub(r"[^\w.@-]", "-", whole).lstrip("-")[:90] or "mqd"
    numbered = (f"{name}-{number}" if number > 1 else name for number in range(1, len(taken) + 2))
    return next(each for each in numbered if each not in taken)
