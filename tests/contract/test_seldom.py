"""What seldom happens to a row: it was erased, somebody else was faster, or what was asked is not there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import peewee
import pytest

from outbox.core.account import Sender
from outbox.core.dkim import Algorithm
from outbox.core.dkim_key import SealedKey
from outbox.core.limits import Limit, Limited
from outbox.core.outcome import Scope
from outbox.core.pause import Probed, Subject
from outbox.core.settlement import Result
from outbox.core.suppression import Suppression
from outbox.errors import Refused
from outbox.store import Mark, Settled, Store, accounts, audit, events, faults, operate, probes, senders, suppression
from outbox.store import dkim as dkim_keys
from outbox.store import limits as stored_limits
from outbox.store.accounts import account, close_breaker, remove_account, trip_relay
from outbox.store.database import dialect
from outbox.store.events import EVERYTHING, Kind, Recording
from outbox.store.filters import Filter
from outbox.store.limits import Want
from tests.contract.registered import ANN, AUTH, NOT_OURS, NOW, RUNNER, journaled
from tests.contract.registered import db as db
from tests.contract.stores import LATER, add, attempts, claim, deferred, delivery, fates, sent, settle, write
from tests.contract.stores import NOW as CLAIMED
from tests.statements import MOMENT, rows, run
from tests.stories import GREYLISTED, NO_SUCH_USER, OK, Stories

ERASE = "UPDATE outbox SET erased_at = ?, text_body = NULL WHERE id = ?"


def erased(database: peewee.Database, message_id: int) -> None:
    """By somebody who got around the triggers: what is not finished cannot be erased."""
    run(database, f"DROP TRIGGER outbox_immutable{' ON outbox' if dialect(database) == 'postgres' else ''}")
    run(database, ERASE, MOMENT, message_id)


# -- erased mail


def test_of_erased_mail_a_doubt_is_nobodys(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    (claimed,) = claim(store)
    write(store, lambda: store.mark([Mark(message_id, claimed.claim_no)], CLAIMED))
    erased(database, message_id)
    (taken,) = write(store, lambda: store.reclaim_stray(message_id, claimed.claim_no, 3, CLAIMED))
    assert taken.dotted
    assert fates(database, message_id) == []
    assert delivery(database, message_id, "state", "doubts") == ("queued", 1)


def test_erased_mail_in_doubt_is_resolved_by_those_who_were_tried(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(recipients="ann@example.net, bob@example.net", on_doubt="hold")
    stories.attempt(message_id, None)
    erased(db, message_id)
    (answer,) = operate.resolve(db, [message_id], sent=True, who="olga")
    assert (answer.done, stories.states(message_id)) == (True, ["sent"])


def test_mail_in_doubt_whose_others_were_never_tried_waits_for_them(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(recipients="ann@example.net, bob@example.net", on_doubt="hold")
    stories.crashed(message_id, through=0)
    (answer,) = operate.resolve(db, [message_id], sent=True, who="olga")
    assert answer.words == "is queued, due now, for the recipients that nobody has tried yet"
    assert rows(db, "SELECT kind FROM outbox_event WHERE kind <> 'doubt'") == []
    stories.attempt(message_id, OK)
    sql = "SELECT fate FROM outbox_fate WHERE message_id = ? ORDER BY position"
    assert stories.sql(sql, message_id) == [("accepted",), ("accepted",)]


def test_mail_in_doubt_whose_others_were_refused_has_failed(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(recipients="ann@example.net, bob@example.net", on_doubt="hold")
    stories.attempt(message_id, None, [OK, NO_SUCH_USER])
    (answer,) = operate.resolve(db, [message_id], sent=True, who="olga")
    assert answer.words == "is failed: other recipients were refused"
    assert rows(db, "SELECT kind, claim_no, reply FROM outbox_event WHERE kind = 'bounced'") == [
        ("bounced", 2, "resolved by olga")
    ]
    assert audit.show(db, message_id).state == "failed"


# -- somebody else was faster


def refuse(database: peewee.Database, table: str, when: str) -> None:
    """Whatever is written there breaks a rule, as it does when somebody else was there first."""
    if dialect(database) == "sqlite":
        body = "SELECT RAISE(ABORT, 'taken')"
        run(database, f"CREATE TRIGGER taken BEFORE {when} ON {table} BEGIN {body}; END")
        return
    body = "BEGIN RAISE EXCEPTION 'taken' USING ERRCODE = 'integrity_constraint_violation'; END"
    run(database, f"CREATE FUNCTION taken() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
    run(database, f"CREATE TRIGGER taken BEFORE {when} ON {table} FOR EACH ROW EXECUTE FUNCTION taken()")


KEY = SealedKey("shop@example.com", "s1", "example.com", Algorithm.RSA, "token", "key1")


@pytest.mark.parametrize(
    ("table", "when", "act", "words"),
    [
        ("outbox_account", "DELETE", lambda db: remove_account(db, "backup", ANN), "was given a sender just now"),
        (
            "outbox_dkim",
            "INSERT",
            lambda db: dkim_keys.add_key(db, KEY, ANN),
            "the DKIM key s1 cannot be stored: taken",
        ),
        (
            "outbox_sender",
            "INSERT",
            lambda db: senders.add_sender(db, Sender("new@example.com", "shop"), ANN),
            "sender new@example.com cannot be added: taken",
        ),
        (
            "outbox_suppression",
            "INSERT",
            lambda db: suppression.add(db, [Suppression("a@b.example", "x")], ANN),
            "an address cannot be suppressed: taken",
        ),
    ],
    ids=["account", "dkim", "sender", "suppression"],
)
def test_what_a_rule_of_the_schema_refuses_is_told_in_words(
    db: peewee.Database, table: str, when: str, act: Callable[[peewee.Database], Any], words: str
) -> None:
    refuse(db, table, when)
    before = journaled(db)
    with pytest.raises(Refused, match=words), db.atomic():
        act(db)
    assert journaled(db) == before


# -- faults and probes


def paused(db: peewee.Database) -> list[tuple[str, str]]:
    sql = "SELECT 'account', name FROM outbox_account WHERE pause_reason IS NOT NULL UNION ALL SELECT 'sender', address"
    return [(kind, name) for kind, name in rows(db, f"{sql} FROM outbox_sender WHERE pause_reason IS NOT NULL")]


def test_a_settlement_pauses_what_its_fault_is_about(db: peewee.Database, store: Store) -> None:
    add(db)
    (claimed,) = claim(store)
    end = sent(claimed, account="shop", sender="shop@example.com", credential_version=1)
    faults.record(db, replace(end, pause=NOT_OURS), RUNNER)
    assert paused(db) == [("sender", "shop@example.com")]
    faults.record(db, replace(end, pause=AUTH), RUNNER)
    assert paused(db) == [("account", "shop"), ("sender", "shop@example.com")]
    assert [verb for _, verb, _ in journaled(db)][-2:] == ["sender pause", "account pause"]
    faults.record(db, replace(end, account="nobody", pause=AUTH), RUNNER)  # it was removed meanwhile
    assert len(paused(db)) == 2


def test_a_settlement_writes_what_its_probe_has_shown(db: peewee.Database, store: Store) -> None:
    faults.pause_account(db, "shop", AUTH, RUNNER, used=1)
    subject = Subject(Scope.ACCOUNT, "shop")
    over = account(db, "shop").paused_until
    assert over is not None
    probe = probes.take(db, (subject,), over)
    assert probe is not None
    add(db)
    (claimed,) = claim(store)
    end = replace(sent(claimed, account="shop"), probed=Probed(probe, (subject,)))
    faults.record(db, end, replace(RUNNER, at=over))
    assert paused(db) == []
    assert account(db, "shop").probe_until is None
    assert journaled(db)[-1][1:] == ("account recover", "account=shop")


def test_a_relay_that_nothing_was_counted_of_does_not_recover(db: peewee.Database) -> None:
    assert close_breaker(db, "smtp.example.com", 587) == 0
    subject = Subject(Scope.RELAY, "smtp.example.com", 587)
    before = journaled(db)
    probes._recover_relay(db, subject, RUNNER)
    assert journaled(db) == before
    trip_relay(db, "smtp.example.com", 587, "refused", RUNNER)
    assert close_breaker(db, "127.0.0.1", 25) == 0
    assert close_breaker(db, "smtp.example.com", 25) == 0
    probes._recover_relay(db, subject, RUNNER)
    assert journaled(db)[-1][1:] == ("relay recover", "relay=smtp.example.com:587")
    assert accounts.account(db, "shop").breaker_failures == 0


def test_a_relay_that_rests_does_not_recover(db: peewee.Database) -> None:
    for _ in range(5):
        trip_relay(db, "smtp.example.com", 587, "refused", RUNNER)
    until = account(db, "shop").breaker_until
    assert until is not None
    subject = Subject(Scope.RELAY, "smtp.example.com", 587)
    probes._recover_relay(db, subject, replace(RUNNER, at=until - timedelta(milliseconds=1)))
    assert account(db, "shop").breaker_failures == 5
    probes._recover_relay(db, subject, replace(RUNNER, at=until))
    assert account(db, "shop").breaker_failures == 0


# -- what was written before, and by whom


def test_what_another_message_had_for_an_outcome_says_nothing_of_this_one(
    store: Store, database: peewee.Database
) -> None:
    """Both are at their first claim, and the other one came first."""
    add(database, 2)
    first, second = claim(store)
    assert settle(store, deferred(first)) == [Settled.WRITTEN]
    write(store, lambda: store.reclaim_stray(second.message_id, 1, 3, CLAIMED))
    assert settle(store, deferred(second)) == [Settled.LATE]
    assert attempts(database, second.message_id) == [(1, Result.LOST, Result.DEFERRED)]
    assert attempts(database, first.message_id) == [(1, Result.DEFERRED, None)]


def test_a_late_acceptance_is_of_its_own_message(store: Store, database: peewee.Database) -> None:
    add(database, 2)
    first, second = claim(store)
    for each in (first, second):
        write(store, lambda each=each: store.reclaim_stray(each.message_id, 1, 3, CLAIMED))  # type: ignore[misc]
    assert settle(store, sent(second)) == [Settled.LATE]
    assert [delivery(database, each.message_id, "state", "claim_no") for each in (first, second)] == [
        ("queued", 1),
        ("sent", 2),
    ]
    assert attempts(database, first.message_id) == [(1, Result.LOST, None)]


def test_what_is_not_to_be_recorded_is_not(store: Store, database: peewee.Database) -> None:
    store.recording = Recording(record=(), webhook=("expired",))
    (message_id,) = add(database)
    (claimed,) = claim(store)
    write(store, lambda: store.mark([Mark(message_id, claimed.claim_no)], CLAIMED))
    write(store, lambda: store.reclaim_stray(message_id, claimed.claim_no, 3, CLAIMED))
    assert rows(database, "SELECT kind FROM outbox_event") == []
    add(database, expires_at=CLAIMED.isoformat())
    assert write(store, lambda: store.expire(LATER)) == 1
    events = rows(database, "SELECT kind, message_id, claim_no FROM outbox_event")
    assert events == [("expired", message_id + 1, 0)]
    assert [EVERYTHING.wants(kind) for kind in Kind] == [True] * len(Kind)


# -- filters


def listed(db: peewee.Database, **which: Any) -> list[int]:
    return [line.id for line in audit.listing(db, Filter(**which))]


def test_a_domain_of_very_many_senders_is_found_as_one_of_few(stories: Stories, db: peewee.Database) -> None:
    few = [stories.mail(sender=f"s{number}@few.example") for number in range(50)]
    many = [stories.mail(sender=f"s{number}@many.example") for number in range(51)]
    stories.attempt(few[0], OK)
    stories.attempt(many[0], OK)
    assert sorted(listed(db, sender="*@few.example")) == few
    assert audit.counts(db, Filter(sender="*@many.example")) == {"queued": 50, "sent": 1}
    assert audit.counts(db, Filter(sender="*@few.example")) == {"queued": 49, "sent": 1}


def test_a_status_is_found_whole_or_by_its_class(stories: Stories, db: peewee.Database) -> None:
    sent_one, grey, unknown = (stories.mail(), stories.mail(), stories.mail())
    stories.attempt(sent_one, OK)
    stories.attempt(grey, GREYLISTED)
    stories.attempt(unknown, OK, [NO_SUCH_USER])
    found = {
        code: listed(db, code=code) for code in ("2", "2.0.0", "4", "4.7", "4.7.1", "5.1", "5.1.1", "4.7.11", "5.11")
    }
    assert found == {
        "2": [sent_one],
        "2.0.0": [sent_one],
        "4": [grey],
        "4.7": [grey],
        "4.7.1": [grey],
        "5.1": [unknown],
        "5.1.1": [unknown],
        "4.7.11": [],
        "5.11": [],
    }
    assert listed(db, code="250") == [sent_one]
    assert listed(db, code="451") == [grey]


def test_very_many_statuses_are_found_as_few(stories: Stories, db: peewee.Database) -> None:
    ids = [stories.mail() for _ in range(51)]
    for place, each in enumerate(ids):
        run(db, "UPDATE outbox_delivery SET last_status = ? WHERE message_id = ?", f"4.7.{place}", each)
    assert sorted(listed(db, code="4.7")) == sorted(ids)[-50:]
    assert audit.counts(db, Filter(code="4.7")) == {"queued": 51}
    assert listed(db, code="4.7.50") == [ids[-1]]


def test_a_key_that_nobody_has_is_refused(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(dedup_key="order-7")
    stories.mail(dedup_key="order-8")
    assert audit.by_key(db, "order-7") == message_id
    with pytest.raises(Refused, match="there is no message with the key order-9"):
        audit.by_key(db, "order-9")


# -- limits


def test_counters_that_share_a_name_with_another_scope_are_told_apart(db: peewee.Database) -> None:
    account_limit = Limit(Limited.ACCOUNT, "shop", per_minute=5)
    domain_limit = Limit(Limited.DOMAIN, "example.net", per_day=7)
    strange = Limit(Limited.DOMAIN, "shop", per_minute=9)
    wants = [Want(each, 2) for each in (account_limit, domain_limit, strange)]
    with db.atomic():
        assert stored_limits.reserve(db, [wants], NOW) == [()]
        assert stored_limits.reserve(db, [wants[:2]], NOW) == [()]
    found = rows(db, "SELECT scope, name, span, used FROM outbox_usage ORDER BY scope, name")
    assert found == [
        ("account", "shop", "minute", 4),
        ("domain", "example.net", "day", 4),
        ("domain", "shop", "minute", 2),
    ]


def test_an_error_of_the_database_is_no_matter_of_a_message(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail()
    run(db, "ALTER TABLE outbox_attachment RENAME TO gone")
    with pytest.raises(peewee.PeeweeException, match="outbox_attachment"):
        audit.message(db, message_id)


def test_an_event_is_old_when_it_is_from_before_and_not_from_then(db: peewee.Database) -> None:
    for place in range(3):
        events.record(db, EVERYTHING, Kind.PAUSED, NOW, subject=f"account={place}")
    assert not events.has_old(db, NOW)
    assert events.forget(db, NOW) == 0
    later = NOW + timedelta(milliseconds=1)
    assert events.has_old(db, later)
    assert events.forget(db, later, 1) == 1
    assert events.forget(db, later) == 1  # the last one stays
    assert [each.subject for each in events.listing(db)] == ["account=2"]


def test_the_journal_says_whose_a_sender_was(db: peewee.Database) -> None:
    senders.remove_sender(db, "shop@example.com", ANN)
    assert rows(db, "SELECT filter, detail FROM outbox_journal WHERE verb = 'sender remove'") == [
        ("sender=shop@example.com", "account=shop")
    ]


def test_a_message_whose_sender_has_no_domain_is_shown_without_an_id(stories: Stories, db: peewee.Database) -> None:
    assert audit.show(db, stories.mail(sender="shop@b..example")).message_id is None
    assert str(audit.show(db, stories.mail()).message_id).endswith("@example.com>")
