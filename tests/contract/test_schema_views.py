"""The audit views: the same rows from the same SQL in both databases, and one query for each question people ask."""

from __future__ import annotations

import re
from collections.abc import Iterator

import peewee
import pytest

from outbox.store.database import dialect
from tests.statements import insert, one, rows, run

PAST, FUTURE = "2020-03-01T09:00:00.000Z", "2999-01-01T00:00:00.000Z"
Words = tuple[int | None, str | None, str | None]  # code, status, reply
GREYLISTED: Words = (450, "4.7.1", "Greylisted, try again")
NO_SUCH_USER: Words = (550, "5.1.1", "No such user")
OK: Words = (250, "2.0.0", "Ok: queued as 4F2")
SILENCE: Words = (None, None, None)


def at(minute: int, day: int = 1) -> str:
    return f"2020-03-{day:02}T10:{minute:02}:00.000Z"


@pytest.fixture(scope="module")
def audited(standing_database: peewee.Database) -> Iterator[peewee.Database]:
    """A database with one of everything; it is only read."""
    with standing_database.atomic() as transaction:
        _register(standing_database)
        for tell in STORIES:
            tell(standing_database)
        yield standing_database
        transaction.rollback()


def _register(db: peewee.Database) -> None:
    account = (
        "INSERT INTO outbox_account (name, relay_host, relay_port, tls, pause_reason, paused_until, breaker_until,"
        " breaker_reason) VALUES (?, 'relay.example.com', 587, 'starttls', ?, ?, ?, ?)"
    )
    run(db, account, "main", "operator: moved, once", PAST, PAST, "was down, once")
    run(db, account, "bulk", "535 bad password", None, None, None)
    run(db, account, "far", None, None, FUTURE, "connection refused")
    run(db, account, "tried", "auth: 535 bad password", PAST, None, None)
    run(db, account, "rested", None, None, PAST, "connection refused")
    run(db, "UPDATE outbox_account SET breaker_failures = 5 WHERE name = 'rested'")
    sender = "INSERT INTO outbox_sender (address, account, pause_reason, paused_until) VALUES (?, ?, ?, ?)"
    run(db, sender, "shop@example.com", "main", None, None)
    run(db, sender, "news@example.com", "bulk", None, None)
    run(db, sender, "far@example.com", "far", None, None)
    run(db, sender, "tried@example.com", "tried", None, None)
    run(db, sender, "rested@example.com", "rested", None, None)
    run(db, sender, "spam@example.com", "tried", "brake: 554 5.7.1 spam", at(1))
    run(db, sender, "*@corp.example", "main", "on holiday", FUTURE)
    run(db, sender, "ceo@corp.example", "main", None, None)
    runner = (
        "INSERT INTO outbox_runner (id, host, pid, version, started_at, lease_until, dead_at)"
        " VALUES (?, 'h', 1, '0', ?, ?, ?)"
    )
    run(db, runner, "alive", PAST, FUTURE, None)
    run(db, runner, "late", PAST, at(30), None)
    run(db, runner, "dead", PAST, FUTURE, at(31))


def _mail(db: peewee.Database, number: int, **columns: str | None) -> None:
    insert(db, id=number, created_at=columns.pop("created_at", PAST), **{"subject": f"Order {number}", **columns})


def _attempt(
    db: peewee.Database,
    number: int,
    claim_no: int,
    outcome: str | None,
    fates: list[tuple[str, str, Words]],
    day: int = 1,
) -> None:
    ended = at(claim_no, day) if outcome else None
    run(
        db,
        "INSERT INTO outbox_attempt (message_id, claim_no, runner_id, started_at, dot_at, ended_at, outcome, code,"
        " status, reply, stage, relay, account) VALUES (?, ?, 'alive', ?, ?, ?, ?, ?, ?, ?, 'dot', 'relay', 'main')",
        *(number, claim_no, at(claim_no, day), at(claim_no, day) if outcome == "doubt" else None, ended, outcome),
        *(fates[0][2] if fates else SILENCE),
    )
    for position, (address, fate, reply) in enumerate(fates):
        _fate(db, number, position, claim_no, address, fate, reply, at(claim_no, day))


def _fate(
    db: peewee.Database,
    number: int,
    position: int,
    claim_no: int,
    address: str,
    fate: str,
    reply: Words,
    when: str,
) -> None:
    run(
        db,
        "INSERT INTO outbox_recipient (message_id, position, claim_no, address, kind, fate, code, status, reply, at)"
        " VALUES (?, ?, ?, ?, 'to', ?, ?, ?, ?, ?)",
        *(number, position, claim_no, address, fate, *reply, when),
    )


def _stands(db: peewee.Database, number: int, state: str, **columns: str | int | None) -> None:
    columns = {"state": state, **columns}
    if state in ("sent", "failed", "expired", "cancelled"):
        columns.setdefault("final_at", at(20))
    assignments = ", ".join(f"{name} = ?" for name in columns)
    run(db, f"UPDATE outbox_delivery SET {assignments} WHERE message_id = ?", *columns.values(), number)


def _last(reply: Words) -> dict[str, str | int | None]:
    return dict(zip(("last_code", "last_status", "last_reply"), reply, strict=True))


def _sent_at_the_second_try(db: peewee.Database) -> None:
    _mail(db, 1, tag="orders", dedup_key="order-1", created_at="2020-03-01 10:00:00+01:00")
    _attempt(db, 1, 1, "deferred", [("Ann@example.net", "deferred", GREYLISTED)])
    _attempt(db, 1, 2, "accepted", [("Ann@example.net", "accepted", OK)])
    _stands(db, 1, "sent", claim_no=2, failures=1, first_attempt_at=at(1), **_last(OK))


def _bounced_for_one_of_two(db: peewee.Database) -> None:
    _mail(db, 2, recipients="ann@example.net, bob@example.net")
    fates = [("ann@example.net", "accepted", OK), ("bob@example.net", "bounced", NO_SUCH_USER)]
    _attempt(db, 2, 1, "bounced", fates, day=2)
    _stands(db, 2, "failed", claim_no=1, final_at=at(1, 2), first_attempt_at=at(1, 2), **_last(NO_SUCH_USER))


def _in_doubt_and_to_be_retried(db: peewee.Database) -> None:
    _mail(db, 3)
    _attempt(db, 3, 1, "doubt", [("ann@example.net", "doubt", SILENCE)])
    _stands(db, 3, "queued", claim_no=1, doubts=1, due_at=FUTURE, first_attempt_at=at(1))


def _in_doubt_and_held(db: peewee.Database) -> None:
    _mail(db, 4, on_doubt="hold")
    _attempt(db, 4, 1, "doubt", [("ann@example.net", "doubt", SILENCE)], day=2)
    _stands(db, 4, "held", claim_no=1, doubts=1, hold_reason="in doubt")


def _sent_after_a_doubt(db: peewee.Database) -> None:
    _mail(db, 5)
    _attempt(db, 5, 1, "doubt", [("ann@example.net", "doubt", SILENCE)])
    _attempt(db, 5, 2, "accepted", [("ann@example.net", "accepted", OK)])
    _stands(db, 5, "sent", claim_no=2, doubts=1, first_attempt_at=at(1), **_last(OK))


def _waiting_in_many_ways(db: peewee.Database) -> None:
    _mail(db, 6, due_at=FUTURE)
    _mail(db, 7)
    _attempt(db, 7, 1, "deferred", [("ann@example.net", "deferred", GREYLISTED)])
    _stands(db, 7, "queued", claim_no=1, failures=1, due_at=FUTURE, **_last(GREYLISTED))
    _mail(db, 8)
    _mail(db, 9, sender="News@Example.com")
    _mail(db, 10, sender="clerk@corp.example")
    _mail(db, 11, sender="ceo@corp.example")
    _mail(db, 12, sender="far@example.com")
    _mail(db, 13, sender="nobody@example.org")


def _ended_otherwise(db: peewee.Database) -> None:
    _mail(db, 14)
    _attempt(db, 14, 1, "deferred", [("ann@example.net", "deferred", GREYLISTED)])
    _stands(db, 14, "expired", claim_no=1, failures=1, final_at=at(5, 3), **_last(GREYLISTED))
    _mail(db, 15)
    _stands(db, 15, "cancelled")
    _mail(db, 16)
    _stands(db, 16, "expired", final_at=at(6, 3))


def _being_sent(db: peewee.Database) -> None:
    for number, owner in [(17, "alive"), (18, "late"), (19, "dead"), (20, "gone")]:
        _mail(db, number)
        _attempt(db, number, 1, None, [])
        _stands(db, number, "sending", claim_no=1, lease_owner=owner)


def _retried_by_an_operator(db: peewee.Database) -> None:
    _mail(db, 21)
    _attempt(db, 21, 1, "bounced", [("carl@example.net", "bounced", NO_SUCH_USER)])
    _fate(db, 21, 0, 2, "carl@example.net", "pending", SILENCE, at(9))
    _stands(db, 21, "queued", claim_no=2, due_at=FUTURE, first_attempt_at=at(1), **_last(NO_SUCH_USER))


STORIES = (
    _sent_at_the_second_try,
    _bounced_for_one_of_two,
    _in_doubt_and_to_be_retried,
    _in_doubt_and_held,
    _sent_after_a_doubt,
    _waiting_in_many_ways,
    _ended_otherwise,
    _being_sent,
    _retried_by_an_operator,
)


# ----------------------------------------------------------------------------------- the six questions, one query each


def test_what_happened_to_message_1(audited: peewee.Database) -> None:
    assert rows(
        audited,
        "SELECT claim_no, started_at, ended_at, outcome, address, fate, code, status, reply, relay, account"
        " FROM outbox_audit WHERE message_id = ? ORDER BY claim_no, position",
        1,
    ) == [
        (1, at(1), at(1), "deferred", "Ann@example.net", "deferred", *GREYLISTED, "relay", "main"),
        (2, at(2), at(2), "accepted", "Ann@example.net", "accepted", *OK, "relay", "main"),
    ]


def test_did_this_address_get_it(audited: peewee.Database) -> None:
    assert rows(
        audited,
        "SELECT a.message_id, s.subject, a.fate, a.at FROM outbox_addressee a"
        " JOIN outbox_status s ON s.id = a.message_id"
        " WHERE a.address = ? AND a.fate = 'accepted' ORDER BY a.message_id",
        "ann@example.net",
    ) == [(1, "Order 1", "accepted", at(2)), (2, "Order 2", "accepted", at(1, 2)), (5, "Order 5", "accepted", at(2))]


def test_what_is_in_doubt(audited: peewee.Database) -> None:
    assert rows(
        audited,
        "SELECT id, state, subject, on_doubt, doubts, recipients_in_doubt, last_doubt_at, hold_reason"
        " FROM outbox_doubtful ORDER BY id",
    ) == [
        (3, "queued", "Order 3", "retry", 1, 1, at(1), None),
        (4, "held", "Order 4", "hold", 1, 1, at(1, 2), "in doubt"),
        (5, "sent", "Order 5", "retry", 1, 0, at(1), None),
    ]


def test_what_failed_on_a_day_and_why(audited: peewee.Database) -> None:
    assert rows(
        audited,
        "SELECT id, state, final_at, code, status, reason FROM outbox_dead WHERE final_at >= ? ORDER BY final_at",
        "2020-03-02T00:00:00.000Z",
    ) == [
        (2, "failed", at(1, 2), *NO_SUCH_USER),
        (14, "expired", at(5, 3), 450, "4.7.1", "expired; the last reply was: Greylisted, try again"),
        (16, "expired", at(6, 3), None, None, "expired"),
    ]


def test_who_is_paused_and_why(audited: peewee.Database) -> None:
    assert rows(
        audited,
        "SELECT sender, account, queued, paused, paused_until FROM outbox_sender_health WHERE paused IS NOT NULL"
        " ORDER BY sender",
    ) == [
        ("*@corp.example", "main", 0, "on holiday", FUTURE),
        ("clerk@corp.example", "main", 1, "on holiday", FUTURE),
        ("far@example.com", "far", 1, "connection refused", FUTURE),
        ("news@example.com", "bulk", 1, "535 bad password", None),
        ("rested@example.com", "rested", 0, "probing: connection refused", PAST),
        ("spam@example.com", "tried", 0, "probing: brake: 554 5.7.1 spam", at(1)),
        ("tried@example.com", "tried", 0, "probing: auth: 535 bad password", PAST),
    ]


def test_what_a_retry_would_send_again(audited: peewee.Database) -> None:
    assert rows(
        audited,
        "SELECT f.message_id, f.address, f.fate FROM outbox_fate f JOIN outbox_status s ON s.id = f.message_id"
        " WHERE s.state IN ('failed', 'expired', 'held') AND f.fate <> 'accepted' ORDER BY f.message_id, f.position",
    ) == [
        (2, "bob@example.net", "bounced"),
        (4, "ann@example.net", "doubt"),
        (14, "ann@example.net", "deferred"),
    ]


# ---------------------------------------------------------------------------------------------- the views one by one


def test_the_status_is_said_in_words_for_people(audited: peewee.Database) -> None:
    expected = {
        "sent": [1, 5],
        "failed": [2],
        "deferred": [3, 7, 21],
        "held": [4],
        "scheduled": [6],
        "queued": [8, 9, 10, 11, 12, 13],
        "expired": [14, 16],
        "cancelled": [15],
        "sending": [17, 18, 19, 20],
    }
    states = rows(audited, "SELECT id, state FROM outbox_status ORDER BY id")
    assert states == sorted((number, state) for state, numbers in expected.items() for number in numbers)


def test_the_status_says_what_a_message_waits_for(audited: peewee.Database) -> None:
    waiting = rows(audited, "SELECT id, sender, account, paused FROM outbox_status WHERE state = 'queued' ORDER BY id")
    assert waiting == [
        (8, "shop@example.com", "main", None),
        (9, "news@example.com", "bulk", "535 bad password"),
        (10, "clerk@corp.example", "main", "on holiday"),
        (11, "ceo@corp.example", "main", None),
        (12, "far@example.com", "far", "connection refused"),
        (13, "nobody@example.org", None, None),
    ]


def test_a_status_has_everything_on_one_line(audited: peewee.Database) -> None:
    assert rows(audited, "SELECT * FROM outbox_status WHERE id = 1") == [
        (
            1,
            "sent",
            "shop@example.com",
            "Order 1",
            PAST,
            PAST,
            at(20),
            1,
            0,
            *OK,
            None,
            "main",
            None,
            "orders",
            "order-1",
        )
    ]


def test_the_audit_shows_what_belongs_to_no_recipient_and_to_no_attempt(audited: peewee.Database) -> None:
    columns = "message_id, claim_no, outcome, runner_id, address, fate, code, at"
    assert rows(audited, f"SELECT {columns} FROM outbox_audit WHERE message_id IN (19, 21) ORDER BY 1, 2") == [
        (19, 1, None, "alive", None, None, None, at(1)),
        (21, 1, "bounced", "alive", "carl@example.net", "bounced", 550, at(1)),
        (21, 2, None, None, "carl@example.net", "pending", None, at(9)),
    ]


def test_a_receipt_has_no_bodies_and_no_addresses(audited: peewee.Database) -> None:
    assert rows(audited, "SELECT * FROM outbox_receipt WHERE dedup_key = 'order-1'") == [
        (1, "order-1", "orders", "sent", 250, "2.0.0", 0, at(20))
    ]


def test_what_should_move_and_does_not_is_stuck(audited: peewee.Database) -> None:
    assert rows(audited, "SELECT id, state, since, runner_id, reason FROM outbox_stuck ORDER BY id") == [
        (8, "queued", PAST, None, "due for more than 10 minutes, and no runner claims it"),
        (11, "queued", PAST, None, "due for more than 10 minutes, and no runner claims it"),
        (13, "queued", PAST, None, "due for more than 10 minutes, and no runner claims it"),
        (18, "sending", at(30), "late", "its runner's lease is over"),
        (19, "sending", at(31), "dead", "its runner is dead"),
        (20, "sending", at(1), "gone", "its runner is unknown"),
    ]


def test_the_health_of_a_sender_counts_its_mail(audited: peewee.Database) -> None:
    assert rows(audited, "SELECT * FROM outbox_sender_health WHERE sender = 'shop@example.com'") == [
        ("shop@example.com", "main", 5, 4, 2, 1, 2, 1, 1, 3, PAST, None, None)
    ]
    assert rows(audited, "SELECT * FROM outbox_sender_health WHERE sender = 'nobody@example.org'") == [
        ("nobody@example.org", None, 1, 0, 0, 0, 0, 0, 0, 0, PAST, None, None)
    ]


def test_each_day_has_its_ends_and_its_doubts(audited: peewee.Database) -> None:
    assert rows(audited, "SELECT * FROM outbox_daily ORDER BY day") == [
        ("2020-03-01", "shop@example.com", 2, 0, 0, 2),
        ("2020-03-02", "shop@example.com", 0, 1, 0, 1),
        ("2020-03-03", "shop@example.com", 0, 0, 2, 0),
    ]


def test_a_lookup_reads_no_table_from_end_to_end(audited: peewee.Database) -> None:
    """What people look up a hundred times a day must not cost more the longer the history is."""
    explain, scan = "EXPLAIN QUERY PLAN ", r"SCAN (?!outbox_audit|clock|bucket|CONSTANT)(?!.*INDEX).*"
    if dialect(audited) == "postgres":
        explain, scan = "EXPLAIN ", "Seq Scan.*"
        run(audited, "SET LOCAL enable_seqscan = off")
    for lookup in (
        "SELECT * FROM outbox_status WHERE id = 1",
        "SELECT * FROM outbox_audit WHERE message_id = 1",
        "SELECT * FROM outbox_receipt WHERE dedup_key = 'order-1'",
        "SELECT * FROM outbox_addressee WHERE address = 'ann@example.net'",
        "SELECT * FROM outbox_dead WHERE state = 'failed'",
        "SELECT * FROM outbox_dead WHERE final_at >= '2020-03-02T00:00:00.000Z'",
        "SELECT * FROM outbox_doubtful",
    ):
        plan = "\n".join(str(row[-1]) for row in run(audited, explain + lookup).fetchall())
        assert not re.findall(scan, plan), f"{lookup}\n{plan}"


def test_both_dialects_have_the_same_views_with_the_same_columns(audited: peewee.Database) -> None:
    columns = {
        "outbox_status": "id state sender subject created_at due_at final_at failures doubts last_code last_status"
        " last_reply hold_reason account paused tag dedup_key",
        "outbox_audit": "message_id claim_no started_at dot_at ended_at outcome stage relay tls account runner_id"
        " position address kind fate code status reply at late_outcome late_reply late_at",
        "outbox_fate": "message_id position claim_no address kind fate code status reply at",
        "outbox_addressee": "address message_id position claim_no kind fate code status reply at",
        "outbox_receipt": "id dedup_key tag state code status doubts final_at",
        "outbox_doubtful": "id state sender subject on_doubt doubts recipients_in_doubt last_doubt_at hold_reason"
        " final_at",
        "outbox_dead": "id state sender subject created_at final_at failures doubts code status reason tag dedup_key",
        "outbox_stuck": "id state sender subject since runner_id reason",
        "outbox_pause": "address account paused paused_until",
        "outbox_sender_health": "sender account queued sending sent failed expired held cancelled doubts oldest_due_at"
        " paused paused_until",
        "outbox_daily": "day sender sent failed expired doubts",
    }
    for view, names in columns.items():
        cursor = run(audited, f"SELECT * FROM {view}")
        assert [column[0] for column in cursor.description] == names.split(), view
    assert one(audited, "SELECT count(*) FROM outbox_status") == 21
