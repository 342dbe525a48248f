"""Everything in the database that is sealed, whatever it is: for the commands that replace a key.

Nothing here opens a secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peewee import Database

from outbox.store import accounts, dkim, oauth

if TYPE_CHECKING:
    from outbox.core.account import Account
    from outbox.core.dkim_key import SealedKey


@dataclass(frozen=True, slots=True)
class Held:
    """The sealed secrets of one row; `key_id` is what is written beside them.

    kind    password, oauth, dkim
    name    the account's; for DKIM the sender's address and the selector
    """

    kind: str
    name: str
    tokens: tuple[str, ...] = field(repr=False)
    key_id: str
    row: Account | oauth.OAuth | SealedKey = field(repr=False)

    @property
    def label(self) -> str:
        """For people: ``shop``, ``shop (OAuth)``, ``shop@example.com outbox1 (DKIM)``."""
        return self.name + {"oauth": " (OAuth)", "dkim": " (DKIM)"}.get(self.kind, "")

    @property
    def owner(self) -> str:
        """For the journal and for errors: ``account=shop``, ``sender=shop@example.com``."""
        return f"sender={self.name.partition(' ')[0]}" if self.kind == "dkim" else f"account={self.name}"


def every(db: Database) -> list[Held]:
    """Passwords, OAuth setups with their tokens, DKIM keys; each by name."""
    passwords = [Held("password", a.name, (a.secret,), a.key_id, a) for a in accounts.accounts(db) if a.secret]
    setups = [
        Held("oauth", o.account, (o.setup, *((o.token,) if o.token else ())), o.key_id, o) for o in oauth.every(db)
    ]
    keys = [Held("dkim", f"{k.sender} {k.selector}", (k.secret,), k.key_id, k) for k in dkim.keys(db)]
    return [*passwords, *setups, *keys]


def reseal(db: Database, held: Held, tokens: tuple[str, ...], key_id: str) -> bool:
    """Put the same secrets under another key, unless they have been changed meanwhile (then False)."""
    row = held.row
    if isinstance(row, oauth.OAuth):
        return oauth.reseal(db, row, tokens[0], tokens[1] if len(tokens) > 1 else None, key_id)
    if held.kind == "dkim":
        return dkim.reseal(db, row, tokens[0], key_id)  # type: ignore[arg-type]  # the kind says so
    return accounts.reseal(db, row, tokens[0], key_id)  # type: ignore[arg-type]
