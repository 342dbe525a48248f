"""Accounts, senders and the journal, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC

import peewee
import pytest

from outbox.core.account import Account, Mechanism, Sender, Tls
from outbox.core.secret import Secret
from outbox.errors import Refused, VaultError
from outbox.keys import Keys, Origin, new
from outbox.store import accounts, faults, senders, tables
from outbox.store.accounts import account, add_account, pause_account, registry
from outbox.store.journal import journal
from outbox.store.senders import add_sender
from outbox.vault import Binding, Vault
from tests.contract.registered import ANN, AUTH, NOW, RUNNER, SHOP, journaled
from tests.contract.registered import db as db

# ---- reading and writing


def test_an_account_is_read_as_it_was_added(db: peewee.Database) -> None:
    assert account(db, "shop") == replace(SHOP, created_at=NOW)
    everything = Account(
        "all",
        "::1",
        2525,
        Tls.IMPLICIT,
        Mechanism.LOGIN,
        "ü",
        "token",
        "abcd1234",
        ca_file="/etc/ca.pem",
        max_connections=7,
        max_messages=9,
    )
    add_account(db, everything, ANN)
    assert account(db, "all") == replace(everything, created_at=NOW)
    assert [each.name for each in accounts.accounts(db)] == ["all", "backup", "shop"]


def test_an_account_inserted_by_sql_has_the_documented_defaults(db: peewee.Database) -> None:
    db.execute_sql("INSERT INTO outbox_account (name, relay_host, relay_port, tls) VALUES ('x', 'h', 25, 'none')")
    found = account(db, "x")
    assert (found.mechanism, found.credential_version, found.max_connections, found.max_messages) == ("auto", 1, 3, 100)
    assert (found.username, found.secret, found.pause_reason, found.breaker_failures) == ("", None, "", 0)
    assert found.created_at is not None
    assert found.created_at.tzinfo is UTC


def test_a_taken_name_an_unknown_name_and_a_refused_row_are_refused_in_words(db: peewee.Database) -> None:
    with pytest.raises(Refused, match="there is an account shop already"):
        add_account(db, SHOP, ANN)
    with pytest.raises(Refused, match="there is no account shoop"):
        account(db, "shoop")
    with pytest.raises(Refused, match="outbox_account_relay_port") as caught, db.atomic():
        add_account(db, replace(SHOP, name="bad", relay_port=70000), ANN)
    assert "gAAAA" not in str(caught.value)


@pytest.mark.parametrize(("host", "allowed"), [("127.0.0.9", True), ("::1", True), ("localhost", True), ("a.b", False)])
def test_a_password_without_tls_only_goes_to_this_machine(db: peewee.Database, host: str, allowed: bool) -> None:
    risky = replace(SHOP, name="risky", relay_host=host, tls=Tls.NONE)
    if allowed:
        add_account(db, risky, ANN)
    else:
        with pytest.raises(Refused, match="without TLS"):
            add_account(db, risky, ANN)


def test_an_account_with_senders_cannot_be_removed_and_one_without_can(db: peewee.Database) -> None:
    with pytest.raises(Refused, match=r"still has senders: \*@example.org, shop@example.com"):
        accounts.remove_account(db, "shop", ANN)
    with pytest.raises(peewee.IntegrityError), db.atomic():
        db.execute_sql("DELETE FROM outbox_account WHERE name = 'shop'")
    for address in ("shop@example.com", "*@example.org"):
        senders.remove_sender(db, address, ANN)
    accounts.remove_account(db, "shop", ANN)
    assert [each.name for each in accounts.accounts(db)] == ["backup"]


def test_every_change_leaves_a_line_in_the_journal_and_a_rollback_takes_both(db: peewee.Database) -> None:
    before = journaled(db)
    assert before == [
        ("ann", "account add", "account=shop"),
        ("ann", "account add", "account=backup"),
        ("ann", "sender add", "sender=shop@example.com"),
        ("ann", "sender add", "sender=*@example.org"),
    ]
    with db.atomic() as transaction:
        pause_account(db, "shop", "moving", None, ANN)
        transaction.rollback()
    assert (account(db, "shop").pause_reason, journaled(db)) == ("", before)
    journal(db, ANN, "retry", "state=failed", count=3, detail="they asked")
    line = tables.Journal.select().order_by(tables.Journal.id.desc()).first(db)
    assert (line.at, line.who, line.verb, line.matching, line.count, line.detail) == (
        NOW,
        "ann",
        "retry",
        "state=failed",
        3,
        "they asked",
    )


# ---- passwords


def test_a_new_password_has_a_new_version_and_lifts_what_a_runner_paused(db: peewee.Database) -> None:
    assert faults.pause_account(db, "shop", AUTH, RUNNER, used=1)
    accounts.set_password(db, replace(account(db, "shop"), secret="new", key_id="k", username="u"), ANN)
    found = account(db, "shop")
    assert (found.secret, found.key_id, found.username, found.credential_version) == ("new", "k", "u", 2)
    assert (found.pause_reason, found.paused_until) == ("", None)


def test_a_new_password_leaves_a_persons_own_pause(db: peewee.Database) -> None:
    pause_account(db, "shop", "moving", None, ANN)
    accounts.set_password(db, replace(account(db, "shop"), secret="new"), ANN)
    assert account(db, "shop").pause_reason == "operator: moving"


def test_a_password_for_settings_that_changed_meanwhile_is_not_stored(db: peewee.Database) -> None:
    read = account(db, "shop")
    db.execute_sql("UPDATE outbox_account SET relay_host = 'smtp.evil.test' WHERE name = 'shop'")
    with pytest.raises(Refused, match="changed meanwhile"):
        accounts.set_password(db, replace(read, secret="new"), ANN)
    assert account(db, "shop").secret == "gAAAA-token"


def test_a_secret_is_put_under_another_key_only_if_it_is_still_the_same(db: peewee.Database) -> None:
    read = account(db, "shop")
    assert accounts.reseal(db, read, "again", "k2")
    assert not accounts.reseal(db, read, "too late", "k3")
    found = account(db, "shop")
    assert (found.secret, found.key_id, found.credential_version) == ("again", "k2", 1)


def test_a_swapped_token_or_a_redirected_host_does_not_open(db: peewee.Database) -> None:
    vault = Vault(Keys((new(),), Origin.ENVIRONMENT))
    for name in ("one", "two"):
        plain = Account(name, "smtp.example.com", 465, Tls.IMPLICIT, username=name)
        token = vault.seal(Secret(f"password of {name}"), Binding.of(plain))
        add_account(db, replace(plain, secret=token, key_id=vault.key_id), ANN)
    assert vault.open_account(account(db, "one")).reveal() == "password of one"
    db.execute_sql("UPDATE outbox_account SET relay_host = 'smtp.evil.test' WHERE name = 'two'")
    with pytest.raises(VaultError, match=r"account two: the relay host is now 'smtp\.evil\.test'"):
        vault.open_account(account(db, "two"))
    one, two = account(db, "one"), account(db, "two")
    swap = "UPDATE outbox_account SET secret = CASE name WHEN 'one' THEN {0} ELSE {0} END WHERE name IN ('one', 'two')"
    db.execute_sql(swap.format(db.param), (two.secret, one.secret))
    for name in ("one", "two"):
        with pytest.raises(VaultError, match=f"account {name}: the account name is now '{name}'"):
            vault.open_account(account(db, name))


# ---- senders


def test_a_sender_is_stored_folded_and_only_once(db: peewee.Database) -> None:
    add_sender(db, Sender("Ann@Bücher.example", "backup", "Ann"), ANN)
    assert accounts.sender(db, "ann@xn--bcher-kva.example").display_name == "Ann"
    with pytest.raises(Refused, match="registered to account shop already"):
        add_sender(db, Sender("SHOP@example.com", "backup"), ANN)
    with pytest.raises(Refused, match="there is no account nobody"):
        add_sender(db, Sender("x@example.com", "nobody"), ANN)
    with pytest.raises(Refused, match="is not a registered sender"):
        accounts.sender(db, "x@example.org")


def test_a_return_path_must_be_registered_to_the_same_account(db: peewee.Database) -> None:
    add_sender(db, Sender("a@example.com", "shop", return_path="bounces@example.org"), ANN)
    add_sender(db, Sender("b@example.com", "backup", return_path="b@example.com"), ANN)
    for path in ("bounces@example.org", "bounces@elsewhere.test"):
        with pytest.raises(Refused, match="return path"):
            add_sender(db, Sender("c@example.com", "backup", return_path=path), ANN)


def test_the_registry_has_every_account_and_sender_and_resolves_them(db: peewee.Database) -> None:
    found = registry(db)
    assert set(found.accounts) == {"shop", "backup"}
    assert set(found.senders) == {"shop@example.com", "*@example.org"}
    route = found.resolve("shop@example.com")
    assert route is not None
    assert (route.account.name, route.sender.display_name) == ("shop", "Shop")
    assert found.resolve("other@example.com") is None
    assert found.allows("shop", "any@example.org")
    assert not found.allows("backup", "any@example.org")


def test_the_mail_that_waits_for_a_sender_is_counted(db: peewee.Database) -> None:
    for sender in ("shop@example.com", "SHOP@example.com", "a@example.org", "b@example.org", "c@elsewhere.test"):
        insert = "INSERT INTO outbox (sender, recipients, subject, text_body) VALUES ({0}, 'r@example.net', 's', 't')"
        db.execute_sql(insert.format(db.param), (sender,))
    assert accounts.waiting(db, "shop@example.com") == 2
    assert accounts.waiting(db, "*@example.org") == 2
    assert accounts.waiting(db, "x_@example.org") == 0
    db.execute_sql("UPDATE outbox_delivery SET state = 'held' WHERE sender = 'shop@example.com'")
    assert accounts.waiting(db, "shop@example.com") == 2
