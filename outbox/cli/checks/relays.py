"""How accounts reach their relays: who did not answer, and what protects the mail on its way."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from outbox.cli.checks import Check, Result

if TYPE_CHECKING:
    import peewee

    from outbox.cli.session import Session
    from outbox.core.account import Account

_MOVE = "make a new account with --tls {tls}, and move its senders to it"


def examine(session: Session, db: peewee.Database) -> Iterator[Check]:
    """Their relays, then their TLS. No connection is made."""
    from outbox.core.secret import Secret
    from outbox.smtp.dial import settings_flaw
    from outbox.smtp.relay import Relay
    from outbox.store import accounts

    found = accounts.accounts(db)
    yield from _faults(found)
    for account in found:
        config = session.config
        relay = Relay.of(account, helo=config.helo, password=Secret(), networks=config.networks())
        flaw = settings_flaw(relay)
        if flaw:
            yield Check("tls", Result.FAIL, f"account {account.name} cannot connect: {flaw}", _remedy(account, flaw))
        yield from _protection(account)


def _faults(found: Sequence[Account]) -> Iterator[Check]:
    """Relays that did not answer the last time; each once, however many accounts use it."""
    failing = {account.relay: account for account in found if account.breaker_failures}
    for relay, account in failing.items():
        times = (
            f"the last {account.breaker_failures:,} attempts" if account.breaker_failures > 1 else "the last attempt"
        )
        words = f"relay {relay}: {times} failed: {account.breaker_reason}"
        yield Check("relay", Result.WARN, words, f"outbox account test {shlex.quote(account.name)}")


def _remedy(account: Account, flaw: str) -> str:
    if flaw.startswith("CA file"):
        return f"put the file back, readable for the runner; or {_MOVE.format(tls=account.tls)} --ca-file FILE"
    if "relay_networks" in flaw:
        return "add its network to the setting relay_networks: docs/security.md"
    if flaw.startswith("TLS pin"):
        return f"{_MOVE.format(tls=account.tls)}; openssl x509 -in FILE -noout -fingerprint -sha256 prints the pin"
    return f"outbox account show {shlex.quote(account.name)}; `outbox config show` says what helo is"


def _protection(account: Account) -> Iterator[Check]:
    from outbox.core.account import Tls, is_loopback

    if is_loopback(account.relay_host):
        return
    if account.tls is Tls.NONE:
        words = f"account {account.name} talks to {account.relay} without TLS: who is on the way can read all its mail"
        yield Check("tls", Result.WARN, words, _MOVE.format(tls="starttls"))
    elif account.tls is Tls.OPPORTUNISTIC:
        name = f"account {account.name} is opportunistic"
        if account.starttls_seen_at is not None:
            yield Check("tls", Result.NOTE, f"{name}; {account.relay} has offered STARTTLS, so it must from now on")
        else:
            words = f"{name}: mail goes in clear as long as {account.relay} has never offered STARTTLS"
            yield Check("tls", Result.NOTE, words, _MOVE.format(tls="starttls"))
