"""``outbox suppress …``."""

from __future__ import annotations

import time
from pathlib import Path

from outbox.clock import Clock
from outbox.core.suppression import Suppression
from outbox.store.database import connect
from outbox.store.journal import Act
from outbox.store.suppression import add
from tests.cli.program import Program


def addresses(program: Program) -> list[str]:
    return [each["address"] for each in program.json("suppress", "list")]


def test_who_is_suppressed_is_listed_with_the_reason(program: Program) -> None:
    program.init()
    program.run("suppress", "add", "Ann@Example.net", "*@example.org", "--reason", "hard bounce")
    program.run("suppress", "add", "bob@example.net", "--for", "30d")

    whole, ann, bob = program.json("suppress", "list")
    assert ann.pop("created_at").endswith("Z")
    assert ann == {"address": "ann@example.net", "reason": "hard bounce", "until": None, "active": True}
    assert (whole["address"], bob["reason"], bob["until"] > bob["created_at"]) == ("*@example.org", "by request", True)
    table = program.run("suppress", "list").stdout
    assert "ann@example.net" in table
    assert "for good" in table
    assert [each["address"] for each in program.json("suppress", "list", "--matching", "org")] == ["*@example.org"]
    assert (
        "nobody is suppressed that matches 'nobody'" in program.run("suppress", "list", "--matching", "nobody").stderr
    )


def test_what_is_over_is_shown_as_over(program: Program) -> None:
    program.init()
    db = connect(program.url)
    now = Clock().now()
    add(db, [Suppression("ann@example.net", "was full", now)], Act("ann", now))
    db.close()

    assert program.json("suppress", "list")[0]["active"] is False
    assert "(over)" in program.run("suppress", "list").stdout


def test_removing_says_what_was_not_there_and_what_stays(program: Program) -> None:
    program.init().run("suppress", "add", "ann@example.net", "*@example.net")

    removed = program.run("suppress", "remove", "ANN@example.net")
    assert removed.stdout == "no longer suppressed: ann@example.net\n"
    assert "ann@example.net stays suppressed, by *@example.net" in removed.stderr
    said = program.fails_after_output(1, "suppress", "remove", "*@example.net", "bob@example.net")
    assert "not suppressed: bob@example.net" in said
    assert addresses(program) == []


def test_what_is_no_address_is_a_usage_error_and_nothing_is_done(sqlite_program: Program) -> None:
    sqlite_program.init()
    assert "ADDRESS" in sqlite_program.fails(2, "suppress", "add", "ann@example.net", "nobody")
    assert sqlite_program.fails(2, "suppress", "remove", "*")
    assert "--reason" in sqlite_program.fails(2, "suppress", "add", "ann@example.net", "--reason", "")
    assert "--reason" in sqlite_program.fails(2, "suppress", "add", "ann@example.net", "--reason", "x" * 301)
    assert "--for" in sqlite_program.fails(2, "suppress", "add", "ann@example.net", "--for", "soon")
    assert addresses(sqlite_program) == []


def test_a_reason_is_one_line(sqlite_program: Program) -> None:
    sqlite_program.init().run("suppress", "add", "ann@example.net", "--reason", "asked\n\x1b[31mtwice")

    assert sqlite_program.json("suppress", "list")[0]["reason"] == "asked [31mtwice"


# -- files


def test_a_file_is_imported_and_may_come_again(program: Program) -> None:
    program.init()
    file = program.home / "bounces.csv"
    file.write_text("address,reason,until\nann@example.net,hard bounce,\n*@example.org,,2999-01-01\n", encoding="utf-8")
    program.run("suppress", "add", "bob@example.net")

    assert program.json("suppress", "import", str(file)) == {"new": 2, "changed": 0, "same": 0, "bad": 0}
    assert program.run("suppress", "import", str(file)).stdout == "0 new, 0 changed, 2 as they were\n"
    whole, ann, bob = program.json("suppress", "list")
    assert (ann["reason"], bob["reason"], whole["reason"]) == ("hard bounce", "by request", "imported")
    assert whole["until"] == "2999-01-01T00:00:00.000Z"


def test_standard_input_is_a_file_too(sqlite_program: Program) -> None:
    sqlite_program.init()
    said = sqlite_program.run(
        "suppress", "import", "-", "--reason", "old list", stdin="ann@example.net\n# no\n\nbob@x.y\n"
    )

    assert said.stdout == "2 new, 0 changed, 0 as they were\n"
    assert {each["reason"] for each in sqlite_program.json("suppress", "list")} == {"old list"}


def test_a_bad_line_is_named_and_nothing_is_imported(sqlite_program: Program) -> None:
    sqlite_program.init()
    file = sqlite_program.home / "list.txt"
    file.write_bytes(b"ann@example.net\nnobody\nb\xf6b@example.net\nbob@example.net\n")

    said = sqlite_program.fails(1, "suppress", "import", "list.txt")
    assert "list.txt, line 2: " in said
    assert "list.txt, line 3: " in said
    assert "nothing was imported: 2 lines are bad" in said
    assert "--skip-bad" in said
    assert addresses(sqlite_program) == []
    skipped = sqlite_program.run("suppress", "import", str(file), "--skip-bad")
    assert skipped.stderr.count("skipped: ") == 2
    assert addresses(sqlite_program) == ["ann@example.net", "bob@example.net"]


def test_of_many_bad_lines_the_first_are_named(sqlite_program: Program) -> None:
    said = sqlite_program.init().run("suppress", "import", "-", stdin="bad\n" * 1000, code=1).stderr

    assert said.count("line ") == 20
    assert "and 980 more lines" in said
    assert "1,000 lines are bad" in said


def test_a_file_that_is_not_there_is_a_usage_error(sqlite_program: Program) -> None:
    assert "cannot read nowhere.txt" in sqlite_program.init().fails(2, "suppress", "import", "nowhere.txt")


def test_a_hundred_thousand_lines_are_quick(sqlite_program: Program, tmp_path: Path) -> None:
    file = tmp_path / "large.txt"
    file.write_text("".join(f"user{number}@example{number % 1000}.net\n" for number in range(100_000)))
    begun = time.monotonic()
    said = sqlite_program.init().run("suppress", "import", str(file)).stdout

    assert said == "100,000 new, 0 changed, 0 as they were\n"
    assert time.monotonic() - begun < 30  # about 5 s, where the machine has nothing else to do
