"""What is kept of an account's OAuth, and the lease of who renews it, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import peewee
import pytest

from outbox.core.account import Account, Mechanism, Tls
from outbox.errors import Refused
from outbox.store import accounts, oauth, tables
from outbox.store.database import connect
from outbox.store.journal import Act
from outbox.store.oauth import LEASE, OAuth, Sealed

NOW = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)
ANN = Act("ann", NOW)
ME, OTHER = "a" * 32, "b" * 32
SHOP = Account("shop", "smtp.example.com", 587, Tls.STARTTLS, Mechanism.XOAUTH2, "shop@example.com")
HOUR = timedelta(hours=1)


@pytest.fixture
def db(database: peewee.Database) -> peewee.Database:
    """An account with a setup, and no token."""
    with database.atomic():
        accounts.add_account(database, SHOP, ANN)
        oauth.save(database, SHOP, Sealed("sealed-setup", "key1"), ANN, "account oauth")
    return database


@pytest.fixture
def other(db: peewee.Database, database_url: str) -> Iterator[peewee.Database]:
    """Another connection."""
    with closing(connect(database_url)) as opened:
        yield opened


def row(db: peewee.Database) -> OAuth:
    found = oauth.find(db, "shop")
    assert found is not None
    return found


def token(text: str, setup: str = "sealed-setup", life: timedelta = HOUR) -> Sealed:
    return Sealed(setup, "key1", text, life)


def test_a_setup_is_read_as_it_was_stored(db: peewee.Database) -> None:
    assert row(db) == OAuth("shop", "sealed-setup", None, "key1")
    assert oauth.every(db) == [row(db)]
    assert oauth.find(db, "nobody") is None
    assert "sealed-setup" not in repr(row(db))


def test_a_new_setup_is_a_new_credential_and_lifts_what_a_runner_has_paused(db: peewee.Database) -> None:
    before = accounts.account(db, "shop")
    tables.Account.update(pause_reason="auth: 535", paused_until=NOW).execute(db)
    assert oauth.take(db, "shop", ME, 1, NOW)
    oauth.save(db, SHOP, Sealed("other-setup", "key2", "sealed-token", HOUR), ANN, "account login")
    after = accounts.account(db, "shop")
    assert (after.credential_version, after.pause_reason) == (before.credential_version + 1, "")
    expected = OAuth("shop", "other-setup", "sealed-token", "key2", 2, NOW + HOUR * 0.8, NOW + HOUR)
    assert row(db) == expected
    assert row(db).refreshed_at == NOW
    lines = [(line.verb, line.matching) for line in tables.Journal.select().order_by(tables.Journal.id).execute(db)]
    assert lines[-1] == ("account login", "account=shop")


def test_a_persons_pause_outlives_a_new_setup(db: peewee.Database) -> None:
    accounts.pause_account(db, "shop", "moving", None, ANN)
    oauth.save(db, SHOP, Sealed("other-setup", "key1"), ANN, "account oauth")
    assert accounts.account(db, "shop").is_paused(NOW)


def test_a_setup_for_settings_that_have_changed_is_refused(db: peewee.Database) -> None:
    tables.Account.update(relay_host="smtp.evil.test").execute(db)
    with pytest.raises(Refused, match="changed meanwhile"), db.atomic():
        oauth.save(db, SHOP, Sealed("other-setup", "key1"), ANN, "account oauth")
    assert row(db).setup == "sealed-setup"


def test_the_setup_goes_with_its_account(db: peewee.Database) -> None:
    accounts.remove_account(db, "shop", ANN)
    assert oauth.every(db) == []


# ---- the lease


def test_the_lease_is_for_one_until_it_runs_out(db: peewee.Database, other: peewee.Database) -> None:
    assert oauth.take(db, "shop", ME, 1, NOW)
    assert not oauth.take(other, "shop", OTHER, 1, NOW + LEASE - timedelta(milliseconds=1))
    assert not oauth.take(db, "shop", ME, 1, NOW)  # nor twice for one
    assert (row(db).refreshing_by, row(db).is_leased(NOW)) == (ME, True)
    assert oauth.take(other, "shop", OTHER, 1, NOW + LEASE)
    assert row(db).refreshing_by == OTHER


def test_the_lease_is_for_the_version_that_was_seen(db: peewee.Database) -> None:
    assert not oauth.take(db, "shop", ME, 2, NOW)
    assert not oauth.take(db, "nobody", ME, 1, NOW)


def test_a_new_token_is_stored_once_with_its_refresh_token_and_the_lease_given_back(db: peewee.Database) -> None:
    assert oauth.take(db, "shop", ME, 1, NOW)
    later = NOW + timedelta(seconds=2)
    assert oauth.write(db, "shop", ME, 1, token("sealed-token", "rotated-setup"), later)
    assert row(db) == OAuth("shop", "rotated-setup", "sealed-token", "key1", 2, later + HOUR * 0.8, later + HOUR)
    assert not oauth.write(db, "shop", ME, 1, token("again"), later)
    assert accounts.account(db, "shop").credential_version == 2  # a token is no new credential


def test_who_has_lost_the_lease_writes_nothing(db: peewee.Database, other: peewee.Database) -> None:
    assert oauth.take(db, "shop", ME, 1, NOW)
    assert oauth.take(other, "shop", OTHER, 1, NOW + LEASE)
    assert not oauth.write(db, "shop", ME, 1, token("late"), NOW + LEASE)
    assert not oauth.release(db, "shop", ME, 1, None)
    assert oauth.write(other, "shop", OTHER, 1, token("mine"), NOW + LEASE)
    assert row(db).token == "mine"


def test_a_setup_stored_meanwhile_is_not_overwritten(db: peewee.Database) -> None:
    assert oauth.take(db, "shop", ME, 1, NOW)
    oauth.save(db, SHOP, Sealed("other-setup", "key1"), ANN, "account oauth")
    assert not oauth.write(db, "shop", ME, 1, token("late"), NOW)
    assert not oauth.write(db, "shop", ME, 2, token("late"), NOW)
    assert row(db) == OAuth("shop", "other-setup", None, "key1", 2)


def test_after_a_failure_nobody_asks_for_a_while(db: peewee.Database) -> None:
    rest = NOW + timedelta(seconds=30)
    assert oauth.take(db, "shop", ME, 1, NOW)
    assert oauth.release(db, "shop", ME, 1, rest)
    assert (row(db).refreshing_by, row(db).refreshing_until) == ("", rest)
    assert not oauth.take(db, "shop", OTHER, 1, NOW)
    assert oauth.take(db, "shop", OTHER, 1, rest)
    assert oauth.release(db, "shop", OTHER, 1, None)
    assert oauth.take(db, "shop", ME, 1, NOW)


def test_of_many_who_reach_for_the_lease_one_has_it(db: peewee.Database, database_url: str) -> None:
    start = threading.Barrier(6)
    taken: list[str] = []

    def reach(who: str) -> None:
        with closing(connect(database_url)) as own:
            start.wait(10)
            with own.atomic():
                if oauth.take(own, "shop", who, 1, NOW):
                    taken.append(who)

    threads = [threading.Thread(target=reach, args=(str(number) * 32,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert taken == [row(db).refreshing_by]


# ---- keys


def test_resealing_keeps_everything_else_and_gives_way_to_a_change(db: peewee.Database) -> None:
    before = row(db)
    assert oauth.reseal(db, before, "resealed", None, "key2")
    assert row(db) == OAuth("shop", "resealed", None, "key2")
    assert not oauth.reseal(db, before, "again", None, "key2")
    assert oauth.take(db, "shop", ME, 1, NOW)
    before = row(db)
    assert oauth.write(db, "shop", ME, 1, token("sealed-token", "resealed"), NOW)
    assert not oauth.reseal(db, before, "again", None, "key3")  # a token has come meanwhile
    with_token = row(db)
    assert oauth.reseal(db, with_token, "again", "token-again", "key3")
    assert (row(db).setup, row(db).token, row(db).version) == ("again", "token-again", 2)
