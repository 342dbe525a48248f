"""outbox stats."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.program import Program
from tests.stories import NO_SUCH_USER, OK, Stories


@pytest.fixture
def outbox(program: Program) -> Program:
    return program.init()


@pytest.fixture
def stories(outbox: Program) -> Iterator[Stories]:
    with Stories(outbox.url) as opened:
        yield opened


def test_an_empty_outbox_has_numbers_too(outbox: Program) -> None:
    text = outbox.run("stats").stdout
    assert "nothing was sent in the last 24h" in text
    numbers = outbox.json("stats")
    assert numbers["waiting"] == {
        "due": 0,
        "scheduled": 0,
        "deferred": 0,
        "sending": 0,
        "held": 0,
        "oldest_due_at": None,
        "oldest_due_seconds": None,
    }
    assert numbers["window"] == {"sent": 0, "failed": 0, "expired": 0, "cancelled": 0, "doubts": 0}
    assert numbers["latency"] == {"count": 0, "p50": None, "p95": None}


def test_the_numbers_can_be_read_by_people_and_programs(outbox: Program, stories: Stories) -> None:
    stories.one_of_each()
    lines = [line.split() for line in outbox.run("stats").stdout.splitlines()]
    for name in ("due", "sending", "deferred", "scheduled", "held"):
        assert [name, "1"] in [line[:2] for line in lines], name
    for name in ("sent", "failed", "expired", "cancelled"):
        assert [name, "1", "1"] in lines, name
    numbers = outbox.json("stats", "--since", "7d")
    assert numbers["waiting"]["oldest_due_seconds"] > 0
    assert (numbers["window"]["sent"], numbers["latency"]["count"]) == (1, 1)
    assert "lines" not in numbers


@pytest.mark.parametrize(
    ("by", "heading", "first"),
    [
        (
            "sender",
            "SENDER            SENT  FAILED  EXPIRED  WAITING  DOUBTS",
            ["shop@example.com", "1", "1", "0", "0", "0"],
        ),
        ("code", "CODE  STATUS  DEAD  WAITING  EXAMPLE", ["550", "5.1.1", "1", "0", "no", "such", "user", "here"]),
    ],
)
def test_a_table_has_a_line_for_each(
    outbox: Program, stories: Stories, by: str, heading: str, first: list[str]
) -> None:
    stories.attempt(stories.mail(), OK)
    stories.attempt(stories.mail(), None, [NO_SUCH_USER])
    lines = outbox.run("stats", "--by", by).stdout.splitlines()
    assert lines[lines.index(heading) + 1].split() == first
    numbers = outbox.json("stats", "--by", by)
    assert (numbers["by"], len(numbers["lines"])) == (by, 1)


def test_a_table_by_day_goes_back_in_time(outbox: Program, stories: Stories) -> None:
    stories.attempt(stories.mail(), OK)
    (day,) = outbox.json("stats", "--by", "day")["lines"]
    assert (len(day["day"]), day["sent"]) == (10, 1)
    assert day["day"] in outbox.run("stats", "--by", "day").stdout


@pytest.mark.parametrize("args", [("--since", "soon"), ("--since", "999999999d"), ("--by", "moon")])
def test_a_question_that_means_nothing_is_a_usage_error(sqlite_program: Program, args: tuple[str, ...]) -> None:
    sqlite_program.init().fails(2, "stats", *args)
