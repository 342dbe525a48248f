"""Each verb of the protocol among rows of every kind at once: it takes those that it is about, and no other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import peewee
import pytest

from outbox.core.lifecycle import FINAL, State
from outbox.core.settlement import DOUBT_HELD
from outbox.store import DeclaredDeadError, Lane, Mark, Pick, Store, runners
from outbox.store.reclaim import CRASHES_HELD
from outbox.store.rows import moment
from tests.contract.stores import LATER, ME, NOW, OTHER, SHOP, add, bury, claim, register, write
from tests.statements import rows, run

TICK, ALSO = timedelta(milliseconds=1), "also@example.com"
TIMES = (NOW - TICK, NOW, NOW + TICK)


class Kind(NamedTuple):
    """What tells one row from another, for a claim."""

    state: State
    due_at: datetime
    crashes: int
    sender: str
    priority: int


KINDS = [Kind(*each) for each in itertools.product(State, TIMES, (0, 1), (SHOP, ALSO), (0, 5))]


@pytest.fixture
def everything(store: Store, database: peewee.Database) -> dict[int, Kind]:
    """A row of each kind, by its id. What is being sent is ME's."""
    found = {}
    with database.atomic():
        for kind in KINDS:
            (message_id,) = add(database, sender=kind.sender, priority=kind.priority, due_at=moment(kind.due_at))
            found[message_id] = kind
            put(database, message_id, kind.state, crashes=kind.crashes)
    return found


def put(database: peewee.Database, message_id: int, state: State, **columns: object) -> None:
    """A row into a state, by hand."""
    values: dict[str, object] = {"state": str(state), **columns}
    values["final_at"] = moment(NOW) if state in FINAL else None
    if state is State.SENDING:
        values |= {"lease_owner": values.get("lease_owner", ME), "claim_no": 1}
        sql = "INSERT INTO outbox_attempt (message_id, claim_no, runner_id, started_at) VALUES (?, 1, ?, ?)"
        run(database, sql, message_id, values["lease_owner"], moment(NOW))
    changed = ", ".join(f"{name} = ?" for name in values)
    run(database, f"UPDATE outbox_delivery SET {changed} WHERE message_id = ?", *values.values(), message_id)


def states(database: peewee.Database) -> dict[int, tuple[str, int]]:
    return {key: rest for key, *rest in rows(database, "SELECT message_id, state, claim_no FROM outbox_delivery")}  # type: ignore[misc]


def those(everything: dict[int, Kind], which: Callable[[Kind], bool]) -> list[int]:
    """In the order of a claim."""
    return sorted(
        (each for each, kind in everything.items() if which(kind)), key=lambda each: (everything[each].due_at, each)
    )


def test_a_claim(store: Store, database: peewee.Database, everything: dict[int, Kind]) -> None:
    before = states(database)
    wanted = those(everything, lambda each: each[:1] + each[2:] == (State.QUEUED, 0, SHOP, 5) and each.due_at <= NOW)
    assert [each.message_id for each in claim(store)] == wanted
    assert len(wanted) == 2
    after = {each: ["sending", 1] for each in wanted}
    assert states(database) == {**before, **after}


def test_a_claim_of_one(store: Store, database: peewee.Database, everything: dict[int, Kind]) -> None:
    before = states(database)
    for message_id, kind in everything.items():
        claims = write(store, lambda each=message_id: store.claim_one(ME, each, NOW))  # type: ignore[misc]
        assert bool(claims) is (kind.state is State.QUEUED and kind.due_at <= NOW), kind
    may = those(everything, lambda each: each.state is State.QUEUED and each.due_at <= NOW)
    assert states(database) == {**before, **{each: ["sending", 1] for each in may}}


def test_who_is_suspected(store: Store, everything: dict[int, Kind]) -> None:
    expected = sorted(
        those(everything, lambda each: (each.state, each.crashes) == (State.QUEUED, 1) and each.due_at <= NOW)
    )
    found = [each.message_id for each in store.suspects(0, NOW)]
    assert found == expected
    assert [each.message_id for each in store.suspects(found[0], NOW)] == expected[1:]
    assert store.suspects(found[-1], NOW) == []
    assert [each.message_id for each in store.look("", 100, found[0], NOW)[1]] == expected[1:]
    assert store.look("", 100, found[-1], NOW)[1] == []


def test_which_lanes_have_mail(store: Store, everything: dict[int, Kind]) -> None:
    lanes = [Lane(sender, priority, TIMES[0]) for sender in (ALSO, SHOP) for priority in (0, 5)]
    assert store.lanes("", 100) == lanes
    assert store.lanes("", 3) == lanes[:3]
    assert store.lanes(ALSO, 100) == lanes[2:]
    assert store.lanes(SHOP, 100) == []
    assert store.look("", 100, 0, NOW)[0] == lanes


def test_what_is_counted(store: Store, everything: dict[int, Kind]) -> None:
    each = len(KINDS) // len(State)
    assert (store.sending(), store.held()) == (each, each)
    assert [(found.sender, found.count, found.due_at) for found in store.waiting()] == [
        (ALSO, each // 2, TIMES[0]),
        (SHOP, each // 2, TIMES[0]),
    ]
    assert len(store.my_claims(ME)) == each
    assert store.my_claims(OTHER) == []


def test_what_is_overdue(store: Store, everything: dict[int, Kind]) -> None:
    expected = those(everything, lambda each: (each.state, each.sender, each.priority) == (State.QUEUED, SHOP, 5))
    lane = Lane(SHOP, 5, NOW)
    found = store.overdue(lane, None, NOW, 100)
    assert [each[1] for each in found] == [each for each in expected if everything[each].due_at <= NOW]
    assert [each[1] for each in store.overdue(lane, found[0], NOW, 100)] == [each[1] for each in found[1:]]
    assert [each[1] for each in store.overdue(lane, found[1], NOW, 1)] == [found[2][1]]
    assert store.overdue(lane, found[-1], NOW, 100) == []


def test_whom_a_delay_is_told_of(store: Store, database: peewee.Database, everything: dict[int, Kind]) -> None:
    queued = sorted(those(everything, lambda each: each.state is State.QUEUED))
    some = queued[:3] + [each for each in everything if each not in queued]
    write(store, lambda: store.tell_delayed(some, "the relay is away", NOW))
    write(store, lambda: store.tell_delayed(queued[:4], "the relay is away", NOW))
    told = rows(database, "SELECT message_id, kind, reply FROM outbox_event ORDER BY id")
    assert told == [(each, "delayed", "the relay is away") for each in queued[:4]]


def test_what_is_marked(store: Store, database: peewee.Database, everything: dict[int, Kind]) -> None:
    marks = [Mark(each, 1) for each in everything]
    marked = write(store, lambda: store.mark(marks, NOW))
    assert marked == [kind.state is State.SENDING for kind in everything.values()]
    found = rows(database, "SELECT message_id FROM outbox_delivery WHERE dot_at IS NOT NULL ORDER BY message_id")
    assert [each for (each,) in found] == [each for each, kind in everything.items() if kind.state is State.SENDING]


def test_whose_claims_are_taken_back(store: Store, database: peewee.Database, everything: dict[int, Kind]) -> None:
    """Only of the dead; those of the living, and what was ended meanwhile, stay."""
    register(store, OTHER)
    mine = sorted(those(everything, lambda each: each.state is State.SENDING))
    others = mine[::2]
    for each in others:
        run(database, "UPDATE outbox_delivery SET lease_owner = ? WHERE message_id = ?", OTHER, each)
    before = states(database)
    assert not runners.dead_holding(store)
    assert write(store, lambda: store.reclaim(3, NOW)) == []
    bury(store, OTHER)
    assert runners.dead_holding(store)
    taken = write(store, lambda: store.reclaim(3, NOW))
    assert sorted(each.message_id for each in taken) == others
    assert states(database) == {**before, **{each: ["queued", 1] for each in others}}
    assert not runners.dead_holding(store)


class Lost(NamedTuple):
    """What decides where a message goes whose runner died."""

    dotted: bool
    on_doubt: str
    doubts: int
    crashes: int


LOST = [Lost(*each) for each in itertools.product((False, True), ("retry", "hold"), (1, 2, 3), (1, 2))]


def test_where_it_goes_that_was_lost(store: Store, database: peewee.Database) -> None:
    for lost in LOST:
        (message_id,) = add(database, on_doubt=lost.on_doubt)
        dot_at = moment(NOW) if lost.dotted else None
        put(database, message_id, State.SENDING, doubts=lost.doubts, crashes=lost.crashes, dot_at=dot_at)
        (taken,) = write(store, lambda each=message_id: store.reclaim_stray(each, 1, 2, LATER))  # type: ignore[misc]
        in_doubt = lost.dotted and (lost.on_doubt == "hold" or lost.doubts >= 2)
        held = in_doubt or lost.crashes >= 2
        assert (taken.dotted, taken.held) == (lost.dotted, held)
        columns = "state, hold_reason, doubts, crashes, lease_owner, first_attempt_at"
        reason = DOUBT_HELD if in_doubt else CRASHES_HELD if held else None
        state = "held" if held else "queued"
        assert rows(database, f"SELECT {columns} FROM outbox_delivery WHERE message_id = ?", message_id) == [
            (state, reason, lost.doubts + lost.dotted, lost.crashes + 1, None, moment(LATER))
        ]
        outcome = "doubt" if lost.dotted else "lost"
        sql = "SELECT outcome, dot_at, ended_at FROM outbox_attempt WHERE message_id = ?"
        assert rows(database, sql, message_id) == [(outcome, dot_at, moment(LATER))]
        sql = "SELECT 1 FROM outbox_event WHERE kind = 'doubt' AND message_id = ?"
        assert len(rows(database, sql, message_id)) == lost.dotted


def test_what_is_too_late(store: Store, database: peewee.Database) -> None:
    kinds = list(itertools.product(State, (None, *TIMES)))
    ids = {}
    for state, expires_at in kinds:
        (message_id,) = add(database, expires_at=moment(expires_at), due_at=moment(NOW - timedelta(days=1)))
        ids[message_id] = (state, expires_at)
        put(database, message_id, state)
    before = states(database)
    late = [each for each, (state, at) in ids.items() if state is State.QUEUED and at is not None and at <= NOW]
    assert store.expirable(NOW)
    assert write(store, lambda: store.expire(NOW)) == len(late) == 2
    assert states(database) == {**before, **{each: ["expired", 0] for each in late}}
    assert not store.expirable(NOW)
    assert write(store, lambda: store.expire(NOW)) == 0
    sql = "SELECT final_at FROM outbox_delivery WHERE message_id = ?"
    assert [rows(database, sql, each) for each in late] == [[(moment(NOW),)]] * 2


@pytest.mark.parametrize("runner", [ME, "f" * 32])
def test_who_is_not_alive_claims_nothing_though_others_are(
    store: Store, database: peewee.Database, runner: str
) -> None:
    (message_id,) = add(database)
    register(store, OTHER)
    bury(store, ME)
    before = states(database)
    for verb in (
        lambda: store.claim(runner, [Pick(SHOP, 5, 1)], NOW),
        lambda: store.claim_one(runner, message_id, NOW),
    ):
        with pytest.raises(DeclaredDeadError):
            write(store, verb)
    assert states(database) == before
    assert [each.message_id for each in claim(store, runner=OTHER)] == [message_id]


def test_an_age_begins_once(store: Store, database: peewee.Database) -> None:
    old, new = add(database, 2)
    put(database, old, State.SENDING, first_attempt_at=moment(NOW))
    put(database, new, State.SENDING)
    for each in (old, new):
        write(store, lambda each=each: store.reclaim_stray(each, 1, 3, LATER))  # type: ignore[misc]
    found: list[Any] = rows(database, "SELECT first_attempt_at FROM outbox_delivery ORDER BY message_id")
    assert found == [(moment(NOW),), (moment(LATER),)]
