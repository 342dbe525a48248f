"""What the tests of accounts, senders and pauses share: two accounts and their senders, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import peewee
import pytest

from outbox.core.account import Account, Sender, Tls
from outbox.core.outcome import Scope
from outbox.core.pause import Pause
from outbox.core.policy import Policy
from outbox.store import tables
from outbox.store.accounts import add_account
from outbox.store.journal import Act
from outbox.store.senders import add_sender

NOW = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)
ANN = Act("ann", NOW)
RUNNER = Act("runner 1", NOW)
SHOP = Account("shop", "smtp.example.com", 587, Tls.STARTTLS, username="shop@example.com", secret="gAAAA-token")
BACKUP = Account("backup", "127.0.0.1", 25, Tls.NONE)
AUTH = Pause(Scope.ACCOUNT, "auth: 535 5.7.8 no", Policy().auth_pauses)
NOT_OURS = Pause(Scope.SENDER, "mail: 553 5.7.1 no", Policy().sender_pauses)


def later(**by: float) -> Act:
    return Act("runner 1", NOW + timedelta(**by))


@pytest.fixture
def db(database: peewee.Database) -> peewee.Database:
    """Two accounts, and ``shop@example.com`` and ``*@example.org`` registered to the first."""
    with database.atomic():
        add_account(database, SHOP, ANN)
        add_account(database, BACKUP, ANN)
        add_sender(database, Sender("shop@example.com", "shop", "Shop"), ANN)
        add_sender(database, Sender("*@example.org", "shop"), ANN)
    return database


def journaled(db: peewee.Database) -> list[tuple[str, str, str]]:
    query = tables.Journal.select().order_by(tables.Journal.id)
    return [(line.who, line.verb, line.matching) for line in query.execute(db)]
