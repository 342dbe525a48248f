"""A fault that reaches beyond one message, written in the transaction of the settlement that met it.

Together or not at all: a message that is back in the queue without the pause would run into the same fault at once.
"""

from __future__ import annotations

from peewee import Database

from outbox.core.outcome import Scope
from outbox.core.settlement import Settlement
from outbox.store import accounts, senders, tables
from outbox.store.journal import Act


def record(db: Database, settlement: Settlement, act: Act) -> None:
    """Pause the account or the sender, or count in the relay's breaker, as `settlement.pause` says."""
    pause, used = settlement.pause, settlement.credential_version
    row = tables.Account
    account = row.select(row.relay_host, row.relay_port).where(row.name == settlement.account).first(db)
    if pause is None or account is None:
        return
    if pause.scope is Scope.RELAY:
        accounts.trip_relay(db, account.relay_host, account.relay_port, pause.reason, act)
    elif pause.scope is Scope.ACCOUNT:
        accounts.pause_account(db, settlement.account, pause.reason, pause.until, act, used=used)
    elif pause.scope is Scope.SENDER:
        senders.pause_sender(db, settlement.sender, pause.reason, pause.until, act, used=used)
