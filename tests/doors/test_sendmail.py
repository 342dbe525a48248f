"""outbox-sendmail as a process: exit codes, what is stored, the spool, the queue, and SMTP on standard input."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.doors.programs import MAIL, SHOP, Command
from tests.doors.programs import any_command as any_command
from tests.doors.programs import command as command
from tests.doors.programs import make_command as make_command
from tests.relay import Relay
from tests.running import eventually

NOWHERE = "sqlite:////nowhere/at/all.db"


# -- what is stored


def test_what_it_ends_well_with_is_committed(any_command: Command) -> None:
    done = any_command.run("-t", "-i", "-v")

    ((number, *row),) = any_command.rows("id, source, sender, recipients, tag")
    assert row == ["sendmail", SHOP, "ann@example.net", f"uid={os.getuid()}"]
    assert done.stdout.decode() == f"enqueued as {number}\n"


def test_recipients_of_the_header_are_added_to_those_of_the_command_line_and_bcc_is_taken_out(command: Command) -> None:
    mail = b"From: shop@example.com\nTo: Ann <ann@example.net>, root\nBcc: eve@example.net\n\nhi\n"
    command.run("-t", "bo@example.net, ann@example.net", "-f", "shop", stdin=mail)

    assert command.rows() == [(SHOP, "bo@example.net, ann@example.net, root@example.com, eve@example.net")]
    assert b"eve" not in command.raw()
    assert b"To: Ann <ann@example.net>, root@example.com\r\n" in command.raw()


def test_cron_is_understood(command: Command) -> None:
    """The very words of Debian's cron, and the header it writes."""
    mail = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@box> date\nMIME-Version: 1.0\n\nMon\n.\nTue\n"
    command.run("-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root", stdin=mail)

    assert command.rows() == [("root@example.com", "root@example.com")]
    assert b'From: "Cron Daemon" <root@example.com>\r\n' in command.raw()
    assert command.raw().endswith(b"\r\n\r\nMon\r\n.\r\nTue\r\n")


def test_the_null_sender_is_kept_and_the_header_speaks(command: Command) -> None:
    command.run("-f", "<>", "-t")

    assert command.rows("sender, return_path") == [(SHOP, "<>")]


@pytest.mark.parametrize(
    ("stdin", "raw"),
    [
        (b"hello\n.\nnever read\n", b"From: Ann B <shop@example.com>\r\n\r\nhello\r\n"),
        (b"", b"From: Ann B <shop@example.com>\r\n\r\n"),
        (
            b"Subject: x\nhello: no\n there\nhello there\n",
            b"\r\nSubject: x\r\nhello: no\r\n there\r\n\r\nhello there\r\n",
        ),
        (b"From x Mon\r\nSubject: x\r\n\r\nhi\r\n", b"From: Ann B <shop@example.com>\r\nSubject: x\r\n\r\nhi\r\n"),
        (b"Subject: x", b"Subject: x\r\n\r\n"),
    ],
)
def test_what_is_no_whole_message_becomes_one(command: Command, stdin: bytes, raw: bytes) -> None:
    command.run("-f", SHOP, "-F", "Ann B", "ann", stdin=stdin)

    assert command.raw().endswith(raw)


@pytest.mark.parametrize(("name", "written"), [('A "B"', rb'"A \"B\""'), ("Änn", b"=?utf-8?q?=C3=84nn?=")])
def test_a_full_name_is_written_as_a_header_has_it(command: Command, name: str, written: bytes) -> None:
    command.run("-f", SHOP, "ann", stdin=b"hi\n", env={**command.env, "NAME": name})

    assert command.raw().startswith(b"From: " + written + b" <shop@example.com>\r\n")


def test_notifications_are_passed_on(command: Command) -> None:
    command.run("-t", "-Nsuccess,delay", "-Rhdrs", "-Vorder-7")

    assert command.rows("dsn_notify, dsn_ret, dsn_envid") == [("success,delay", "hdrs", "order-7")]


def test_a_lone_dot_ends_the_message_before_its_input_does(command: Command) -> None:
    read, write = os.pipe()
    os.write(write, MAIL + b".\n")
    try:
        command.run("-t", stdin=read)
    finally:
        os.close(write)
        os.close(read)
    assert len(command.rows()) == 1


# -- how it ends


@pytest.mark.parametrize(
    ("arguments", "stdin", "code"),
    [
        ([], MAIL, 64),
        (["-bd"], MAIL, 64),
        (["-t"], b"From: shop@example.com\nSubject: nobody\n\nhi\n", 64),
        (["-t"], b"From: shop@example.com\nTo: ann@\n\nhi\n", 65),
        (["ann@exa mple.net"], MAIL, 65),
        (["-f", "a@b@c", "ann"], MAIL, 65),
        (["ann"], b"From: shop@example.com, other@example.com\n\nhi\n", 65),
        (["ann"], b"From: shop@example.com\n\n" + b"x" * 999 + b"\n", 65),
        (["-i", "ann"], b"From: shop@example.com\n\n" + b"x" * 60 + b"\n" * (25 << 20), 65),
        (["ann"], b"From: eve@example.org\n\nhi\n", 77),
        (["-f", SHOP, "ann"], b"From: eve@example.org\n\nhi\n", 77),
        (["-f", "eve@example.org", "ann"], MAIL, 77),
    ],
    ids=range(12),
)
def test_it_says_by_its_end_what_is_wrong(command: Command, arguments: list[str], stdin: bytes, code: int) -> None:
    done = command.run(*arguments, stdin=stdin, code=code)

    assert done.stderr.startswith(b"sendmail: ")
    assert done.stderr.count(b"\n") == 1
    assert command.rows() == []


def test_it_says_what_is_wrong_with_its_surroundings(command: Command, tmp_path: Path) -> None:
    def ends(code: int, *arguments: str, **given: Any) -> str:
        return command.run(*(arguments or ("-t",)), code=code, **given).stderr.decode()

    without = {name: value for name, value in command.env.items() if name != "OUTBOX_DATABASE"}
    broken = tmp_path / "broken.toml"
    broken.write_text("database = [", encoding="utf-8")

    assert "standard input is closed" in _closed(command)
    with open(os.devnull, "wb") as unreadable:
        ends(74, stdin=unreadable)
    assert "no database is configured" in ends(78, env=without)
    assert "broken.toml" in ends(78, env={**without, "OUTBOX_CONFIG": str(broken)})
    assert "nowhere" in ends(75, env={**command.env, "OUTBOX_DATABASE": NOWHERE})
    assert "cannot be reached" in ends(75, env={**command.env, "OUTBOX_DATABASE": "postgresql://127.0.0.1:1/x"})
    ends(75, "-bp", env={**command.env, "OUTBOX_DATABASE": NOWHERE})
    assert command.rows() == []


def _closed(command: Command) -> str:
    """What it says where there is no standard input at all."""
    line = ["sh", "-c", f"'{command.path}' -t <&-; test $? = 66"]
    done = subprocess.run(line, env=command.env, stderr=subprocess.PIPE, timeout=60, check=True)
    return done.stderr.decode()


def test_nobody_who_reads_what_it_prints_is_an_error_of_output(command: Command) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as nobody:
        done = subprocess.run(
            [str(command.path), "-bp"], env=command.env, stdin=subprocess.DEVNULL, stdout=nobody, timeout=60
        )
    assert done.returncode == 74


def test_a_configuration_that_a_stranger_has_put_in_the_folder_is_not_read(command: Command, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a file of somebody else's")
    trap = tmp_path / "outbox.toml"
    trap.write_text(f'database = "{command.site.url}"\n', encoding="utf-8")
    without = {name: value for name, value in command.env.items() if name != "OUTBOX_DATABASE"}

    command.run("-t", env=without, cwd=tmp_path)
    os.chown(trap, 12345, 12345)
    command.run("-t", env=without, cwd=tmp_path, code=78)

    assert len(command.rows()) == 1


def test_a_role_that_may_not_look_up_senders_is_told(make_command: Callable[[str], Command], postgres_url: str) -> None:
    command = make_command(postgres_url)
    role = f"app_{os.getpid()}"
    command.site.db.execute_sql(f"CREATE ROLE {role}")
    try:
        done = command.run("-t", code=77, env={**command.env, "PGOPTIONS": f"-c role={role}"})
    finally:
        command.site.db.execute_sql(f"DROP ROLE {role}")

    assert b"permission denied" in done.stderr


# -- the spool


def test_while_the_database_is_away_mail_is_kept_and_the_runner_sends_it(command: Command, tmp_path: Path) -> None:
    """The whole way: a file in a drop box, a row, a relay."""
    site, spool = command.site, tmp_path / "spool"
    with Relay() as relay:
        site.register(relay.port, account="real", sender=SHOP)
        code, said = site.outbox("pickup", "add", "spool", str(spool), "--settle", "0s", "--poll", "5s")
        assert code == 0, said
        spool.chmod(0o2730)
        env = {**command.env, "OUTBOX_SENDMAIL_SPOOL": str(spool)}
        away = {**env, "OUTBOX_DATABASE": NOWHERE}
        mail = b"From: shop@example.com\nTo: x@example.net\nBcc: y@example.net\nSubject: kept\n\nhi\n.\n"

        done = command.run("-i", "-Nnever", "-Vkept+1", "-f<>", "ann@example.net", stdin=mail, env=away)
        (file,) = spool.glob("*.eml")
        assert f"kept as {file}" in done.stderr.decode()
        assert file.stat().st_mode & 0o777 == 0o640
        assert [each.name for each in spool.iterdir() if each.name.endswith(".part")] == []

        with site.run("--until-empty"):
            relay.wait(1)
        (received,) = relay.messages
    assert received.recipients == ("ann@example.net",)
    assert received.sender == ""
    assert b"Subject: kept" in received.content
    assert b"y@example.net" not in received.content
    assert b"X-Receiver" not in received.content
    assert site.query("SELECT dsn_notify, dsn_envid FROM outbox") == [("never", "kept+1")]


def test_a_spool_that_cannot_take_it_is_no_success(command: Command, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    away = {**command.env, "OUTBOX_DATABASE": NOWHERE, "OUTBOX_SENDMAIL_SPOOL": str(spool)}
    missing = command.run("-t", env=away, code=75)
    spool.mkdir()
    long = b"From: shop@example.com\nTo: ann@example.net\n" + b"X-Long: x\n" * 7000 + b"\nhi\n"
    command.run("-t", env=away, stdin=long, code=75)

    assert b"spool" in missing.stderr
    assert list(spool.iterdir()) == []


def test_a_locked_database_is_waited_for_and_then_counts_as_away(command: Command, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    with command.site.db.atomic("EXCLUSIVE"):
        command.run("-t", env={**command.env, "OUTBOX_SENDMAIL_SPOOL": str(spool)})
    (file,) = spool.iterdir()

    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes().startswith(b"X-Sender: <shop@example.com>\r\nX-Receiver: <ann@example.net>\r\nFrom:")
    assert command.rows() == []


# -- the queue


def deferred(command: Command, *addresses: str) -> list[int]:
    """Mail that a relay has put off, for an hour."""
    ids = []
    for address in addresses:
        command.run("-f", SHOP, address)
        ((number,),) = command.site.query("SELECT max(id) FROM outbox")
        ids.append(int(number))
    replies = {f"rcpt:{address}": "450 4.2.1 busy" for address in addresses}
    with Relay(replies) as relay:
        command.site.query("UPDATE outbox_account SET relay_port = ?", relay.port)
        with command.site.run(retry_floor="1h") as runner:
            eventually(lambda: command.site.attempts()["deferred"] == len(ids), "all are put off")
            runner.stop()
            runner.wait()
    return ids


def test_an_empty_queue_is_said_to_be_empty(any_command: Command) -> None:
    assert any_command.run(name="mailq").stdout == b"Mail queue is empty\n"
    assert any_command.run(name="newaliases").stdout == b""


def test_mailq_tells_what_waits_and_why_as_postfix_does(any_command: Command) -> None:
    (number,) = deferred(any_command, "ann@example.net")
    any_command.site.outbox("hold", str(number))
    any_command.run("-t")
    lines = any_command.run("-bp").stdout.decode().splitlines()

    assert lines[0] == "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------"
    assert lines[1].startswith(f"{number}!")
    assert lines[1].endswith(f"  {SHOP}")
    assert lines[2].strip().startswith("(")
    assert lines[2].endswith(")")
    assert lines[3:5] == [" " * 41 + "ann@example.net", ""]
    assert lines[-1] == "-- 1 Kbytes in 2 Requests."


@pytest.mark.parametrize(
    ("flag", "first", "second"),
    [
        ("-q", True, True),
        ("-qI{}", True, False),
        ("-qR_nn@", False, False),
        ("-qR%", False, True),
        ("-qRANN@EXAMPLE", True, False),
        ("-qSshop@", True, True),
        ("-qS%", False, False),
        ("-q1h", False, False),
    ],
)
def test_what_was_put_off_is_tried_now(any_command: Command, flag: str, first: bool, second: bool) -> None:
    ids = deferred(any_command, "ann@example.net", "b%o@example.net")
    scheduled = any_command.site.insert_one(recipients="later@example.net", due_at="2990-01-01T00:00:00.000Z")
    if flag == "-q1h":  # an interval means nothing: the message is read as ever
        any_command.run(flag, code=64)
    else:
        any_command.run(flag.format(ids[0]))

    due = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')" if "sqlite" in any_command.site.url else "now()"
    found = any_command.site.query(f"SELECT message_id FROM outbox_delivery WHERE due_at <= {due} ORDER BY 1")
    assert [each for (each,) in found] == [each for each, is_due in zip(ids, (first, second), strict=True) if is_due]
    assert scheduled not in [each for (each,) in found]


def test_a_runner_notices(any_command: Command) -> None:
    deferred(any_command, "ann@example.net")
    with Relay() as relay:
        any_command.site.query("UPDATE outbox_account SET relay_port = ?, breaker_until = NULL", relay.port)
        with any_command.site.run(retry_floor="1h", run_poll="30s") as runner:
            runner.started()
            any_command.run("-q")
            relay.wait(1)


# -- SMTP on standard input

DIALOGUE = (
    b"EHLO here\r\nMAIL FROM:<shop@example.com> SIZE=100 RET=HDRS ENVID=Order+2B7\r\n"
    b"RCPT TO:<ann@example.net> NOTIFY=NEVER\r\nRCPT TO:<bo@example.net> ORCPT=rfc822;bo@example.net NOTIFY=DELAY\r\n"
    b"DATA\r\nFrom: shop@example.com\r\nSubject: x\r\n\r\n..hi\r\n.\r\n"
)


def codes(answers: bytes) -> list[str]:
    return [line[:3] for line in answers.decode().splitlines() if line[3:4] == " "]


@pytest.mark.parametrize("end", [b"QUIT\r\n", b""])
def test_a_dialogue_that_is_piped_is_answered_to_its_end(any_command: Command, end: bytes) -> None:
    answers = any_command.run("-bs", stdin=DIALOGUE + end).stdout

    assert codes(answers) == ["220", "250", "250", "250", "250", "354", "250", *(["221"] if end else [])]
    for offered in (b"PIPELINING", b"DSN", b"ENHANCEDSTATUSCODES", b"SMTPUTF8", b"8BITMIME", b"SIZE 26214400"):
        assert b"250-" + offered in answers
    told = "recipients, dsn_notify, dsn_ret, dsn_envid, source"
    assert any_command.rows(told) == [
        ("ann@example.net", "never", "hdrs", "Order+7", "sendmail"),
        ("bo@example.net", "delay", "hdrs", "Order+7", "sendmail"),
    ]
    assert [bytes(raw).endswith(b"\r\n\r\n.hi\r\n") for (raw,) in any_command.rows("raw")] == [True, True]


def test_a_message_without_its_end_is_no_message(command: Command) -> None:
    answers = command.run("-bs", stdin=DIALOGUE.removesuffix(b".\r\n")).stdout

    assert codes(answers)[-1] == "354"
    assert command.rows() == []


def test_it_ends_at_quit_though_its_input_stays_open(command: Command) -> None:
    read, write = os.pipe()
    os.write(write, b"EHLO here\r\nQUIT\r\n")
    try:
        assert codes(command.run("-bs", stdin=read).stdout) == ["220", "250", "221"]
    finally:
        os.close(write)
        os.close(read)


def test_every_answer_has_its_code(command: Command) -> None:
    said = (
        b"EHLO here\r\nFOO\r\nMAIL FROM:<eve@example.org>\r\nMAIL FROM:<shop@example.com> RET=SOME\r\n"
        b"MAIL FROM:<shop@example.com>\r\nMAIL FROM:<shop@example.com>\r\nRCPT TO:<ann@>\r\nRCPT TO:<ann>\r\n"
        b"RCPT TO:<ann@example.net> NOTIFY=NEVER,DELAY\r\nRCPT TO:<ann@example.net> FOO=BAR\r\nVRFY ann\r\nNOOP\r\n"
        b"RSET\r\nDATA\r\nEXPN all\r\nQUIT\r\n"
    )
    lines = command.run("-bs", stdin=said).stdout.decode().splitlines()
    coded = [line.split(" ")[:2] for line in lines if line[3:4] == " "][2:]

    assert " ".join(code for code, _ in coded) == "500 550 501 250 503 553 553 501 555 252 250 250 503 502 221"
    assert all(status[:2] == f"{code[0]}." for code, status in coded)


def test_a_reader_that_goes_away_ends_it(command: Command) -> None:
    with subprocess.Popen(
        [str(command.path), "-bs"], env=command.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        stopped = threading.Timer(30, process.kill)
        stopped.start()
        process.stdin.write(b"NOOP\r\n")
        process.stdin.flush()
        status = process.wait()
        stopped.cancel()
    assert status == 74
