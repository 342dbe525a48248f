"""The store's verbs, over SQLite and PostgreSQL: what a claim, a mark, a settlement and a reclaim may do, and not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import peewee
import pytest

from outbox.clock import Clock
from outbox.core.lifecycle import State
from outbox.core.message import Recipient
from outbox.core.outcome import Outcome, Scope, Stage, Verdict
from outbox.core.reply import Reply
from outbox.core.settlement import Claim, Fate, RecipientFate, Result, Settlement, relinquish
from outbox.errors import InvalidMessage
from outbox.store import DeclaredDeadError, Lane, Mark, Pick, Settled, Store, open_store, runners
from tests.statements import MAIL, one, rows, run

T = TypeVar("T")

NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=1)
LATER = NOW + timedelta(hours=1)
SHOP = "shop@example.com"
ME, OTHER, SURVIVOR = "a" * 32, "b" * 32, "c" * 32
QUEUED = Reply(250, "2.0.0", "queued as 4X")
ANN = Recipient(0, "ann@example.net", "to")
BOB = Recipient(1, "bob@example.net", "to")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """The store of ME, a registered runner."""
    opened = open_store(database_url, Clock())
    opened.open()
    register(opened, ME)
    yield opened
    opened.close()


@pytest.fixture
def second(database_url: str) -> Iterator[Store]:
    """The store of OTHER, another runner."""
    opened = open_store(database_url, Clock())
    opened.open()
    register(opened, OTHER)
    yield opened
    opened.close()


def write(store: Store, verb: Callable[[], T]) -> T:
    with store.transaction():
        return verb()


def add(database: peewee.Database, count: int = 1, **columns: Any) -> list[int]:
    """Insert mails; their ids."""
    row = {**MAIL, **columns}
    sql = f"INSERT INTO outbox ({', '.join(row)}) VALUES ({', '.join('?' * len(row))}) RETURNING id"
    return [run(database, sql, *row.values()).fetchall()[0][0] for _ in range(count)]


def claim(store: Store, count: int = 100, sender: str = SHOP, priority: int = 5, runner: str = ME) -> list[Claim]:
    return write(store, lambda: store.claim(runner, [Pick(sender, priority, count)], NOW))


def sent(each: Claim, **changes: Any) -> Settlement:
    fate = RecipientFate(ANN, Fate.ACCEPTED, QUEUED, Outcome(Verdict.ACCEPT, Scope.MESSAGE), Stage.DOT)
    settlement = Settlement(
        each.message_id,
        each.claim_no,
        State.SENT,
        Result.ACCEPTED,
        stage=Stage.DOT,
        reply=QUEUED,
        fates=(fate,),
        relay="mx[192.0.2.1]:25",
        account="main",
        sha256="0" * 64,
        dot_at=NOW,
    )
    return replace(settlement, **changes)


def deferred(each: Claim) -> Settlement:
    grey = Reply(450, "4.2.0", "greylisted")
    fate = RecipientFate(ANN, Fate.DEFERRED, grey, Outcome(Verdict.DEFER, Scope.RECIPIENT), Stage.RCPT)
    return sent(each, state=State.QUEUED, result=Result.DEFERRED, reply=grey, due_at=LATER, failures=1, fates=(fate,))


def settle(store: Store, *settlements: Settlement) -> list[Settled]:
    return write(store, lambda: store.settle(settlements, NOW))


def delivery(database: peewee.Database, message_id: int, *columns: str) -> tuple[Any, ...]:
    (row,) = rows(database, f"SELECT {', '.join(columns)} FROM outbox_delivery WHERE message_id = ?", message_id)
    return row


def attempts(database: peewee.Database, message_id: int) -> list[tuple[Any, ...]]:
    sql = "SELECT claim_no, outcome, late_outcome FROM outbox_attempt WHERE message_id = ? ORDER BY claim_no"
    return rows(database, sql, message_id)


def fates(database: peewee.Database, message_id: int) -> list[tuple[Any, ...]]:
    sql = "SELECT position, claim_no, fate FROM outbox_recipient WHERE message_id = ? ORDER BY claim_no, position"
    return rows(database, sql, message_id)


def register(store: Store, runner: str, lease: timedelta = timedelta(hours=1)) -> None:
    write(store, lambda: runners.register(store, runner, host="web1", pid=1, version="0.1.0", now=NOW, lease=lease))


def bury(store: Store, runner: str) -> None:
    write(store, lambda: runners.bury(store, [runner], NOW))


# ---- lanes


def test_a_lane_is_a_sender_and_a_priority_with_its_earliest_due_time(store: Store, database: peewee.Database) -> None:
    add(database, due_at=(NOW + timedelta(days=2)).isoformat())
    add(database, due_at=(NOW + timedelta(days=1)).isoformat())
    add(database, priority=0, due_at=NOW.isoformat())
    add(database, sender="Alice@Example.com", due_at=NOW.isoformat())
    assert store.lanes("", 10) == [
        Lane("alice@example.com", 5, NOW),
        Lane(SHOP, 0, NOW),
        Lane(SHOP, 5, NOW + timedelta(days=1)),
    ]


def test_lanes_go_on_behind_a_sender(store: Store, database: peewee.Database) -> None:
    for name in ("a", "b", "c"):
        add(database, sender=f"{name}@example.com")
    assert [each.sender for each in store.lanes("a@example.com", 1)] == ["b@example.com"]
    assert [each.sender for each in store.lanes("c@example.com", 5)] == []


def test_lanes_are_in_the_order_of_bytes(store: Store, database: peewee.Database) -> None:
    """The round robin compares senders in Python, so the database must sort as Python does."""
    names = ["a-b@example.com", "a.b@example.com", "ab@example.com", "a_b@example.com", "é@example.com"]
    for name in names:
        add(database, sender=name)
    assert [each.sender for each in store.lanes("", 10)] == sorted(names)


# ---- claiming


def test_a_claim_takes_what_is_due_in_order_and_opens_an_attempt(store: Store, database: peewee.Database) -> None:
    late, early = add(database)[0], add(database, due_at=(NOW - timedelta(days=1)).isoformat())[0]
    add(database, due_at=(NOW + timedelta(days=1)).isoformat())
    claims = claim(store)
    assert [(each.message_id, each.claim_no) for each in claims] == [(early, 1), (late, 1)]
    assert delivery(database, late, "state", "claim_no", "lease_owner") == ("sending", 1, ME)
    assert attempts(database, late) == [(1, None, None)]


def test_a_claim_is_exclusive(store: Store, second: Store, database: peewee.Database) -> None:
    add(database, 10)
    taken = [*claim(store, 6), *claim(second, 10, runner=OTHER)]
    assert len({each.message_id for each in taken}) == len(taken) == 10


def test_a_claim_takes_no_more_than_asked(store: Store, database: peewee.Database) -> None:
    ids = add(database, 5)
    assert [each.message_id for each in claim(store, 2)] == ids[:2]


def test_the_lanes_of_a_sender_share_a_count(store: Store, database: peewee.Database) -> None:
    normal, urgent = add(database, 3), add(database, 2, priority=0)
    picks = [Pick(SHOP, 0, 4), Pick(SHOP, 5, 4)]
    claims = write(store, lambda: store.claim(ME, picks, NOW))
    assert [each.message_id for each in claims] == urgent + normal[:2]


def test_several_senders_are_claimed_together(store: Store, database: peewee.Database) -> None:
    for name in ("b", "a"):
        add(database, 2, sender=f"{name}@example.com")
    claims = write(store, lambda: store.claim(ME, [Pick("b@example.com", 5, 1), Pick("a@example.com", 5, 5)], NOW))
    assert [each.sender for each in claims] == ["b@example.com", "a@example.com", "a@example.com"]


@pytest.mark.parametrize("state", ["held", "cancelled"])
def test_what_is_not_queued_is_not_claimed(store: Store, database: peewee.Database, state: str) -> None:
    (message_id,) = add(database)
    final = NOW.isoformat() if state == "cancelled" else None
    run(database, "UPDATE outbox_delivery SET state = ?, final_at = ?", state, _stored(final))
    assert claim(store) == []
    assert write(store, lambda: store.claim_one(ME, message_id, NOW)) == []


def test_a_suspect_is_only_claimed_alone(store: Store, database: peewee.Database) -> None:
    suspect, other = add(database, 2)
    run(database, "UPDATE outbox_delivery SET crashes = 1 WHERE message_id = ?", suspect)
    assert [each.message_id for each in store.suspects(NOW)] == [suspect]
    assert [each.message_id for each in claim(store)] == [other]
    (taken,) = write(store, lambda: store.claim_one(ME, suspect, NOW))
    assert (taken.message_id, taken.crashes) == (suspect, 1)
    assert store.suspects(NOW) == []


def test_a_runner_that_was_declared_dead_claims_nothing(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    bury(store, ME)
    with pytest.raises(DeclaredDeadError):
        claim(store)
    with pytest.raises(DeclaredDeadError):
        write(store, lambda: store.claim_one(ME, message_id, NOW))
    assert delivery(database, message_id, "state", "claim_no") == ("queued", 0)


# ---- content


def test_the_content_of_a_claim_is_its_row(store: Store, database: peewee.Database) -> None:
    headers = '{"X-Order": "7"}'
    (message_id,) = add(database, cc="carl@example.net", headers=headers, html_body="<p>ü</p>", sender_name="Shop")
    run(
        database,
        "INSERT INTO outbox_attachment (message_id, position, filename, content_type, content) VALUES (?, 0, ?, ?, ?)",
        message_id,
        "a.pdf",
        "application/pdf",
        b"\x00\xff",
    )
    (claimed,) = claim(store)
    content = store.content(claimed)
    message = content.message
    assert not isinstance(message, InvalidMessage)
    assert (message.sender, message.cc, message.html_body) == (SHOP, "carl@example.net", "<p>ü</p>")
    assert message.headers.replace(" ", "") == '{"X-Order":"7"}'
    assert message.raw is None
    assert message.created_at.tzinfo is not None
    assert (message.attachments[0].filename, message.attachments[0].content) == ("a.pdf", b"\x00\xff")
    assert content.size >= len("<p>ü</p>") + 2


def test_the_fates_of_earlier_attempts_come_with_the_content(store: Store, database: peewee.Database) -> None:
    add(database)
    (first,) = claim(store)
    assert store.content(first).fates == {}
    settle(store, replace(deferred(first), due_at=NOW))
    (again,) = claim(store)
    assert store.content(again).fates == {0: Fate.DEFERRED}


# ---- the dot mark


def test_a_mark_is_granted_to_the_claim_that_holds_the_message(store: Store, database: peewee.Database) -> None:
    add(database, 2)
    one_claim, other = claim(store)
    marks = [Mark(one_claim.message_id, 1), Mark(other.message_id, 2), Mark(9999, 1)]
    assert write(store, lambda: store.mark(marks, NOW)) == [True, False, False]
    assert delivery(database, one_claim.message_id, "dot_at IS NOT NULL")[0] in (True, 1)
    assert delivery(database, other.message_id, "dot_at") == (None,)


def test_a_mark_commits_the_fates_of_the_part_before_it(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    (claimed,) = claim(store)
    fate = sent(claimed).fates[0]
    assert write(store, lambda: store.mark([Mark(message_id, 1, 0, (fate,))], NOW)) == [True]
    assert fates(database, message_id) == [(0, 1, "accepted")]
    assert delivery(database, message_id, "dot_through") == (0,)


# ---- settling


def test_a_settlement_writes_delivery_attempt_and_recipients(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    (claimed,) = claim(store)
    assert settle(store, sent(claimed)) == [Settled.WRITTEN]
    columns = ("state", "lease_owner", "last_code", "last_status", "last_reply")
    assert delivery(database, message_id, *columns) == ("sent", None, 250, "2.0.0", "queued as 4X")
    assert one(database, "SELECT final_at IS NOT NULL FROM outbox_delivery") in (True, 1)
    assert attempts(database, message_id) == [(1, "accepted", None)]
    assert fates(database, message_id) == [(0, 1, "accepted")]
    assert one(database, "SELECT relay FROM outbox_attempt") == "mx[192.0.2.1]:25"


def test_a_deferred_message_is_queued_for_later_and_remembers_when_it_was_first_tried(
    store: Store, database: peewee.Database
) -> None:
    (message_id,) = add(database)
    (claimed,) = claim(store)
    settle(store, deferred(claimed))
    assert delivery(database, message_id, "state", "failures") == ("queued", 1)
    assert store.lanes("", 1) == [Lane(SHOP, 5, LATER)]
    assert delivery(database, message_id, "first_attempt_at IS NOT NULL")[0] in (True, 1)


def test_a_settlement_is_fenced_by_the_claim_number(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    (claimed,) = claim(store)
    stale = replace(deferred(claimed), claim_no=0)
    assert settle(store, stale) == [Settled.LATE]
    assert delivery(database, message_id, "state", "claim_no", "failures") == ("sending", 1, 0)


def test_a_settlement_that_was_written_before_is_written(store: Store, database: peewee.Database) -> None:
    """The COMMIT was done and its acknowledgement got lost: the clerk tries the same group again."""
    (message_id,) = add(database)
    (claimed,) = claim(store)
    assert settle(store, sent(claimed)) == [Settled.WRITTEN]
    assert settle(store, sent(claimed)) == [Settled.WRITTEN]
    assert fates(database, message_id) == [(0, 1, "accepted")]
    assert attempts(database, message_id) == [(1, "accepted", None)]


def test_what_is_relinquished_is_due_as_before_and_nothing_is_counted(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    before = delivery(database, message_id, "due_at", "failures", "first_attempt_at")
    (claimed,) = claim(store)
    assert settle(store, relinquish(claimed)) == [Settled.WRITTEN]
    assert delivery(database, message_id, "due_at", "failures", "first_attempt_at") == before
    assert delivery(database, message_id, "state") == ("queued",)
    assert attempts(database, message_id) == [(1, "relinquished", None)]


def test_a_batch_is_settled_each_by_its_own_fence(store: Store, database: peewee.Database) -> None:
    ids = add(database, 4)
    claims = claim(store)
    mixed = [sent(claims[0]), replace(sent(claims[1]), claim_no=9), relinquish(claims[2]), deferred(claims[3])]
    assert settle(store, *mixed) == [Settled.WRITTEN, Settled.LATE, Settled.WRITTEN, Settled.WRITTEN]
    states = [delivery(database, each, "state")[0] for each in ids]
    assert states == ["sent", "sending", "queued", "queued"]


def test_a_rolled_back_group_leaves_nothing(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)

    def claim_and_fail() -> None:
        store.claim(ME, [Pick(SHOP, 5, 1)], NOW)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(store, claim_and_fail)
    assert delivery(database, message_id, "state", "claim_no") == ("queued", 0)
    assert attempts(database, message_id) == []


# ---- taking back


def lose(store: Store, database: peewee.Database, *, dotted: bool, **columns: Any) -> Claim:
    """A message whose runner died, before or after its dot mark."""
    (message_id,) = add(database, recipients="ann@example.net, bob@example.net", **columns)
    (claimed,) = claim(store)
    if dotted:
        write(store, lambda: store.mark([Mark(message_id, 1)], NOW))
    bury(store, ME)
    register(store, SURVIVOR)
    return claimed


def reclaim(store: Store, max_doubts: int = 3) -> list[tuple[bool, bool]]:
    return [(each.dotted, each.held) for each in write(store, lambda: store.reclaim(max_doubts, NOW))]


def test_a_message_lost_before_its_dot_is_queued_again(store: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=False)
    assert reclaim(store) == [(False, False)]
    columns = ("state", "doubts", "crashes", "claim_no")
    assert delivery(database, claimed.message_id, *columns) == ("queued", 0, 1, 1)
    assert attempts(database, claimed.message_id) == [(1, "lost", None)]
    assert fates(database, claimed.message_id) == []
    assert reclaim(store) == []


def test_a_message_lost_after_its_dot_mark_is_a_doubt_for_each_recipient(
    store: Store, database: peewee.Database
) -> None:
    claimed = lose(store, database, dotted=True)
    assert reclaim(store) == [(True, False)]
    assert delivery(database, claimed.message_id, "state", "doubts") == ("queued", 1)
    assert attempts(database, claimed.message_id) == [(1, "doubt", None)]
    assert fates(database, claimed.message_id) == [(0, 1, "doubt"), (1, 1, "doubt")]


def test_a_doubt_holds_a_message_that_says_so(store: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=True, on_doubt="hold")
    assert reclaim(store) == [(True, True)]
    state, reason = delivery(database, claimed.message_id, "state", "hold_reason")
    assert state == "held"
    assert "resolve" in reason


def test_too_many_doubts_hold_any_message(store: Store, database: peewee.Database) -> None:
    lose(store, database, dotted=True)
    assert reclaim(store, max_doubts=0) == [(True, True)]


def test_a_message_that_ended_three_runners_is_held(store: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=False)
    run(database, "UPDATE outbox_delivery SET crashes = 2")
    assert reclaim(store) == [(False, True)]
    assert "three times" in delivery(database, claimed.message_id, "hold_reason")[0]


def test_only_the_part_that_the_dot_covered_is_in_doubt(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database, recipients="ann@example.net, bob@example.net, carl@example.net")
    (claimed,) = claim(store)
    accepted = sent(claimed).fates
    write(store, lambda: store.mark([Mark(message_id, 1, 0)], NOW))
    write(store, lambda: store.mark([Mark(message_id, 1, 1, accepted)], NOW))
    bury(store, ME)
    reclaim(store)
    assert fates(database, message_id) == [(0, 1, "accepted"), (1, 1, "doubt")]


def test_what_a_living_runner_sends_is_left_to_it(store: Store, database: peewee.Database) -> None:
    add(database)
    claim(store)
    assert reclaim(store) == []


def test_a_stray_claim_is_taken_back_alone(store: Store, database: peewee.Database) -> None:
    stray, known = add(database, 2)
    claim(store)
    write(store, lambda: store.mark([Mark(stray, 1)], NOW))
    (taken,) = write(store, lambda: store.reclaim_stray(stray, 1, 3, NOW))
    assert (taken.message_id, taken.dotted) == (stray, True)
    assert delivery(database, known, "state") == ("sending",)
    assert store.my_claims(ME) == [(known, 1)]


# ---- after the claim was lost


def test_after_the_claim_is_lost_a_mark_is_refused(store: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=False)
    reclaim(store)
    assert write(store, lambda: store.mark([Mark(claimed.message_id, 1)], NOW)) == [False]


def test_a_late_acceptance_settles_a_message_that_nobody_has_claimed_since(
    store: Store, database: peewee.Database
) -> None:
    claimed = lose(store, database, dotted=True, on_doubt="hold")
    reclaim(store)
    assert settle(store, sent(claimed)) == [Settled.LATE]
    columns = ("state", "claim_no", "doubts", "hold_reason")
    assert delivery(database, claimed.message_id, *columns) == ("sent", 2, 1, None)
    assert attempts(database, claimed.message_id) == [(1, "doubt", "accepted")]
    latest = "SELECT fate FROM outbox_fate WHERE message_id = ? AND position = 0"
    assert one(database, latest, claimed.message_id) == "accepted"


def test_a_late_acceptance_does_not_touch_a_newer_claim(store: Store, second: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=True)
    reclaim(store)
    (newer,) = write(second, lambda: second.claim_one(OTHER, claimed.message_id, NOW))
    assert settle(store, sent(claimed)) == [Settled.LATE]
    assert delivery(database, claimed.message_id, "state", "claim_no", "lease_owner") == ("sending", 2, OTHER)
    assert attempts(database, claimed.message_id) == [(1, "doubt", "accepted"), (2, None, None)]
    assert settle(second, sent(newer)) == [Settled.WRITTEN]


def test_a_late_refusal_is_noted_and_changes_nothing(store: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=False)
    reclaim(store)
    assert settle(store, deferred(claimed)) == [Settled.LATE]
    assert delivery(database, claimed.message_id, "state", "failures", "claim_no") == ("queued", 0, 1)
    assert attempts(database, claimed.message_id) == [(1, "lost", "deferred")]


def test_a_late_acceptance_of_some_spares_them_a_second_copy(store: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=True)
    reclaim(store)
    partial = sent(claimed, state=State.QUEUED, result=Result.DEFERRED, due_at=LATER)
    settle(store, partial)
    assert delivery(database, claimed.message_id, "state") == ("queued",)
    (again,) = write(store, lambda: store.claim_one(SURVIVOR, claimed.message_id, NOW))
    assert store.content(again).fates == {0: Fate.ACCEPTED, 1: Fate.DOUBT}


# ---- expiry, runners, counts


def test_what_waits_past_its_time_expires(store: Store, database: peewee.Database) -> None:
    gone = add(database, expires_at=(NOW - timedelta(seconds=1)).isoformat())[0]
    fresh = add(database, expires_at=LATER.isoformat())[0]
    assert store.expirable(NOW)
    assert write(store, lambda: store.expire(NOW)) == 1
    assert [delivery(database, each, "state")[0] for each in (gone, fresh)] == ["expired", "queued"]
    assert not store.expirable(NOW)


def test_a_lease_is_renewed_until_somebody_declares_the_runner_dead(store: Store) -> None:
    assert write(store, lambda: runners.renew(store, ME, NOW, timedelta(minutes=1)))
    assert runners.overdue(store, OTHER, NOW) == []
    assert runners.overdue(store, OTHER, LATER) == [ME]
    bury(store, ME)
    assert not write(store, lambda: runners.renew(store, ME, NOW, timedelta(minutes=1)))
    assert runners.others(store, OTHER) == []


def test_a_runner_that_holds_nothing_is_forgotten_in_the_end(store: Store, database: peewee.Database) -> None:
    register(store, OTHER)
    add(database)
    claim(store)
    bury(store, ME)
    bury(store, OTHER)
    assert runners.dead_holding(store)
    write(store, lambda: runners.forget(store, NOW + timedelta(days=30)))
    assert rows(database, "SELECT id FROM outbox_runner") == [(ME,)]


def test_what_waits_is_counted_by_sender(store: Store, database: peewee.Database) -> None:
    add(database, 3, due_at=NOW.isoformat())
    add(database, 1, sender="a@example.com", due_at=LATER.isoformat())
    found = [(each.sender, each.count, each.due_at) for each in store.waiting()]
    assert found == [("a@example.com", 1, LATER), (SHOP, 3, NOW)]
    claim(store, 2)
    assert store.sending() == 2


def _stored(text: str | None) -> str | None:
    return None if text is None else text[:19] + ".000Z"
