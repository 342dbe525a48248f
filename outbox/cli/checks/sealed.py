"""The key, and what it opens: passwords, how access tokens are got, the keys that sign."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from outbox.cli.checks import Check, Result, failed
from outbox.errors import OAuthError, OutboxError

if TYPE_CHECKING:
    from datetime import datetime

    import peewee

    from outbox.cli.session import Session
    from outbox.core.account import Account
    from outbox.core.dkim_key import SealedKey
    from outbox.oauth.setup import Setup
    from outbox.store.oauth import OAuth
    from outbox.store.sealed import Held
    from outbox.vault import Vault

_NOUNS = {"password": "password", "oauth": "OAuth setup", "dkim": "DKIM key"}
_CHECKS = {"password": "key", "oauth": "oauth", "dkim": "dkim"}


@dataclass(slots=True)
class _Opened:
    """What was found when everything was opened. `setups` are by account; of one that does not open there is none."""

    checks: list[Check] = field(default_factory=list)
    setups: dict[str, Setup] = field(default_factory=dict)


def examine(session: Session, db: peewee.Database) -> Iterator[Check]:
    """The key, then what it is for."""
    from outbox.core.dkim_key import SealedKey
    from outbox.oauth.setup import MECHANISMS
    from outbox.store import accounts, audit, health, sealed
    from outbox.store.oauth import OAuth

    known = {account.name: account for account in accounts.accounts(db)}
    held = sealed.every(db)
    opened = _Opened()
    yield from _key(session, known, held, opened)
    yield from opened.checks
    rows = {each.row.account: each.row for each in held if isinstance(each.row, OAuth)}
    by_token = [account for account in known.values() if account.mechanism in MECHANISMS]
    due = health.due_by_account(db) if by_token else {}
    for account in by_token:
        row, setup = rows.get(account.name), opened.setups.get(account.name)
        yield from _oauth(account, row, setup, due.get(account.name, 0), audit.now(db))
    yield from _libraries(
        {account.name: opened.setups[account.name] for account in by_token if account.name in opened.setups}
    )
    yield from _dkim([each.row for each in held if isinstance(each.row, SealedKey)])


# -- the key


def _key(session: Session, known: Mapping[str, Account], held: Sequence[Held], opened: _Opened) -> Iterator[Check]:
    """The key is there, and opens everything. Its file's mode is checked by reading it."""
    from outbox.cli.phrases import counted

    try:
        vault = session.vault
    except OutboxError as error:
        if held:
            yield failed("key", error)
        else:
            yield Check("key", Result.WARN, f"{error} (nothing is sealed yet)", error.hint)
        return
    counts: Counter[str] = Counter()
    for each in held:
        try:
            _open(vault, each, known, opened)
            counts[_NOUNS[each.kind]] += 1
        except OutboxError as error:
            opened.checks.append(failed(_CHECKS[each.kind], error))
    if counts.total() == len(held):
        what = ", ".join(counted(count, noun) for noun, count in counts.items())
        ids = ", ".join(vault.keys.ids)
        words = f"{ids} from {vault.keys.source}{f'; opens {what}' if what else ''}{_beside(session, vault.keys.path)}"
        yield Check("key", Result.OK, words)


def _open(vault: Vault, held: Held, known: Mapping[str, Account], opened: _Opened) -> None:
    """Raises VaultError, and whatever else says that it is of no use."""
    from outbox.core.account import Account
    from outbox.store.oauth import OAuth
    from outbox.vault import DkimBinding, Kind

    row = held.row
    if isinstance(row, Account):
        vault.open_account(row)
    elif isinstance(row, OAuth):
        _open_oauth(vault, row, known[row.account], opened)
    else:
        binding = DkimBinding(row.sender, row.selector, row.domain, str(row.algorithm))
        vault.open(row.secret, binding, key_id=row.key_id, kind=Kind.DKIM)


def _open_oauth(vault: Vault, row: OAuth, account: Account, opened: _Opened) -> None:
    from outbox.errors import VaultError
    from outbox.oauth.setup import Setup
    from outbox.vault import Binding, Kind

    binding, command = Binding.of(account), f"outbox account oauth {shlex.quote(account.name)}"
    packed = vault.open(row.setup, binding, key_id=row.key_id, kind=Kind.OAUTH)
    try:
        setup = Setup.unpack(packed)
        setup.check()
    except ValueError as error:
        raise VaultError(f"account {account.name}: {error}", hint=command) from None
    opened.setups[account.name] = setup
    if row.token is not None:
        try:
            vault.open(row.token, binding, key_id=row.key_id, kind=Kind.TOKEN)
        except VaultError as error:
            opened.checks.append(Check("oauth", Result.NOTE, f"{error}; a runner gets another one"))


def _beside(session: Session, key_file: Path | None) -> str:
    """A word of warning where one copied directory holds both the key and what it opens."""
    from outbox.store.database import dialect_of, sqlite_path

    url = session.config.database
    if key_file is None or dialect_of(url) != "sqlite" or Path(sqlite_path(url)).resolve().parent != key_file.parent:
        return ""
    return "; beside the database: keep their backups apart"


# -- access tokens


def _oauth(account: Account, row: OAuth | None, setup: Setup | None, due: int, now: datetime) -> Iterator[Check]:
    from outbox.cli.output import cell
    from outbox.cli.phrases import counted
    from outbox.oauth.setup import Grant

    name = shlex.quote(account.name)
    if row is None:
        words = f"account {account.name} logs in by {account.mechanism}, and has no OAuth setup to get a token with"
        yield Check("oauth", Result.FAIL, words, f"outbox account oauth {name}")
        return
    if setup is not None and setup.grant is Grant.REFRESH_TOKEN and not setup.refresh_token:
        verb = "login" if setup.device_url else "oauth"
        words = f"account {account.name}: nobody has consented yet, so there is no refresh token"
        yield Check("oauth", Result.FAIL, words, f"outbox account {verb} {name}")
    if row.is_leased(now) and not row.refreshing_by:
        words = f"account {account.name}: the last try to get a token has failed; none before"
        yield Check("oauth", Result.WARN, f"{words} {cell(row.refreshing_until)}", f"outbox account test {name}")
    if due and row.expires_at is not None and row.expires_at <= now:
        words = f"account {account.name}: its token ended at {cell(row.expires_at)}, and {counted(due, 'message')}"
        yield Check("oauth", Result.WARN, f"{words} {'is' if due == 1 else 'are'} due", f"outbox account test {name}")


def _libraries(setups: Mapping[str, Setup]) -> Iterator[Check]:
    """Once, however many accounts want them."""
    from outbox.oauth.granted import load
    from outbox.oauth.setup import Grant

    names = [name for name, setup in setups.items() if setup.grant is not Grant.COMMAND]
    if names:
        try:
            load()
        except OAuthError as error:
            words = f"{error}; without it no token is got for: {', '.join(names)}"
            yield Check("oauth", Result.FAIL, words, error.hint)


# -- signatures


def _dkim(keys: Sequence[SealedKey]) -> Iterator[Check]:
    from outbox.cli.phrases import counted
    from outbox.core.dkim_key import signing_domain

    for key in keys:
        try:
            own = signing_domain(key.sender)
        except ValueError:
            own = ""
        if key.domain != own:
            sender = shlex.quote(key.sender)
            words = f"the key {key.selector} of {key.sender} signs for {key.domain}: DMARC does not count that"
            hint = f"outbox sender dkim {sender} --generate, then: --remove {key.selector}"
            yield Check("dkim", Result.WARN, words, hint)
    if keys:
        senders = sorted({key.sender for key in keys})
        whose = shlex.quote(senders[0]) if len(senders) == 1 else "ADDRESS"
        words = (
            f"{counted(len(keys), 'key')}; whether the DNS has {'its record' if len(keys) == 1 else 'their records'}"
        )
        hint = f"outbox sender dkim {whose} --show, then compare: dig TXT NAME"
        yield Check("dkim", Result.NOTE, f"{words} is not looked up", hint)
