"""outbox demo: that it shows what it promises, that its status tells the truth, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import smtplib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from outbox.demo import outcome, script, theatre
from outbox.demo.outcome import Outcome, differences
from outbox.demo.relay import GREYLISTED, REFUSED, Answer, Received, Relay
from outbox.demo.script import ANN, BEN, EMIL, OLD
from outbox.errors import OutboxError

COMMAND = [sys.executable, "-m", "outbox", "demo"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """That of a visitor who has an outbox of their own, which must not be touched, and nothing in the temporary
    directory.
    """
    away = {"OUTBOX_DATABASE": "sqlite:////nowhere/production.db", "OUTBOX_RETRY_FLOOR": "1h"}
    (tmp_path / "temporary").mkdir()
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(tmp_path / "temporary"))
    return {**os.environ, **away, **places, "COLUMNS": "80"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What really came of a demo."""
    return play(tmp_path_factory.mktemp("demo"), script.GREYLISTED, script.REFUSED)


def play(folder: Path, greylisted: frozenset[str], refused: frozenset[str]) -> Outcome:
    async def perform() -> Outcome:
        silent = theatre.stage(folder, lambda _: None, lambda _: None, greylisted=greylisted, refused=refused)
        async with silent as here:
            return await here.play(lambda _: None)

    return asyncio.run(perform())


# -- the command


def test_it_shows_every_outcome_and_the_sql_on_one_screen_and_ends_with_0(
    environment: dict[str, str], tmp_path: Path
) -> None:
    result = subprocess.run(
        [*COMMAND, "--exit"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")
    page = result.stdout.splitlines()
    assert len(page) <= 40
    assert max(map(len, page)) < 80
    assert "\x1b" not in result.stdout
    table = re.sub(r"[0-9.]+m?s later", "1s later", result.stdout)
    for line in (
        "1      committed    sent            to ann@example.net",
        "2      committed    deferred, sent  to ben@example.net, 1s later",
        "3      committed    sent            to carol@example.net",
        "                    refused         for old@example.net, so mail 3 is failed",
        "4      committed    sent            to dora@example.net, by plain SQL",
        "5      rolled back  never existed   for emil@example.net: no row, no mail",
        "SELECT message_id AS mail, claim_no AS attempt, address, fate, code, reply",
        "2     1        ben@example.net    deferred  450   greylisted, come back later",
        "3     1        old@example.net    bounced   550   no such mailbox",
    ):
        assert f"  {line}\n" in table
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.fixture
def staying(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A demo that stays until Ctrl-C. (Who runs the tests in the background may have had it ignored.)"""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        COMMAND,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    signal.signal(signal.SIGINT, before)
    with process:
        yield process
        process.kill()


def test_without_exit_it_stays_shows_what_arrives_and_leaves_nothing_at_ctrl_c(
    staying: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert staying.stdout is not None
    page = []
    for line in staying.stdout:
        page.append(line.rstrip())
        if line.startswith("Mail that arrives"):
            break
    assert len(page) < 40
    database = next(line.partition("OUTBOX_DATABASE=")[2] for line in page if "OUTBOX_DATABASE=" in line)
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO outbox (sender, recipients, subject, text_body)"
            " VALUES ('shop@example.com', 'you@example.net, old@example.net', 'Hello', 'It works')"
        )
        (runner,) = connection.execute("SELECT pid FROM outbox_runner").fetchone()

    assert {staying.stdout.readline() for _ in range(2)} == {
        "  arrived  'Hello' for you@example.net\n",
        "  550      5.1.1 no such mailbox: old@example.net\n",
    }
    staying.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT))
    assert staying.wait(30) == 0
    end = staying.stdout.read()
    assert re.search(r"Your own: .*outbox init, and docs/", end)
    assert "In the other terminal: " in end
    assert list((tmp_path / "temporary").iterdir()) == []
    if sys.platform != "win32":
        with pytest.raises(ProcessLookupError):
            os.kill(runner, 0)


# -- its status


def test_what_really_came_of_it_is_what_the_script_says(found: Outcome) -> None:
    assert differences(found) == []


def test_a_relay_that_refuses_nobody_and_defers_nobody_is_noticed(tmp_path: Path) -> None:
    wrong = differences(play(tmp_path, frozenset(), frozenset()))

    assert any(line.startswith("mail 3 is sent, not failed") for line in wrong)
    assert any(line.startswith("the audit of mail 2 says") for line in wrong)
    assert any(line.startswith("the relay received") for line in wrong)


def test_a_second_copy_is_noticed(found: Outcome) -> None:
    twice = replace(found, received=(*found.received, found.received[0]))

    assert [line.partition(" [")[0] for line in differences(twice)] == ["the relay received"]


def test_a_reply_that_is_stored_in_other_words_is_noticed(found: Outcome) -> None:
    other = replace(found, answers=tuple(Answer(each.address, f"{each.reply}!") for each in found.answers))

    assert [line.partition(" [")[0] for line in differences(other)] == ["the audit says"]


def test_an_attempt_that_reached_nobody_is_noticed(found: Outcome) -> None:
    lost = replace(found, audit=((1, 1, None, None, None, None), *found.audit[1:]))

    assert any(line.startswith("the audit of mail 1 says ((None, None, None),)") for line in differences(lost))


@pytest.mark.parametrize(
    ("trace", "complaint"),
    [
        ({"stored": frozenset({EMIL})}, "is stored"),
        ({"answers": (Answer(EMIL, "250 2.0.0 queued"),)}, "reached the relay"),
        ({"orders": (1, 2, 3, 4, 5)}, "the shop has the orders (1, 2, 3, 4, 5)"),
        ({"states": {1: "sent", 2: "sent", 3: "failed", 4: "sent", 5: "queued"}}, "the outbox has the mails"),
        ({"states": {1: "queued", 2: "sent", 3: "failed", 4: "sent"}}, "mail 1 is queued, not sent"),
    ],
)
def test_a_trace_of_what_was_rolled_back_or_lost_is_noticed(
    found: Outcome, trace: dict[str, object], complaint: str
) -> None:
    assert any(complaint in line for line in differences(replace(found, **trace)))  # type: ignore[arg-type]


def test_a_runner_that_cannot_work_ends_the_demo_with_its_last_word(tmp_path: Path) -> None:
    async def wait() -> None:
        async with theatre.Runner(tmp_path) as runner:  # without a database
            await runner.until(lambda: False)

    with pytest.raises(OutboxError, match=r"the runner ended with status 4: error: "):
        asyncio.run(wait())


def test_the_audit_of_the_page_is_the_one_anybody_can_ask_for(found: Outcome) -> None:
    assert found.columns == ("mail", "attempt", "address", "fate", "code", "reply")
    assert outcome.AUDIT.count("outbox_audit") == 1
    assert [row[2] for row in found.audit if row[3] == "bounced"] == [OLD]


# -- the relay, as another client sees it


async def _converse(relay: Relay, *lines: str) -> list[str]:
    """The last line of each reply: to connecting, and to each line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    replies = []
    for line in ("", *lines):
        writer.write(f"{line}\r\n".encode() if line else b"")
        while (reply := (await reader.readline()).decode().rstrip())[3:4] == "-":
            pass
        replies.append(reply)
    writer.close()
    await writer.wait_closed()
    return replies


def test_the_relay_speaks_with_any_client_and_unstuffs_its_dots() -> None:
    async def exchange() -> list[Received]:
        async with Relay(greylisted=frozenset({BEN}), refused=frozenset({OLD})) as relay:
            await asyncio.to_thread(_send, relay.port)
            return relay.received

    def _send(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port) as client:
            mail = "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@x>\r\n\r\n.dots\r\n"
            refused = client.sendmail("shop@example.com", [ANN, OLD, BEN], mail)
            assert {address: code for address, (code, _) in refused.items()} == {OLD: 550, BEN: 450}

    assert asyncio.run(exchange()) == [Received((ANN,), "Grüße", "<1@x>")]


def test_the_relay_answers_nonsense_and_goes_on() -> None:
    async def exchange() -> list[str]:
        async with Relay(greylisted=frozenset({BEN}), refused=frozenset({OLD})) as relay:
            return await _converse(
                relay,
                "HELO me",
                "RCPT TO:<ann@example.net>",
                "MAIL FROM:nobody",
                "MAIL FROM:<>",
                "MAIL FROM:<>",
                f"RCPT TO:<{OLD}>",
                f"RCPT TO:<{BEN}>",
                "DATA",
                "RSET",
                "VRFY ann",
                "NOOP",
                "QUIT",
            )

    codes = [reply[:3] for reply in asyncio.run(exchange())]
    assert codes == ["220", "250", "503", "501", "250", "503", "550", "450", "554", "250", "502", "250", "221"]
    assert (GREYLISTED[:3], REFUSED[:3]) == ("450", "550")
