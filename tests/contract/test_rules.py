"""Reply rules in the database: added, listed, removed, and loaded whatever somebody wrote into the table."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import peewee
import pytest

from outbox.core.outcome import Outcome, Scope, Verdict
from outbox.core.reply import Reply
from outbox.core.rules import Rule
from outbox.errors import Refused
from outbox.store import tables
from outbox.store.database import connect, dialect
from outbox.store.journal import Act
from outbox.store.rules import add_rule, load, remove_rule, stored

NOW = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)
ANN = Act("ann", NOW)


def add(db: peewee.Database, pattern: str, **how: Any) -> Rule:
    with db.atomic():
        return add_rule(db, ANN, pattern=pattern, **{"verdict": Verdict.DEFER, "scope": Scope.ACCOUNT, **how})


def insert(db: peewee.Database, pattern: str, columns: str = "", values: str = "") -> None:
    db.execute_sql(
        "INSERT INTO outbox_reply_rule (pattern, verdict, scope" + columns + ") "
        f"VALUES ({pattern}, 'defer', 'recipient'{values})"
    )


def journaled(db: peewee.Database) -> list[tuple[str, str, str, str]]:
    query = tables.Journal.select().order_by(tables.Journal.id)
    return [(line.who, line.verb, line.matching, line.detail) for line in query.execute(db)]


def test_rules_are_loaded_as_they_were_added_in_their_order(database: peewee.Database) -> None:
    first = add(database, "frequency limited", relay="*.example.com", delay=timedelta(minutes=10), note="slow down")
    second = add(database, "^554 .*policy", verdict=Verdict.BOUNCE, scope=Scope.MESSAGE)
    assert load(database) == (first, second)
    assert second.id > first.id
    assert load(database)[0].outcome == Outcome(Verdict.DEFER, Scope.ACCOUNT, timedelta(minutes=10), first.id)
    assert [(each.rule, each.flaw, each.created_at) for each in stored(database)] == [
        (first, "", NOW),
        (second, "", NOW),
    ]


def test_who_added_and_removed_a_rule_is_in_the_journal(database: peewee.Database) -> None:
    added = add(database, "frequency limited", delay=timedelta(minutes=10))
    remove_rule(database, added.id, ANN)
    what = "relay=* 'frequency limited' verdict=defer scope=account delay=10m"
    assert journaled(database) == [
        ("ann", "rule add", f"rule={added.id}", what),
        ("ann", "rule remove", f"rule={added.id}", what),
    ]
    assert load(database) == ()


def test_the_number_of_a_removed_rule_does_not_come_again(database: peewee.Database) -> None:
    add(database, "a")
    removed = add(database, "b")
    remove_rule(database, removed.id, ANN)
    assert add(database, "c").id > removed.id


def test_a_rule_written_with_sql_is_a_rule(database: peewee.Database) -> None:
    insert(database, "'busy'")
    (rule,) = load(database)
    assert (rule.relay, rule.delay, rule.note) == ("*", timedelta(0), "")
    assert rule.fits(Reply(550, "", "too BUSY"))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"pattern": "(a"}, "not a regular expression"),
        ({"pattern": "(a+)+"}, "could be searched for ever"),
        ({"pattern": ""}, "1 to 500 characters"),
        ({"pattern": "x" * 501}, "1 to 500 characters"),
        ({"pattern": "x", "verdict": Verdict.ACCEPT}, "defer or bounce"),
        ({"pattern": "x", "relay": "smtp.example.com:587"}, "no pattern for a relay"),
        ({"pattern": "x", "relay": ""}, "no pattern for a relay"),
        ({"pattern": "x", "relay": "a b"}, "no pattern for a relay"),
        ({"pattern": "x", "delay": timedelta(days=8)}, "one second to seven days"),
        ({"pattern": "x", "delay": timedelta(milliseconds=5)}, "one second to seven days"),
        ({"pattern": "x", "verdict": Verdict.BOUNCE, "scope": Scope.MESSAGE, "delay": timedelta(1)}, "not tried again"),
        ({"pattern": "taken"}, "has this pattern for .* already"),
    ],
)
def test_what_is_no_rule_is_refused_with_what_to_do(
    database: peewee.Database, how: dict[str, Any], reason: str
) -> None:
    add(database, "taken")
    with pytest.raises(Refused, match=reason):
        add(database, **how)
    assert len(load(database)) == 1
    assert len(journaled(database)) == 1


def test_a_rule_that_is_not_there_cannot_be_removed(database: peewee.Database) -> None:
    with pytest.raises(Refused, match="there is no rule 7"):
        remove_rule(database, 7, ANN)


def test_a_row_that_is_no_rule_is_passed_over_and_said_once(
    database: peewee.Database, caplog: pytest.LogCaptureFixture
) -> None:
    patterns = [f"(unbalanced {dialect(database)}", f"(a+)+ {dialect(database)}"]  # once in this process
    good = add(database, "good")
    for pattern in patterns:
        insert(database, f"'{pattern}'")
    last = add(database, "last")
    with caplog.at_level(logging.WARNING, "outbox.rules"):
        for _ in range(3):
            assert load(database) == (good, last)
    bad = [each for each in stored(database) if each.rule is None]
    assert [each.pattern for each in bad] == patterns
    assert [record.getMessage() for record in caplog.records] == [
        f"reply rule {each.id} is not asked: {each.flaw}; `outbox rule remove {each.id}` removes it" for each in bad
    ]
    remove_rule(database, bad[0].id, ANN)
    assert [each.id for each in stored(database)] == [good.id, bad[1].id, last.id]


@pytest.mark.parametrize(
    ("pattern", "columns", "values"),
    [
        ("CAST(x'66ff' AS TEXT)", "", ""),
        ("x'66ff'", "", ""),
        ("'odd relay'", ", relay", ", x'ff'"),
        ("'odd moment'", ", created_at", ", 'yesterday'"),
    ],
)
def test_what_sqlite_lets_through_stops_no_other_rule(sqlite_url: str, pattern: str, columns: str, values: str) -> None:
    db = connect(sqlite_url)
    try:
        insert(db, pattern, columns, values)
        good = add(db, "good")
        assert good in load(db)
        assert [each.id for each in stored(db)] == [1, 2]
        assert stored(db)[0].flaw != ""
        remove_rule(db, 1, ANN)
        assert load(db) == (good,)
    finally:
        db.close()
