"""What is kept of an account's OAuth: the sealed setup, the sealed access token, and the lease of who renews it.

Every function that writes is statements in the caller's open transaction. Nothing here opens a secret.

**The lease.** A token is renewed by one runner at a time: `take` is one conditional UPDATE, for LEASE at most. Who has
taken it stores the result with `write`, fenced by his name *and* by the version that he started from: after an operator
has stored another setup, or the lease has run out and somebody else has renewed the token, it writes nothing. Without a
name beside it, `refreshing_until` is a rest: the last try has failed, and nobody asks before that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from peewee import Database

from outbox.core.account import Account
from outbox.store import accounts, tables
from outbox.store.journal import Act, journal

LEASE = timedelta(seconds=60)

REFRESH_AT = 0.8
"""The part of its life after which a token is renewed."""


@dataclass(frozen=True, slots=True)
class OAuth:
    """One row of `outbox_oauth`. `setup` and `token` (None: none yet) are sealed, both with key `key_id`.

    version     grows with every new token, and with every new setup
    refresh_at  from then on the token is renewed; until `expires_at` it is good
    """

    account: str
    setup: str = field(repr=False)
    token: str | None = field(repr=False)
    key_id: str
    version: int = 1
    refresh_at: datetime | None = None
    expires_at: datetime | None = None
    refreshing_by: str = ""
    refreshing_until: datetime | None = None

    @property
    def refreshed_at(self) -> datetime | None:
        """When the token was got: what `refresh_at` and `expires_at` say of it. None: there is no token."""
        if self.refresh_at is None or self.expires_at is None:
            return None
        return self.expires_at - (self.expires_at - self.refresh_at) / (1 - REFRESH_AT)

    def is_leased(self, now: datetime) -> bool:
        """Whether somebody renews it, or it rests after a failure."""
        return self.refreshing_until is not None and now < self.refreshing_until


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is to be stored: a sealed setup and, if there is one, a sealed token with its life from now on."""

    setup: str = field(repr=False)
    key_id: str
    token: str | None = field(default=None, repr=False)
    life: timedelta = timedelta()

    def row(self, now: datetime) -> dict[str, Any]:
        alive = self.token is not None
        return {
            "setup": self.setup,
            "key_id": self.key_id,
            "token": self.token,
            "refresh_at": now + self.life * REFRESH_AT if alive else None,
            "expires_at": now + self.life if alive else None,
            "refreshing_by": None,
            "refreshing_until": None,
        }


# ---- reading


def find(db: Database, account: str) -> OAuth | None:
    """Of one account; None when it has no setup."""
    row = tables.OAuth.select().where(tables.OAuth.account == account).dicts().first(db)
    return _oauth(row) if row is not None else None


def every(db: Database) -> list[OAuth]:
    """Of all accounts that have one, by name."""
    return [_oauth(row) for row in tables.OAuth.select().order_by(tables.OAuth.account).dicts().execute(db)]


# ---- what an operator does


def save(db: Database, account: Account, sealed: Sealed, act: Act, verb: str) -> None:
    """Store a setup, and its first token if it has one. As with a new password: `credential_version` grows, and a pause
    that a runner imposed is lifted. `verb` is for the journal. Raises Refused as `accounts.set_password` does.
    """
    accounts.renew_credentials(db, account)
    row = tables.OAuth
    values = sealed.row(act.at)
    written = row.update(version=row.version + 1, **values).where(row.account == account.name).execute(db)
    if not written:
        row.insert(account=account.name, version=1, **values).execute(db)
    journal(db, act, verb, f"account={account.name}", detail=f"key={sealed.key_id}")


# ---- what a runner does


def take(db: Database, account: str, who: str, version: int, now: datetime) -> bool:
    """Take the lease, to renew the token of this version. False when somebody else has it, when it rests, or when the
    token is another one already.
    """
    row = tables.OAuth
    free = row.refreshing_until.is_null() | (row.refreshing_until <= now)
    query = row.update(refreshing_by=who, refreshing_until=now + LEASE)
    return bool(query.where(row.account == account, row.version == version, free).execute(db))


def write(db: Database, account: str, who: str, version: int, sealed: Sealed, now: datetime) -> bool:
    """Store a new token, and the setup with the refresh token that came with it; give the lease back. False, and
    nothing is written, when the lease or the version is not the caller's any more.
    """
    row = tables.OAuth
    query = row.update(version=row.version + 1, **sealed.row(now))
    mine = (row.account == account, row.refreshing_by == who, row.version == version)
    return bool(query.where(*mine).execute(db))


def release(db: Database, account: str, who: str, version: int, rest_until: datetime | None) -> bool:
    """Give the lease back without a new token. Nobody tries again before `rest_until`."""
    row = tables.OAuth
    query = row.update(refreshing_by=None, refreshing_until=rest_until)
    return bool(query.where(row.account == account, row.refreshing_by == who, row.version == version).execute(db))


def reseal(db: Database, of: OAuth, setup: str, token: str | None, key_id: str) -> bool:
    """Put the same secrets under another key, unless either has been changed meanwhile (then False)."""
    row = tables.OAuth
    query = row.update(setup=setup, token=token, key_id=key_id)
    same = row.token.is_null() if of.token is None else row.token == of.token
    return bool(query.where(row.account == of.account, row.setup == of.setup, same).execute(db))


def _oauth(row: dict[str, Any]) -> OAuth:
    return OAuth(**{**row, "refreshing_by": row["refreshing_by"] or ""})
