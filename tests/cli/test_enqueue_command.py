"""outbox enqueue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from outbox.core.reply import Reply
from tests.cli.program import Program
from tests.stories import OK, SPAM, Stories

MAIL = ("enqueue", "--from", "Shop <shop@example.com>", "--to", "ann@example.net", "--subject", "Order 7")


@pytest.fixture
def outbox(program: Program) -> Program:
    return program.init()


@pytest.fixture
def stories(outbox: Program) -> Iterator[Stories]:
    with Stories(outbox.url) as opened:
        yield opened


def test_its_id_is_all_that_is_printed(outbox: Program) -> None:
    result = outbox.run(*MAIL, "--text", "Thanks")
    assert (result.stdout, result.stderr) == ("1\n", "")
    shown = outbox.json("show", "1")
    assert (shown["state"], shown["sender"], shown["subject"]) == ("queued", "shop@example.com", "Order 7")
    assert outbox.json(*MAIL, "--text", "Thanks") == {"id": 2, "enqueued": True}


def test_everything_a_mail_can_have(outbox: Program, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>Thänks</p>", encoding="utf-8")
    (tmp_path / "terms.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "log.txt.gz").write_bytes(b"\x1f\x8b")
    files = ("--html", str(tmp_path / "page.html"), "--attach", str(tmp_path / "terms.pdf"))
    more = ("--attach", str(tmp_path / "log.txt.gz"), "--header", "X-Shop: 7", "--header", "X-Shop: 8")
    people = ("--to", "Bob <bob@example.net>", "--cc", "cy@example.net", "--bcc", "di@example.net")
    rest = ("--reply-to", "help@example.com", "--priority", "1", "--tag", "order", "--on-doubt", "hold", "--key", "k")
    outbox.run(*MAIL, "--text", "-", *files, *more, *people, *rest, stdin="Thanks, Ünn\n")

    shown = outbox.json("show", "1")
    assert [(each["address"], each["kind"]) for each in shown["recipients"]] == [
        ("ann@example.net", "to"),
        ("bob@example.net", "to"),
        ("cy@example.net", "cc"),
        ("di@example.net", "bcc"),
    ]
    assert (shown["priority"], shown["tag"], shown["on_doubt"], shown["dedup_key"]) == (1, "order", "hold", "k")
    message = message_from_bytes(outbox.run("show", "1", "--eml").stdout_bytes, policy=policy.default)
    assert message["From"] == "Shop <shop@example.com>"
    assert message["Reply-To"] == "help@example.com"
    assert message.get_all("X-Shop") == ["7", "8"]
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().strip() == "Thanks, Ünn"
    assert html.get_content().strip() == "<p>Thänks</p>"
    attached = [(each.get_filename(), each.get_content_type()) for each in message.iter_attachments()]
    assert attached == [("terms.pdf", "application/pdf"), ("log.txt.gz", "application/octet-stream")]


def test_what_relays_are_to_tell_of_it(outbox: Program, stories: Stories) -> None:
    outbox.run(*MAIL, "--text", "Hi", "--dsn-notify", "failure,delay", "--dsn-ret", "hdrs", "--dsn-envid", "order 7")
    assert stories.sql("SELECT dsn_notify, dsn_ret, dsn_envid FROM outbox") == [("failure,delay", "hdrs", "order 7")]
    assert "dsn_ret: it must be 'full' or 'hdrs'" in outbox.fails(2, *MAIL, "--text", "Hi", "--dsn-ret", "body")


def test_a_moment_is_given_by_itself_or_from_now(outbox: Program) -> None:
    outbox.run(*MAIL, "--text", "Hi", "--due", "2199-12-24T18:00+01:00", "--expires", "2199-12-25T00:00Z")
    shown = outbox.json("show", "1")
    assert (shown["due_at"], shown["expires_at"]) == ("2199-12-24T17:00:00.000Z", "2199-12-25T00:00:00.000Z")
    assert shown["standing"] == "scheduled"
    outbox.run(*MAIL, "--text", "Hi", "--in", "2h", "--expires-in", "2d")
    due_at = datetime.fromisoformat(outbox.json("show", "2")["due_at"])
    assert timedelta(hours=1, minutes=58) < due_at - datetime.now(UTC) <= timedelta(hours=2)


def test_a_second_mail_with_the_same_key_is_the_first(outbox: Program) -> None:
    outbox.run(*MAIL, "--text", "Hi", "--key", "order-7")
    again = outbox.run(*MAIL, "--text", "Hi", "--key", "order-7")
    assert (again.stdout, again.stderr) == ("1\n", "a mail with this key was there already: message 1\n")
    assert outbox.json(*MAIL, "--text", "Hi", "--key", "order-7") == {"id": 1, "enqueued": False}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((*MAIL,), "there is no body"),
        ((*MAIL, "--text", "Hi", "--to", "nobody"), "there is no @ in 'nobody'"),
        ((*MAIL, "--text", "Hi", "--header", "nonsense"), "is not NAME: TEXT"),
        ((*MAIL, "--text", "Hi", "--header", "From: x@example.com"), "headers"),
        ((*MAIL, "--text", "Hi", "--due", "2199-12-24T18:00"), "2199-12-24T18:00Z is UTC"),
        (
            (*MAIL, "--text", "Hi", "--due", "tomorrow"),
            "'tomorrow' is not a moment; write one such as 2026-12-24T18:00Z, or --in 1d",
        ),
        ((*MAIL, "--text", "Hi", "--due", "2199-12-24T18:00Z", "--in", "1h"), "give one of --due and --in"),
        ((*MAIL, "--text", "Hi", "--in", "1 fortnight"), "is not a duration"),
        ((*MAIL, "--text", "Hi", "--in", "999999999d"), "out of range"),
        ((*MAIL, "--text", "Hi", "--attach", "nowhere.pdf"), "cannot read nowhere.pdf"),
        ((*MAIL, "--html", "nowhere.html"), "cannot read nowhere.html"),
        ((*MAIL, "--text", "Hi", "--on-doubt", "guess"), "'retry' or 'hold'"),
        ((*MAIL, "--text", "Hi", "--priority", "10"), "--priority"),
    ],
)
def test_what_cannot_be_sent_is_said_and_nothing_is_stored(
    sqlite_program: Program, args: tuple[str, ...], said: str
) -> None:
    sqlite_program.init()
    assert said in sqlite_program.fails(2, *args)
    assert sqlite_program.json("list") == []


def test_a_body_that_is_not_text_is_refused(sqlite_program: Program, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(b"\xff\xfe<p>")
    assert "not UTF-8" in sqlite_program.init().fails(2, *MAIL, "--html", str(tmp_path / "page.html"))


def test_waiting_in_vain_says_why(outbox: Program) -> None:
    result = outbox.run(*MAIL, "--text", "Hi", "--wait", "0", code=1)
    assert result.stdout == "1\n"
    assert result.stderr == "message 1 is queued: sender shop@example.com is not registered\n"
    outbox.add_account()
    outbox.run("sender", "add", "shop@example.com", "--account", "shop")
    result = outbox.run(*MAIL, "--text", "Hi", "--wait", "0", code=1)
    assert result.stderr == "message 2 is queued: no runner is running: outbox run\n"


@pytest.mark.parametrize(("reply", "state", "code"), [(OK, "sent", 0), (SPAM, "failed", 1)])
def test_waiting_ends_when_the_mail_does(
    outbox: Program, stories: Stories, reply: Reply, state: str, code: int
) -> None:
    """The mail of that key has ended already, so that is what is waited for."""
    stories.attempt(stories.mail(dedup_key="k"), reply)
    answer = outbox.json(*MAIL, "--text", "Hi", "--key", "k", "--wait", "60", code=code)
    assert (answer["id"], answer["enqueued"], answer["state"]) == (1, False, state)
    assert answer["last_reply"] == reply.text
    said = outbox.run(*MAIL, "--text", "Hi", "--key", "k", "--wait", "60", code=code).stderr
    assert f"message 1 is {state}: {reply}\n" in said


def test_waiting_sees_what_a_runner_does_meanwhile(outbox: Program) -> None:
    with Stories(outbox.url) as stories:
        runner = threading.Thread(target=_send_the_first, args=(outbox.url,))
        runner.start()
        answer = outbox.json(*MAIL, "--text", "Hi", "--wait", "60")
        runner.join()
        assert (answer["id"], answer["state"], answer["last_reply"]) == (1, "sent", "queued as 4XYZ")
        assert stories.sql("SELECT count(*) FROM outbox") == [(1,)]


def _send_the_first(url: str) -> None:
    with Stories(url) as stories:
        while not stories.sql("SELECT 1 FROM outbox_delivery WHERE state = 'queued'"):
            threading.Event().wait(0.01)
        stories.attempt(1, OK)
