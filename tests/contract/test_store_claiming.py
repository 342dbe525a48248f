"""The store's verbs, over SQLite and PostgreSQL: lanes, claims, contents and dot marks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import peewee
import pytest

from outbox.clock import Clock
from outbox.core.settlement import Fate
from outbox.errors import InvalidMessage
from outbox.store import DeclaredDeadError, Lane, Mark, Pick, Store
from outbox.store.rows import moment
from outbox.store.sqlite import SqliteStore
from tests.contract.stores import (
    ME,
    NOW,
    OTHER,
    SHOP,
    add,
    attempts,
    bury,
    claim,
    deferred,
    delivery,
    fates,
    register,
    sent,
    settle,
    write,
)
from tests.statements import run


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
    assert [each.message_id for each in store.suspects(0, NOW)] == [suspect]
    assert [each.message_id for each in claim(store)] == [other]
    (taken,) = write(store, lambda: store.claim_one(ME, suspect, NOW))
    assert (taken.message_id, taken.crashes) == (suspect, 1)
    assert store.suspects(0, NOW) == []


def test_suspects_go_on_behind_the_last_one(store: Store, database: peewee.Database) -> None:
    ids = add(database, 12)
    run(database, "UPDATE outbox_delivery SET crashes = 1")
    first = [each.message_id for each in store.suspects(0, NOW)]
    rest = [each.message_id for each in store.suspects(first[-1], NOW)]
    assert first + rest == ids


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


def _stored(text: str | None) -> str | None:
    return None if text is None else text[:19] + ".000Z"


def test_on_sqlite_a_claim_alone_is_not_synced_and_what_comes_after_it_is(sqlite_url: str) -> None:
    store = SqliteStore(sqlite_url, Clock())
    store.open()

    def synchronous() -> int:
        return int(store.db.execute_sql("PRAGMA synchronous").fetchone()[0])

    normal, full = 1, 2
    with store.single(durable=False):
        assert synchronous() == normal
    with store.single():
        assert synchronous() == full
    with store.single(durable=False):
        pass
    with store.transaction():
        assert synchronous() == full
    store.close()
    store.open()
    assert synchronous() == full
    store.close()


def test_claims_come_in_the_order_of_the_picks_and_then_of_their_due_times(
    store: Store, database: peewee.Database
) -> None:
    old = (NOW - timedelta(days=9)).isoformat()
    (oldest,) = add(database, sender="a@example.com", due_at=old)
    late, early = add(database)[0], add(database, due_at=(NOW - timedelta(days=1)).isoformat())[0]
    picks = [Pick(SHOP, 5, 10), Pick("a@example.com", 5, 10)]
    claims = write(store, lambda: store.claim(ME, picks, NOW))
    assert [each.message_id for each in claims] == [early, late, oldest]


def test_each_mark_has_its_own_answer(store: Store, database: peewee.Database) -> None:
    add(database, 7)
    claims = claim(store)
    lost = {1, 2, 5}
    marks = [Mark(each.message_id, each.claim_no + (place in lost)) for place, each in enumerate(claims)]
    assert write(store, lambda: store.mark(marks, NOW)) == [place not in lost for place in range(7)]


def test_what_is_taken_from_the_dead_ends_no_attempt_of_the_living(
    store: Store, second: Store, database: peewee.Database
) -> None:
    add(database, 2)
    (theirs,) = claim(second, 1, runner=OTHER)
    (ours,) = claim(store, 1)
    bury(store, OTHER)
    assert [each.message_id for each in write(store, lambda: store.reclaim(3, NOW))] == [theirs.message_id]
    assert attempts(database, theirs.message_id) == [(1, "lost", None)]
    assert attempts(database, ours.message_id) == [(1, None, None)]
    assert delivery(database, ours.message_id, "state", "lease_owner") == ("sending", ME)


def test_on_sqlite_the_contents_of_plain_mail_take_a_statement_for_many(sqlite_url: str) -> None:
    store = SqliteStore(sqlite_url, Clock())
    store.open()
    register(store, ME)
    add(store.db, 20)
    claims, said = claim(store), list[str]()
    store.db.connection().set_trace_callback(said.append)
    with store.reading():
        contents = list(store.contents(claims))
    store.db.connection().set_trace_callback(None)
    store.close()
    assert len(contents) == 20
    assert len(said) <= 4  # two for 16, two for 4


def test_a_claim_begins_without_the_mark_of_an_earlier_one(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    old = moment(NOW - timedelta(days=1))
    run(database, "UPDATE outbox_delivery SET dot_at = ?, dot_through = 3 WHERE message_id = ?", old, message_id)
    claim(store)
    assert delivery(database, message_id, "state", "dot_at", "dot_through") == ("sending", None, None)
