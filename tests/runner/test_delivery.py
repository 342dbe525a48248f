"""One message, from claim to settlement, against a scripted relay: the real runner, in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outbox import keys
from outbox.clock import Clock
from outbox.core.account import Account, Sender, Tls
from outbox.core.secret import Secret
from outbox.store import accounts, senders
from outbox.store.journal import Act
from outbox.vault import Binding, Vault
from tests.relay import DROP, Relay
from tests.runner.errands import mail, send
from tests.running import SHOP, Site


@pytest.fixture
def vault() -> Vault:
    return Vault(keys.Keys((keys.new(),), keys.Origin.ENVIRONMENT))


def log_in(site: Site, relay: Relay, vault: Vault, password: str, name: str = "main", sender: str = SHOP) -> None:
    """An account with a password, and its sender."""
    account = Account(name, "127.0.0.1", relay.port, Tls.NONE, username="ann")
    token = vault.seal(Secret(password), Binding.of(account))
    act = Act("test", Clock().now())
    with site.db.atomic():
        accounts.add_account(site.db, replace(account, secret=token, key_id=vault.key_id), act)
        senders.add_sender(site.db, Sender(sender, name), act)


def state(site: Site, message_id: int) -> tuple[Any, ...]:
    sql = "SELECT state, failures, doubts, last_status, last_reply FROM outbox_delivery WHERE message_id = ?"
    (row,) = site.query(sql, message_id)
    return tuple(row)


def fates(site: Site, message_id: int) -> list[str]:
    sql = "SELECT fate FROM outbox_fate WHERE message_id = ? ORDER BY position"
    return [row[0] for row in site.query(sql, message_id)]


def many(count: int) -> str:
    return ", ".join(f"r{place}@example.net" for place in range(count))


# ---- recipients


def test_many_recipients_go_in_parts_each_with_its_own_dot(site: Site, tmp_path: Path) -> None:
    with Relay() as relay:
        site.register(relay.port)
        message_id = mail(site, recipients=many(250))
        send(site, tmp_path)
        assert [len(each.recipients) for each in relay.messages] == [100, 100, 50]
    assert state(site, message_id)[0] == "sent"
    assert fates(site, message_id) == ["accepted"] * 250
    assert len({each.content for each in relay.messages}) == 1


def test_too_many_recipients_is_learnt_and_no_fault(site: Site, tmp_path: Path) -> None:
    def at_most_ten(session: Any, line: str) -> str | None:
        return "452 4.5.3 too many recipients" if len(session.recipients) >= 10 else None

    with Relay({"rcpt": at_most_ten}) as relay:
        site.register(relay.port)
        message_id = mail(site, recipients=many(25))
        send(site, tmp_path)
        assert [len(each.recipients) for each in relay.messages] == [10, 10, 5]
    assert state(site, message_id)[:2] == ("sent", 0)


def test_the_relays_announced_limit_is_kept(site: Site, tmp_path: Path) -> None:
    with Relay(extensions=("PIPELINING", "LIMITS RCPTMAX=10")) as relay:
        site.register(relay.port)
        mail(site, recipients=many(25))
        send(site, tmp_path)
        assert [len(each.recipients) for each in relay.messages] == [10, 10, 5]


def test_a_connection_that_is_of_no_more_use_is_closed_before_another_is_opened(site: Site, tmp_path: Path) -> None:
    with Relay({"rcpt:r3@example.net": "501 5.1.3 syntax"}, extensions=("PIPELINING", "LIMITS RCPTMAX=10")) as relay:
        site.register(relay.port)
        message_id = mail(site, recipients=many(25))
        send(site, tmp_path)
        assert len(relay.sessions) == 2
        assert sum(len(each.recipients) for each in relay.messages) == 24
    assert state(site, message_id)[0] == "failed"


def test_only_what_is_pending_is_tried_again(site: Site, tmp_path: Path) -> None:
    with Relay({"rcpt:r1@example.net": ["450 4.2.0 greylisted"], "rcpt:r2@example.net": "550 5.1.1 unknown"}) as relay:
        site.register(relay.port)
        message_id = mail(site, recipients=many(3))
        send(site, tmp_path)
        assert state(site, message_id)[:2] == ("queued", 1)
        assert fates(site, message_id) == ["accepted", "deferred", "bounced"]
        site.query("UPDATE outbox_delivery SET due_at = first_attempt_at")
        send(site, tmp_path)
        assert [each.recipients for each in relay.messages] == [("r0@example.net",), ("r1@example.net",)]
    assert state(site, message_id)[0] == "failed"
    assert fates(site, message_id) == ["accepted", "accepted", "bounced"]


def test_a_fault_in_the_second_part_leaves_the_first_delivered(site: Site, tmp_path: Path) -> None:
    with Relay({"data": [None, "451 4.3.0 later"]}) as relay:
        site.register(relay.port)
        message_id = mail(site, recipients=many(150))
        send(site, tmp_path)
        assert len(relay.messages) == 1
    assert state(site, message_id)[:2] == ("queued", 1)
    assert fates(site, message_id) == ["accepted"] * 100 + ["deferred"] * 50


def test_a_refusal_of_the_content_holds_for_every_part(site: Site, tmp_path: Path) -> None:
    with Relay({"dot": "554 5.7.1 spam"}) as relay:
        site.register(relay.port)
        message_id = mail(site, recipients=many(150))
        send(site, tmp_path)
        assert sum(line == "DATA" for line in relay.commands) == 1
    assert state(site, message_id)[0] == "failed"
    assert fates(site, message_id) == ["bounced"] * 150


def test_silence_after_one_dot_puts_only_its_part_in_doubt(site: Site, tmp_path: Path) -> None:
    with Relay({"dot": [None, DROP]}) as relay:
        site.register(relay.port)
        message_id = mail(site, recipients=many(250), on_doubt="hold")
        send(site, tmp_path)
    assert state(site, message_id)[:3] == ("held", 0, 1)
    assert fates(site, message_id) == ["accepted"] * 100 + ["doubt"] * 100


# ---- senders


def test_the_senders_name_and_return_path_are_used(site: Site, tmp_path: Path) -> None:
    with Relay() as relay:
        site.register(relay.port)
        site.query("UPDATE outbox_sender SET display_name = 'The Shop', return_path = 'bounces@example.com'")
        mail(site)
        send(site, tmp_path)
        (message,) = relay.messages
    assert message.sender == "bounces@example.com"
    assert b"From: The Shop <shop@example.com>" in message.content


@pytest.mark.parametrize(
    "columns",
    [
        {"sender": "ceo@example.com"},
        {"return_path": "else@example.org"},
        {"raw": b"From: ceo@example.com\r\nTo: ann@example.net\r\n\r\nhello\r\n", "text_body": None, "subject": None},
        {
            "raw": b"From: shop@example.com\r\nSender: ceo@example.com\r\nTo: ann@example.net\r\n\r\nhello\r\n",
            "text_body": None,
            "subject": None,
        },
    ],
    ids=["sender", "return path", "From in raw", "Sender in raw"],
)
def test_an_address_that_is_not_registered_is_refused_visibly(
    site: Site, tmp_path: Path, columns: dict[str, Any]
) -> None:
    with Relay() as relay:
        site.register(relay.port)
        message_id = mail(site, **columns)
        send(site, tmp_path)
        assert relay.messages == []
    found, _, _, status, reply = state(site, message_id)
    assert (found, status) == ("failed", "5.7.1")
    assert "sender not registered" in reply
    assert "outbox sender add" in reply


# ---- faults that reach beyond one message


def test_a_wrong_password_pauses_the_account_and_fails_nothing(site: Site, tmp_path: Path, vault: Vault) -> None:
    with Relay(credentials={"ann": "right"}) as relay:
        log_in(site, relay, vault, "wrong")
        message_id = mail(site)
        send(site, tmp_path, vault)
    assert state(site, message_id)[:2] == ("queued", 0)
    ((reason,),) = site.query("SELECT pause_reason FROM outbox_account")
    assert reason.startswith("auth: 535")
    assert site.query("SELECT outcome FROM outbox_attempt") == [("paused",)]


def test_a_token_of_another_account_pauses_the_account_with_a_reason(site: Site, tmp_path: Path, vault: Vault) -> None:
    with Relay(credentials={"ann": "right"}) as relay:
        log_in(site, relay, vault, "right")
        log_in(site, relay, vault, "right", "other", "other@example.com")
        site.query("UPDATE outbox_account SET secret = (SELECT secret FROM outbox_account WHERE name = 'other')")
        message_id = mail(site)
        send(site, tmp_path, vault)
        assert relay.commands == []
    assert state(site, message_id)[:2] == ("queued", 0)
    ((reason,),) = site.query("SELECT pause_reason FROM outbox_account WHERE name = 'main'")
    assert "account name is now 'main'" in reason


def test_the_right_password_is_used(site: Site, tmp_path: Path, vault: Vault) -> None:
    with Relay(credentials={"ann": "right"}) as relay:
        log_in(site, relay, vault, "right")
        message_id = mail(site)
        send(site, tmp_path, vault)
    assert state(site, message_id)[0] == "sent"


def test_a_refused_sender_is_paused_and_the_others_go_on(site: Site, tmp_path: Path) -> None:
    with Relay({f"mail:{SHOP}": "553 5.7.1 not owned by user"}) as relay:
        site.register(relay.port)
        with site.db.atomic():
            senders.add_sender(site.db, Sender("news@example.com", "main"), Act("test", Clock().now()))
        refused, fine = mail(site), mail(site, sender="news@example.com")
        send(site, tmp_path)
    assert state(site, refused)[:2] == ("queued", 0)
    assert state(site, fine)[0] == "sent"
    paused = site.query("SELECT address FROM outbox_sender WHERE pause_reason IS NOT NULL")
    assert paused == [(SHOP,)]


def test_a_relay_that_is_down_counts_in_its_breaker_only(site: Site, tmp_path: Path) -> None:
    site.register(9)  # discard: nobody listens there
    message_id = mail(site)
    send(site, tmp_path)
    assert state(site, message_id)[:2] == ("queued", 0)
    ((failures, reason),) = site.query("SELECT breaker_failures, breaker_reason FROM outbox_account")
    assert failures == 1
    assert reason.startswith("connect")


def test_a_connection_that_died_while_idle_costs_nothing(site: Site, tmp_path: Path) -> None:
    with Relay({"mail": [None, DROP, None]}) as relay:
        site.register(relay.port, connections=1)
        ids = [mail(site), mail(site)]
        send(site, tmp_path)
        assert len(relay.messages) == 2
    assert [state(site, each)[:2] for each in ids] == [("sent", 0), ("sent", 0)]


def test_what_expires_before_it_is_sent_is_not_sent(site: Site, tmp_path: Path) -> None:
    with Relay() as relay:
        site.register(relay.port)
        message_id = mail(site, expires_at="2026-01-01T00:00:00Z")
        send(site, tmp_path)
        assert relay.messages == []
    assert state(site, message_id)[0] == "expired"


def test_the_attempt_says_what_was_sent_where_and_how(site: Site, tmp_path: Path) -> None:
    with Relay() as relay:
        site.register(relay.port)
        mail(site)
        send(site, tmp_path)
        port = relay.port
        assert relay.commands[0] == "EHLO client.example.com"
    sql = "SELECT outcome, stage, code, status, relay, account, sha256, dot_at IS NOT NULL FROM outbox_attempt"
    ((outcome, stage, code, status, peer, account, sha256, dotted),) = site.query(sql)
    assert (outcome, stage, code, status, account) == ("accepted", "dot", 250, "2.0.0", "main")
    assert peer == f"127.0.0.1[127.0.0.1]:{port}"
    assert len(sha256) == 64
    assert dotted
