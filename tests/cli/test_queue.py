"""outbox list, show, retry, hold, release, cancel, resolve."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from email import message_from_bytes

import pytest

from tests.cli.program import Program
from tests.stories import GREYLISTED, NO_SUCH_USER, OK, SPAM, Stories


@pytest.fixture
def outbox(program: Program) -> Program:
    return program.init()


@pytest.fixture
def stories(outbox: Program) -> Iterator[Stories]:
    with Stories(outbox.url) as opened:
        yield opened


# -- list


def test_an_empty_outbox_says_so(outbox: Program) -> None:
    result = outbox.run("list")
    assert (result.stdout, result.stderr) == ("", "no messages yet\n")
    assert outbox.json("list") == []
    outbox.run("list", "--fail-empty", code=6)


def test_a_list_in_a_pipe_is_whole_lines_and_its_totals_are_apart(outbox: Program, stories: Stories) -> None:
    stories.attempt(stories.mail(recipients="ann@example.net, bob@example.net", subject="x" * 200), None, [SPAM, SPAM])
    stories.mail(subject="Order 8")
    result = outbox.run("list")
    heading, newest, oldest = result.stdout.splitlines()
    assert heading.split() == ["ID", "STATE", "CREATED", "FROM", "TO", "SUBJECT", "LAST", "WORD"]
    assert newest.split()[:2] == ["2", "queued"]
    assert "Order 8" in newest
    assert "ann@example.net, bob@example.net" in oldest
    assert "x" * 200 in oldest
    assert "554 5.7.1 looks like spam" in oldest
    assert result.stderr == "2 of 2: 1 queued, 1 failed\n"


def test_a_page_says_where_the_next_one_begins(outbox: Program, stories: Stories) -> None:
    ids = [stories.mail() for _ in range(3)]
    result = outbox.run("list", "-n", "2")
    assert result.stderr == f"2 of 3: 3 queued; older: outbox list --before {ids[1]}\n"
    assert [line["id"] for line in outbox.json("list", "--before", str(ids[1]))] == [ids[0]]


def test_a_list_takes_every_filter(outbox: Program, stories: Stories) -> None:
    wanted = stories.mail(sender="news@example.com", recipients="ann@example.net", tag="order", dedup_key="k")
    stories.mail()
    stories.attempt(wanted, None, [SPAM])
    filters = {
        "--state": ("failed", "dead", "failed,expired", "FAILED"),
        "--sender": ("news@example.com",),
        "--tag": ("order",),
        "--key": ("k",),
        "--code": ("554", "5.7", "5.7.1"),
    }
    for option, values in filters.items():
        for value in values:
            assert [line["id"] for line in outbox.json("list", option, value)] == [wanted], (option, value)
    assert len(outbox.json("list", "--since", "1h", "--to", "*@example.net")) == 2
    assert outbox.json("list", "--to", "eve@example.net") == []


@pytest.mark.parametrize(
    ("option", "value"), [("--state", "lost"), ("--since", "yesterday"), ("--code", "x"), ("--limit", "0")]
)
def test_a_filter_that_means_nothing_is_a_usage_error(sqlite_program: Program, option: str, value: str) -> None:
    sqlite_program.init().fails(2, "list", option, value)


def test_ids_alone_are_for_another_command_to_read(outbox: Program, stories: Stories) -> None:
    ids = [stories.mail() for _ in range(2)]
    listed = outbox.run("list", "--ids").stdout
    assert listed.split() == [str(each) for each in reversed(ids)]
    outbox.run("cancel", "-", stdin=listed)
    assert {line["state"] for line in outbox.json("list")} == {"cancelled"}


def test_what_a_stranger_wrote_cannot_drive_the_terminal(outbox: Program, stories: Stories) -> None:
    message_id = stories.mail(subject="\x1b[2Jgone", tag="\x1b]0;title\x07")
    for args in (("list",), ("show", str(message_id))):
        assert "\x1b" not in outbox.run(*args).output


def test_a_message_that_waits_says_for_what(outbox: Program, stories: Stories) -> None:
    stories.mail()
    assert "waits: sender shop@example.com is not registered" in outbox.run("list").stdout


# -- show


def test_show_json_has_what_is_promised(outbox: Program, stories: Stories) -> None:
    message_id = stories.mail(recipients="ann@example.net", bcc="bob@example.net")
    stories.attempt(message_id, OK, [OK, NO_SUCH_USER])
    shown = outbox.json("show", str(message_id))
    promised = "id state sender subject message_id created_at due_at final_at doubts failures recipients attempts"
    assert list(shown)[:12] == promised.split()
    assert (shown["id"], shown["state"], shown["doubts"]) == (message_id, "failed", 0)
    assert shown["created_at"].endswith("Z")
    assert shown["final_at"].endswith("Z")
    ann, bob = shown["recipients"]
    assert list(ann) == ["address", "kind", "fate", "code", "status", "reply", "at"]
    assert (ann["fate"], bob["kind"], bob["fate"], bob["code"], bob["status"]) == (
        "accepted",
        "bcc",
        "bounced",
        550,
        "5.1.1",
    )
    (attempt,) = shown["attempts"]
    names = "claim_no started_at dot_at ended_at outcome stage code status reply relay tls runner"
    assert list(attempt)[:12] == names.split()
    assert (attempt["outcome"], attempt["stage"], attempt["tls"]) == ("bounced", "rcpt", "TLSv1.3")
    assert not any(name.startswith("late_") for name in attempt)


def test_show_tells_the_life_of_a_message(outbox: Program, stories: Stories) -> None:
    message_id = stories.mail(recipients="ann@example.net, bob@example.net", tag="order")
    stories.attempt(message_id, OK, [OK, GREYLISTED])
    stories.attempt(message_id, OK, [NO_SUCH_USER])
    text = outbox.run("show", str(message_id)).stdout
    assert text.startswith(f"message {message_id}  failed\n")
    assert "attempt 1: deferred → " in text
    assert "attempt 2: bounced → " in text
    assert "ann@example.net  accepted  250 2.0.0 queued as 4XYZ" in text
    assert "bob@example.net  bounced   550 5.1.1 no such user here" in text
    assert f"`outbox retry {message_id}` sends it again to whoever does not have it" in text
    assert "tag order" in text


def test_an_operators_retry_is_part_of_the_life_of_a_message(outbox: Program, stories: Stories) -> None:
    message_id = stories.mail()
    stories.attempt(message_id, SPAM)
    outbox.run("retry", str(message_id))
    for _ in range(6):
        stories.attempt(message_id, GREYLISTED)
    text = outbox.run("show", str(message_id)).stdout
    assert "attempt 1: bounced → retried → " in text
    assert " → … → " in text
    assert "attempt 7: deferred" in text


def test_show_says_what_to_do_about_a_doubt(outbox: Program, stories: Stories) -> None:
    message_id = stories.mail(on_doubt="hold")
    stories.attempt(message_id, None)
    assert f"outbox resolve {message_id} --sent" in outbox.run("show", str(message_id)).stdout


def test_show_says_what_to_do_about_an_unregistered_sender(outbox: Program, stories: Stories) -> None:
    message_id = stories.mail()
    stories.refused(message_id)
    text = outbox.run("show", str(message_id)).stdout
    assert "attempt 1: refused by policy" in text
    assert f"`outbox sender add shop@example.com --account NAME`, then `outbox retry {message_id}`" in text


def test_an_attempt_whose_runner_died_says_what_that_means(outbox: Program, stories: Stories) -> None:
    dotted, early = stories.mail(), stories.mail()
    stories.crashed(dotted)
    stories.crashed(early, dotted=False)
    assert "its runner ended before the reply: the relay may have it" in outbox.run("show", str(dotted)).stdout
    assert "the relay does not have it" in outbox.run("show", str(early)).stdout


def test_what_is_deferred_is_sent_now_by_a_retry(outbox: Program, stories: Stories) -> None:
    message_id = stories.mail()
    stories.attempt(message_id, GREYLISTED)
    assert outbox.run("retry", str(message_id)).stdout == f"message {message_id} is queued, due now\n"
    assert "is queued and due already" in outbox.fails(1, "retry", str(message_id))
    stories.attempt(message_id, GREYLISTED)
    assert outbox.run("retry", "--state", "deferred", "--yes").stdout == "1 message queued again\n"


def test_show_has_what_came_too_late(outbox: Program, stories: Stories) -> None:
    message_id = stories.mail()
    stories.crashed(message_id)
    late = "UPDATE outbox_attempt SET late_outcome = 'deferred', late_reply = '451 busy', late_at = ended_at"
    stories.sql(late)
    (attempt,) = outbox.json("show", str(message_id))["attempts"]
    assert (attempt["late_outcome"], attempt["late_reply"]) == ("deferred", "451 busy")
    assert "deferred 451 busy" in outbox.run("show", str(message_id)).stdout


def test_show_eml_is_the_message_as_a_relay_gets_it(outbox: Program, stories: Stories) -> None:
    message_id = stories.mail(bcc="eve@example.net")
    data = outbox.run("show", str(message_id), "--eml").stdout_bytes
    assert b"\r\n" in data
    message = message_from_bytes(data)
    assert message["Subject"] == "Order 7"
    assert message["Message-ID"] == outbox.json("show", str(message_id))["message_id"]
    assert b"eve" not in data


def test_show_eml_says_why_a_message_cannot_be_composed(outbox: Program, stories: Stories) -> None:
    message_id = stories.mail(recipients="nonsense")
    assert "addresses cannot be read" in outbox.fails(1, "show", str(message_id), "--eml")


def test_a_message_that_does_not_exist_ends_with_1(outbox: Program) -> None:
    assert outbox.fails(1, "show", "99") == "error: there is no message 99\nhint: `outbox list` shows the newest\n"
    outbox.fails(1, "show", "99", "--json")
    outbox.fails(1, "show", "99", "--eml")
    outbox.fails(1, "show", "9" * 30)


def test_show_wants_a_number_and_one_format(sqlite_program: Program) -> None:
    sqlite_program.init()
    sqlite_program.fails(2, "show", "seven")
    sqlite_program.fails(2, "show", "1", "--eml", "--json")


# -- the verbs


def test_each_message_that_is_named_is_answered(outbox: Program, stories: Stories) -> None:
    failed, sent = stories.mail(), stories.mail()
    stories.attempt(failed, SPAM)
    stories.attempt(sent, OK)
    result = outbox.run("retry", str(failed), str(sent), "99", code=1)
    assert result.stdout == f"message {failed} is queued, due now\n"
    assert result.stderr == (
        f"error: message {sent} is sent: only queued, failed, expired or held messages can be retried\n"
        "error: message 99 does not exist\n"
    )


def test_the_answer_as_json(outbox: Program, stories: Stories) -> None:
    message_id = stories.mail()
    answer = outbox.json("cancel", str(message_id), "99", code=1)
    assert answer == {
        "verb": "cancel",
        "done": 1,
        "refused": 1,
        "messages": [
            {"id": message_id, "done": True, "words": "is cancelled"},
            {"id": 99, "done": False, "words": "does not exist"},
        ],
    }


def test_a_message_goes_from_hand_to_hand(outbox: Program, stories: Stories) -> None:
    message_id = str(stories.mail())
    assert (
        outbox.run("hold", message_id, "--reason", "wrong price").stdout
        == f"message {message_id} is held: wrong price\n"
    )
    assert outbox.json("show", message_id)["hold_reason"] == "wrong price"
    assert outbox.run("release", message_id).stdout == f"message {message_id} is queued, due now\n"
    assert outbox.run("cancel", message_id).stdout == f"message {message_id} is cancelled\n"
    ((who,),) = set(stories.sql("SELECT DISTINCT who FROM outbox_journal WHERE verb IN ('hold', 'release', 'cancel')"))
    assert "@" in who


@pytest.mark.parametrize(("option", "state"), [("--sent", "sent"), ("--resend", "queued")])
def test_a_doubt_is_resolved_by_whoever_knows(outbox: Program, stories: Stories, option: str, state: str) -> None:
    message_id = stories.mail(on_doubt="hold")
    stories.attempt(message_id, None)
    outbox.fails_after_output(1, "release", str(message_id))
    outbox.run("resolve", str(message_id), option)
    assert outbox.json("show", str(message_id))["state"] == state


def test_a_doubt_is_resolved_one_way_or_the_other(sqlite_program: Program) -> None:
    sqlite_program.init()
    sqlite_program.fails(2, "resolve", "1")
    sqlite_program.fails(2, "resolve", "1", "--sent", "--resend")


def test_a_filter_asks_before_it_acts(outbox: Program, stories: Stories) -> None:
    _failed(stories, 3)
    said = outbox.fails(2, "retry", "--state", "failed")
    assert "Retry 3 messages?" in said
    assert "--yes" in said
    assert {line["state"] for line in outbox.json("list")} == {"failed"}
    result = outbox.run("retry", "--state", "failed", "--yes")
    assert result.stdout == "3 messages queued again\n"
    assert {line["state"] for line in outbox.json("list")} == {"queued"}


def test_a_dry_run_only_counts(outbox: Program, stories: Stories) -> None:
    _failed(stories, 1)
    assert outbox.run("retry", "--state", "failed", "--dry-run").stderr == "1 message to retry\n"
    assert outbox.json("retry", "--state", "failed", "--dry-run") == {"verb": "retry", "matching": 1}
    assert outbox.json("list")[0]["state"] == "failed"


def test_a_filter_that_matches_nothing_is_no_failure_unless_asked_for(outbox: Program) -> None:
    assert outbox.run("retry", "--state", "failed", "--yes").stderr == "no message to retry matches\n"
    outbox.run("retry", "--state", "failed", "--yes", "--fail-empty", code=6)
    outbox.run("retry", "-", "--fail-empty", stdin="", code=6)


def test_a_retry_of_what_is_held_in_doubt_warns_of_second_copies(outbox: Program, stories: Stories) -> None:
    stories.attempt(stories.mail(on_doubt="hold"), None)
    assert "(1 in doubt: a second copy is possible)" in outbox.fails(2, "retry", "--state", "held")


def test_many_refusals_are_not_all_listed(outbox: Program, stories: Stories) -> None:
    for _ in range(23):
        stories.attempt(stories.mail(on_doubt="hold"), None)
    result = outbox.run("release", "--state", "held", "--yes", code=1)
    assert result.stdout == "0 messages released\n"
    assert result.stderr.count("held in doubt") == 20
    assert result.stderr.endswith("error: and 3 more\n")


@pytest.mark.parametrize(
    "args",
    [
        ("retry",),
        ("retry", "1", "--state", "failed"),
        ("retry", "one"),
        ("retry", "-1"),
        ("cancel", "--state", "sent", "--yes"),
        ("retry", "--state", "sent", "--yes"),
        ("hold", "1", "--dry-run"),
    ],
)
def test_an_unclear_order_is_a_usage_error(sqlite_program: Program, args: tuple[str, ...]) -> None:
    sqlite_program.init().fails(2, *args)


def test_a_verb_without_a_database_says_how_to_get_one(sqlite_program: Program) -> None:
    said = sqlite_program.fails(3, "list")
    assert "hint: `outbox init`" in said
    assert sqlite_program.fails(4, "--database", "sqlite:///nowhere.db", "list").startswith(
        "error: there is no database"
    )


# -- on a terminal


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_colours_a_second_line_for_trouble_and_nothing_too_wide(sqlite_program: Program) -> None:
    sqlite_program.init()
    with Stories(sqlite_program.url) as stories:
        stories.attempt(stories.mail(subject="x" * 200), None, [SPAM])
        stories.mail(subject="你的订单 1003 已确认", sender="someone.with.a.long.name@customers.example.org")
    colourful = _on_terminal(sqlite_program, "list", columns=80)
    assert "\x1b[1;31mfailed" in colourful
    plain = _on_terminal(sqlite_program, "list", columns=80, NO_COLOR="1")
    assert "\x1b" not in plain
    lines = [line for line in plain.splitlines() if line]
    assert max(map(len, lines)) <= 80
    assert any(line.strip() == "554 5.7.1 looks like spam" for line in lines)
    assert "你的订单 1003 已确认" in plain
    assert "message 1  failed" in _on_terminal(sqlite_program, "show", "1", columns=80, NO_COLOR="1")


def _on_terminal(program: Program, *args: str, columns: int, **env: str) -> str:
    """What the program writes to a terminal of this width."""
    ours, theirs = os.openpty()
    environment = {
        **{name: value for name, value in os.environ.items() if name != "NO_COLOR"},
        "COLUMNS": str(columns),
        "LINES": "40",
        "TERM": "xterm-256color",
        "PYTHONUTF8": "1",
        **env,
    }
    command = [sys.executable, "-c", "from outbox.cli.main import main; main()", *args]
    done = subprocess.run(
        command, cwd=program.home, env=environment, stdout=theirs, stderr=theirs, check=True, timeout=60
    )
    assert done.returncode == 0
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 65536):
            written += chunk
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(ours)
    return written.decode()


def _failed(stories: Stories, count: int) -> None:
    for _ in range(count):
        stories.attempt(stories.mail(), SPAM)
