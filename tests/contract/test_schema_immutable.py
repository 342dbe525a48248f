"""What nobody may change: sent words, final states, the fence, the record; and the exceptions. Over both databases."""

from __future__ import annotations

import threading
from typing import Any

import peewee
import pytest

from outbox.store.database import connect, dialect
from tests.statements import FINAL, MOMENT, bring, insert, one, refused, rows, run, until_blocked

ERASE = "UPDATE outbox SET erased_at = ?, text_body = NULL, html_body = NULL, raw = NULL WHERE id = ?"


# -------------------------------------------------------------------------------------------------------- content


@pytest.mark.parametrize("state", ["queued", "sending", "sent", "failed", "expired", "held", "cancelled"])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("subject", "Changed"),
        ("text_body", "Changed"),
        ("recipients", "eve@example.org"),
        ("sender", "eve@example.org"),
        ("subject", None),
        ("dedup_key", "k"),
        ("due_at", MOMENT),
        ("token", "0" * 32),
    ],
)
def test_content_is_immutable_in_every_state(
    scratch_database: peewee.Database, state: str, column: str, value: str | None
) -> None:
    message = insert(scratch_database)
    bring(scratch_database, message, state)
    with refused("outbox: rows are immutable"):
        run(scratch_database, f"UPDATE outbox SET {column} = ? WHERE id = ?", value, message)


@pytest.mark.parametrize("state", FINAL)
def test_finished_mail_can_be_erased_with_its_attachments(scratch_database: peewee.Database, state: str) -> None:
    message = insert(scratch_database, html_body="<p>Thanks</p>", tag="orders", headers='{"X-Order": "7"}')
    attach(scratch_database, message)
    bring(scratch_database, message, state)
    run(
        scratch_database,
        "UPDATE outbox SET erased_at = ?, text_body = NULL, html_body = NULL, raw = NULL, subject = NULL,"
        " headers = NULL, recipients = NULL WHERE id = ?",
        *(MOMENT, message),
    )
    assert rows(scratch_database, "SELECT erased_at, sender, tag, recipients, subject, text_body FROM outbox") == [
        (MOMENT, "shop@example.com", "orders", None, None, None)
    ]
    assert one(scratch_database, "SELECT count(*) FROM outbox_attachment") == 0
    assert one(scratch_database, "SELECT state FROM outbox_delivery") == state


@pytest.mark.parametrize("state", ["queued", "sending", "held"])
def test_mail_in_flight_cannot_be_erased(scratch_database: peewee.Database, state: str) -> None:
    message = insert(scratch_database)
    bring(scratch_database, message, state)
    with refused("only finished mail can be erased"):
        run(scratch_database, ERASE, MOMENT, message)


def test_erasing_may_keep_who_and_about_what_but_no_body(database: peewee.Database) -> None:
    message = insert(database)
    bring(database, message, "sent")
    with refused("clear the bodies"):
        run(database, "UPDATE outbox SET erased_at = ? WHERE id = ?", MOMENT, message)
    run(database, ERASE, MOMENT, message)
    assert rows(database, "SELECT recipients, subject FROM outbox") == [("ann@example.net", "Order 7")]
    run(database, "UPDATE outbox SET recipients = NULL, subject = NULL WHERE id = ?", message)
    with refused("outbox: rows are immutable"):
        run(database, "UPDATE outbox SET subject = 'Order 8' WHERE id = ?", message)
    with refused("outbox: rows are immutable"):
        run(database, "UPDATE outbox SET erased_at = NULL WHERE id = ?", message)


def test_the_time_of_an_erasure_is_real(scratch_database: peewee.Database) -> None:
    message = insert(scratch_database)
    bring(scratch_database, message, "sent")
    with refused("outbox_erased_at_real"):
        run(scratch_database, ERASE, "9999-12-31", message)


def test_a_new_row_cannot_be_erased_already(scratch_database: peewee.Database) -> None:
    with refused("leave erased_at out"):
        insert(scratch_database, erased_at=MOMENT, text_body=None)


@pytest.mark.parametrize("state", ["failed", "expired"])
def test_an_erased_message_cannot_be_retried(scratch_database: peewee.Database, state: str) -> None:
    message = insert(scratch_database)
    bring(scratch_database, message, state)
    run(scratch_database, ERASE, MOMENT, message)
    with refused("an erased message cannot be retried"):
        run(scratch_database, "UPDATE outbox_delivery SET state = 'queued', final_at = NULL")


def test_a_retry_that_races_the_erasure_is_refused(postgres_url: str) -> None:
    retention, operator = connect(postgres_url), connect(postgres_url)
    message = insert(retention)
    bring(retention, message, "failed")
    complaints: list[str] = []

    def retry() -> None:
        with operator.connection_context():
            try:
                run(operator, "UPDATE outbox_delivery SET state = 'queued', final_at = NULL")
            except peewee.IntegrityError as error:
                complaints.append(str(error))

    racer = threading.Thread(target=retry)
    with retention.atomic():
        run(retention, ERASE, MOMENT, message)
        racer.start()
        until_blocked(retention)
    racer.join(30)
    assert "an erased message cannot be retried" in complaints[0]
    for database in (retention, operator):
        database.close()


# ----------------------------------------------------------------------------------------------------- attachments


def attach(database: peewee.Database, message: int) -> None:
    run(
        database,
        "INSERT INTO outbox_attachment (message_id, position, filename, content) VALUES (?, 0, 'a.pdf', ?)",
        *(message, b"%PDF"),
    )


@pytest.mark.parametrize(
    "statement", ["UPDATE outbox_attachment SET filename = 'b.pdf'", "DELETE FROM outbox_attachment"]
)
@pytest.mark.parametrize("state", ["queued", "sent"])
def test_attachments_are_immutable(scratch_database: peewee.Database, state: str, statement: str) -> None:
    message = insert(scratch_database)
    attach(scratch_database, message)
    bring(scratch_database, message, state)
    with refused("outbox_attachment: rows are immutable"):
        run(scratch_database, statement)


def test_mail_is_not_claimed_while_somebody_attaches_to_it(postgres_url: str) -> None:
    application, runner = connect(postgres_url), connect(postgres_url)
    claimable = "SELECT message_id FROM outbox_delivery WHERE state = 'queued' FOR UPDATE SKIP LOCKED"
    message = insert(application)
    with application.atomic():
        attach(application, message)
        assert rows(runner, claimable) == []
    assert rows(runner, claimable) == [(message,)]
    for database in (application, runner):
        database.close()


def test_sqlite_refuses_to_replace_an_attachment(sqlite_url: str) -> None:
    database = connect(sqlite_url)
    message = insert(database)
    attach(database, message)
    with refused("this position is taken"):
        run(
            database,
            "INSERT OR REPLACE INTO outbox_attachment (message_id, position, filename, content) VALUES (?, 0, '', '')",
            message,
        )
    database.close()


# -------------------------------------------------------------------------------------------------------- deletion


@pytest.mark.parametrize("state", FINAL)
def test_finished_mail_goes_with_everything_about_it(scratch_database: peewee.Database, state: str) -> None:
    message, other = insert(scratch_database), insert(scratch_database)
    for each in (message, other):
        attach(scratch_database, each)
        bring(scratch_database, each, state)
        record(scratch_database, each, "bounced")
    run(scratch_database, "DELETE FROM outbox WHERE id = ?", message)
    for table in ("delivery", "attachment", "attempt", "recipient"):
        assert rows(scratch_database, f"SELECT message_id FROM outbox_{table}") == [(other,)]


@pytest.mark.parametrize("state", ["queued", "sending", "held"])
def test_mail_in_flight_cannot_be_deleted(database: peewee.Database, state: str) -> None:
    finished, message = insert(database), insert(database)
    bring(database, finished, "sent")
    bring(database, message, state)
    with refused("mail in flight cannot be deleted"):
        run(database, "DELETE FROM outbox")
    assert one(database, "SELECT count(*) FROM outbox") == one(database, "SELECT count(*) FROM outbox_delivery") == 2


def test_sqlite_deletes_everything_without_foreign_keys_too(sqlite_url: str) -> None:
    database = connect(sqlite_url)
    run(database, "PRAGMA foreign_keys = 0")
    message = insert(database)
    attach(database, message)
    bring(database, message, "sent")
    record(database, message, "accepted")
    run(database, "DELETE FROM outbox")
    for table in ("delivery", "attachment", "attempt", "recipient"):
        assert one(database, f"SELECT count(*) FROM outbox_{table}") == 0
    database.close()


def test_postgres_refuses_to_truncate(postgres_url: str) -> None:
    database = connect(postgres_url)
    insert(database)
    with refused("TRUNCATE would lose mail"):
        run(database, "TRUNCATE outbox")
    database.close()


def test_a_delivery_cannot_be_deleted_from_under_its_message(scratch_database: peewee.Database) -> None:
    bring(scratch_database, insert(scratch_database), "sent")
    with refused("outbox_delivery: rows go with their message"):
        run(scratch_database, "DELETE FROM outbox_delivery")


# ------------------------------------------------------------------------------------------------- the delivery


@pytest.mark.parametrize("state", ["sent", "cancelled"])
@pytest.mark.parametrize("next_state", ["queued", "held", "failed"])
def test_what_is_sent_or_cancelled_stays_so(scratch_database: peewee.Database, state: str, next_state: str) -> None:
    message = insert(scratch_database)
    bring(scratch_database, message, state)
    with refused("this state is final"):
        run(
            scratch_database,
            "UPDATE outbox_delivery SET state = ?, final_at = ?",
            *(next_state, MOMENT if next_state in FINAL else None),
        )


@pytest.mark.parametrize("state", ["failed", "expired"])
def test_a_dead_letter_can_be_queued_again_and_nothing_else(database: peewee.Database, state: str) -> None:
    message = insert(database)
    bring(database, message, state)
    with refused("this state is final"):
        run(database, "UPDATE outbox_delivery SET state = 'held', final_at = NULL")
    run(database, "UPDATE outbox_delivery SET state = 'queued', final_at = NULL, claim_no = claim_no + 1")
    assert rows(database, "SELECT state, claim_no FROM outbox_delivery") == [("queued", 2)]


def test_the_fence_of_a_finished_message_is_not_turned_back(scratch_database: peewee.Database) -> None:
    bring(scratch_database, insert(scratch_database), "failed")
    with refused("claim_no only grows"):
        run(scratch_database, "UPDATE outbox_delivery SET claim_no = 0")


# Two dead runners; one message each of: no dot, dotted and retried, dotted and held by choice, dotted too often.
RECLAIM = """
UPDATE outbox_delivery SET
  state  = CASE WHEN dot_at IS NOT NULL AND (on_doubt = 'hold' OR doubts >= ?) THEN 'held' ELSE 'queued' END,
  doubts = doubts + {dotted}, crashes = crashes + 1, lease_owner = NULL
WHERE state = 'sending' AND lease_owner IN (?, ?) RETURNING message_id, claim_no, dot_at"""


def test_the_reclaim_of_dead_runners_is_one_conditional_update(scratch_database: peewee.Database) -> None:
    cases = [
        ("retry", None, 0, "r1"),
        ("retry", MOMENT, 0, "r1"),
        ("hold", MOMENT, 0, "r2"),
        ("retry", MOMENT, 3, "r2"),
    ]
    living = insert(scratch_database)
    messages = [insert(scratch_database, on_doubt=on_doubt) for on_doubt, *_ in cases]
    claim = (
        "UPDATE outbox_delivery SET state = 'sending', claim_no = claim_no + 1, lease_owner = ?, dot_at = ?, doubts = ?"
    )
    run(scratch_database, claim + " WHERE message_id = ?", "alive", MOMENT, 0, living)
    for message, (_, dot_at, doubts, owner) in zip(messages, cases, strict=True):
        run(scratch_database, claim + " WHERE message_id = ?", owner, dot_at, doubts, message)
    dotted = "(dot_at IS NOT NULL)" + ("::int" if dialect(scratch_database) == "postgres" else "")

    returned = rows(scratch_database, RECLAIM.format(dotted=dotted), 3, "r1", "r2")

    assert sorted(returned) == [
        (message, 1, dot_at) for message, (_, dot_at, _, _) in zip(messages, cases, strict=True)
    ]
    after = rows(
        scratch_database, "SELECT state, doubts, crashes, lease_owner FROM outbox_delivery ORDER BY message_id"
    )
    assert after == [
        ("sending", 0, 0, "alive"),
        ("queued", 0, 1, None),
        ("queued", 1, 1, None),
        ("held", 1, 1, None),
        ("held", 4, 1, None),
    ]
    assert rows(scratch_database, RECLAIM.format(dotted=dotted), 3, "r1", "r2") == []


# ------------------------------------------------------------------------------------------------------ the record


def record(database: peewee.Database, message: int, fate: str, claim_no: int = 1) -> None:
    outcome = "accepted" if fate == "accepted" else "doubt" if fate == "doubt" else "bounced"
    run(
        database,
        "INSERT INTO outbox_attempt (message_id, claim_no, runner_id, started_at, ended_at, outcome)"
        " VALUES (?, ?, 'r1', ?, ?, ?)",
        *(message, claim_no, MOMENT, MOMENT, outcome),
    )
    run(
        database,
        "INSERT INTO outbox_recipient (message_id, position, claim_no, address, kind, fate)"
        " VALUES (?, 0, ?, 'ann@example.net', 'to', ?)",
        *(message, claim_no, fate),
    )


@pytest.mark.parametrize("fate", ["accepted", "bounced", "deferred"])
def test_a_recorded_fate_is_not_rewritten(scratch_database: peewee.Database, fate: str) -> None:
    record(scratch_database, insert(scratch_database), fate)
    with refused("outbox_recipient: rows are append-only"):
        run(scratch_database, "UPDATE outbox_recipient SET fate = 'pending', code = 250")


@pytest.mark.parametrize("fate", ["doubt", "pending"])
def test_an_open_fate_can_be_resolved(scratch_database: peewee.Database, fate: str) -> None:
    record(scratch_database, insert(scratch_database), fate)
    run(scratch_database, "UPDATE outbox_recipient SET fate = 'accepted', code = 250")
    assert one(scratch_database, "SELECT fate FROM outbox_recipient") == "accepted"


@pytest.mark.parametrize(
    "change", ["address = 'eve@example.org'", "kind = 'bcc'", "position = 1", "claim_no = 2", "message_id = 9"]
)
def test_whom_a_fate_is_about_is_not_rewritten(scratch_database: peewee.Database, change: str) -> None:
    record(scratch_database, insert(scratch_database), "doubt")
    with refused("outbox_recipient: rows are append-only"):
        run(scratch_database, f"UPDATE outbox_recipient SET {change}")


def test_the_address_of_an_erased_message_can_be_cleared(scratch_database: peewee.Database) -> None:
    message = insert(scratch_database)
    bring(scratch_database, message, "sent")
    record(scratch_database, message, "accepted")
    run(scratch_database, ERASE, MOMENT, message)
    run(scratch_database, "UPDATE outbox_recipient SET address = '', reply = NULL")
    assert rows(scratch_database, "SELECT address, fate FROM outbox_recipient") == [("", "accepted")]


def test_the_record_is_not_deleted_from_under_its_message(scratch_database: peewee.Database) -> None:
    record(scratch_database, insert(scratch_database), "accepted")
    with refused("outbox_recipient: rows are append-only"):
        run(scratch_database, "DELETE FROM outbox_recipient")


@pytest.mark.parametrize("table", ["outbox_attempt", "outbox_recipient"])
def test_a_claim_is_recorded_once(scratch_database: peewee.Database, table: str) -> None:
    message = insert(scratch_database)
    record(scratch_database, message, "accepted")
    columns: dict[str, Any] = (
        {"runner_id": "r2", "started_at": MOMENT}
        if table == "outbox_attempt"
        else {"position": 0, "address": "ann@example.net", "kind": "to", "fate": "bounced"}
    )
    names = ", ".join(["message_id", "claim_no", *columns])
    with pytest.raises(peewee.IntegrityError):
        run(
            scratch_database,
            f"INSERT INTO {table} ({names}) VALUES (?, 1, {', '.join('?' * len(columns))})",
            *(message, *columns.values()),
        )
