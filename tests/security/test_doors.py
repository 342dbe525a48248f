"""Who can drop a file, call the command, or reach the port: what they can bring about, and what not."""

from __future__ import annotations

import base64
import logging
import os
import shutil
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import peewee
import pytest

from outbox.core.address import parse_address_list
from outbox.doors.smtpd.server import Listen
from outbox.errors import ConfigError
from tests.doors.programs import MAIL, SHOP, Command
from tests.doors.programs import command as command
from tests.doors.programs import make_command as make_command
from tests.doors.test_pickup import Place, rows
from tests.doors.test_smtpd import Server, add_user, refused, serving
from tests.running import Site

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, pipes and uids are POSIX's")

BOSS = "boss@example.com"
SECRET = b"a secret of the user whom the runner runs as"

HEADERS_OF_OTHERS = [
    f"From: {BOSS}",
    f"From : {BOSS}",
    f"FROM:{BOSS}",
    f"From:\n {BOSS}",
    f"From: {SHOP} <{BOSS}>",
    f"From: ({SHOP}) {BOSS}",
    f'From: "{SHOP}" <{BOSS}>',
    f"From: =?utf-8?q?{SHOP}?= <{BOSS}>",
    f"From: {SHOP}, {BOSS}\nSender: {SHOP}",
    f"From: staff: {BOSS};",
    f"From: {SHOP}\nFrom: {BOSS}",
    f"From: {SHOP}\nSender: {BOSS}",
    f"From: {SHOP}\nSENDER :\n\t{BOSS}",
    f"X-Sender: {SHOP}\nFrom: {BOSS}",
]
"""Each speaks for the boss, in some way that a mail program or a relay would show."""


# -- the pickup folder: somebody can write a file into it


@pytest.fixture
def place(sqlite_url: str, tmp_path: Path) -> Iterator[Place]:
    from outbox.store.database import connect

    db = connect(sqlite_url)
    made = Place(db, tmp_path)
    made.change(senders=(SHOP,))
    yield made
    db.close()


def everything(db: peewee.Database, *folders: Path) -> bytes:
    """All that a mail, its record or a file that others read could show."""
    found = repr(rows(db, "SELECT * FROM outbox")) + repr(rows(db, "SELECT * FROM outbox_pickup_file"))
    files = [each for folder in folders for each in folder.rglob("*") if each.is_file() and not each.is_symlink()]
    return found.encode() + b"".join(each.read_bytes() for each in files)


def link_to(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def relative_link_to(path: Path, secret: Path) -> None:
    path.symlink_to(os.path.relpath(secret, path.parent))


def link_to_nothing(path: Path, _: Path) -> None:
    path.symlink_to("/nowhere")


def link_to_folder(path: Path, secret: Path) -> None:
    path.symlink_to(secret.parent, target_is_directory=True)


def second_name_of(path: Path, secret: Path) -> None:
    os.link(secret, path)


def pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def device(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "trick", [link_to, relative_link_to, link_to_nothing, link_to_folder, second_name_of, pipe, device]
)
def test_a_file_that_is_another_one_is_bad_and_not_read(
    place: Place, tmp_path: Path, trick: Callable[[Path, Path], None]
) -> None:
    secret = tmp_path / "theirs" / "secret.eml"
    secret.parent.mkdir()
    secret.write_bytes(b"From: shop@example.com\nTo: eve@example.org\n\n" + SECRET)
    trick(place.drop / "order.eml", secret)
    place.put("another.eml")

    tally = place.scan()

    assert (tally.taken, tally.refused) == (1, 1)  # the file behind it is not kept waiting
    assert "order.eml" in place.reason("order.eml.bad.json")["file"]
    found = everything(place.db, place.sent)
    assert SECRET not in found
    assert secret.exists()


def test_a_work_folder_that_was_put_there_before_is_not_used(place: Place, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (place.drop / ".work").symlink_to(theirs)
    place.put()

    with pytest.raises(OSError, match="not a directory of its own"):
        place.scan()
    assert list(theirs.iterdir()) == []
    assert place.mails() == 0


@pytest.mark.parametrize("name", ["..eml", "...eml", "%2e%2e%2fup.eml", "..\\..\\up.eml", "\x1b[2J.eml", "a\rb\nc.eml"])
def test_no_name_leads_out_of_a_folder_or_into_a_log(
    place: Place, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = set(tmp_path.rglob("*"))
    place.put(name, b"no message at all\n\n")
    os.utime(place.drop / name, (0, 0))
    with caplog.at_level(logging.DEBUG):
        place.scan()
        place.scan()
    new = set(tmp_path.rglob("*")) - before

    assert place.mails() == 0
    assert {each.parent for each in new} <= {place.drop, place.bad, place.drop / ".work"}
    assert not any(character in caplog.text.replace("\n", "") for character in "\x1b\r")


@pytest.mark.parametrize("header", HEADERS_OF_OTHERS)
def test_a_file_speaks_for_nobody_whom_the_folder_does_not_admit(place: Place, header: str) -> None:
    place.put(content=f"{header}\nTo: ann@example.net\n\nhi\n".encode())

    assert place.scan().refused == 1
    assert place.mails() == 0
    assert place.reason("order.eml.bad.json")["stage"] in ("policy", "parse")


@pytest.mark.parametrize(
    ("field", "recipients"),
    [
        ("X-Receiver: ann@example.net\nBcc: eve@example.org", ["ann@example.net"]),
        ("X-Receiver: <ann@example.net> NOTIFY=never,\n RCPT TO:<eve@example.org>", ["ann@example.net"]),
        ("X-Receiver: ann@example.net, eve@example.org", []),
        ("X-Receiver: <ann@example.net\x00eve@example.org>", []),
        ('X-Receiver: <"ann, eve@example.org, "@example.net>', ['"ann, eve@example.org, "@example.net']),
        ("X-Receiver: @example.org:ann@example.net", []),
    ],
)
def test_an_x_receiver_is_one_address_or_the_file_is_bad(place: Place, field: str, recipients: list[str]) -> None:
    place.put(content=f"X-Sender: {SHOP}\n{field}\nFrom: {SHOP}\nTo: bo@example.net\n\nhi\n".encode())
    place.scan()

    found = [parse_address_list(row[0]) for row in rows(place.db, "SELECT recipients FROM outbox")]
    assert [[each.email for each in row] for row in found] == ([recipients] if recipients else [])


@pytest.mark.parametrize(
    "content",
    [
        b"From: shop@example.com\n" + b"X-Long: x\n" * 7000 + b"\nhi\n",
        b"X-Receiver: ann@example.net\n" * 4000 + b"From: shop@example.com\n\nhi\n",
        b"From: shop@example.com\nTo: ann@example.net\n\n" + b"x" * 70_000,
        b"From: shop@example.com\nTo: ann@example.net\n\nhi\0",
    ],
    ids=["header", "recipients", "size", "NUL"],
)
def test_what_is_too_large_or_no_text_is_bad(place: Place, content: bytes) -> None:
    place.change(max_bytes=110_000 if b"X-" in content[:30] else 60_000)
    place.put(content=content)

    assert place.scan().refused == 1
    assert place.mails() == 0


# -- the command: somebody else chooses its arguments, or what is piped into it


INJECTED = [
    (["-f", f"{SHOP}\nBcc: eve@example.org", "ann"], 64),
    (["-f", f"{SHOP}\r\nRCPT TO:<eve@example.org>", "ann"], 64),
    (["-f", f"{SHOP} -oQ/tmp", "ann"], 64),
    (["-F", "Shop\nBcc: eve@example.org", "ann"], 64),
    (["-V", "id\nBcc: eve", "ann"], 64),
    (["-X", "/tmp/log", "ann"], 64),
    (["-C/etc/passwd", "ann"], 64),
    (["-oQ/tmp", "ann"], 64),
    (["-OQueueDirectory=/tmp", "ann"], 64),
    (["--", ":include:/etc/passwd"], 65),
    (["--", '"|/bin/sh -c id'], 65),
    (["ann@example.net\nBcc: eve@example.org"], 65),
]


def test_no_argument_becomes_a_header_a_file_or_a_program(command: Command) -> None:
    for arguments, code in INJECTED:
        command.run(*arguments, code=code, stdin=b"From: shop@example.com\n\nhi\n")
        assert command.rows() == []


def test_behind_two_dashes_everything_is_an_address(command: Command) -> None:
    command.run("--", "-t", "|/bin/sh", stdin=b"From: shop@example.com\nTo: eve@example.org\n\nhi\n")

    assert command.rows() == [(SHOP, "-t@example.com, |/bin/sh@example.com")]


def test_a_name_in_the_environment_is_one_display_name(command: Command) -> None:
    named = {**command.env, "NAME": 'Shop" <eve@example.org>\r\nBcc: eve@example.org'}
    with suppress(AssertionError):  # 65 is as good
        command.run("ann", stdin=b"Subject: hi\n\nhi\n", env=named)
    for (raw,) in command.rows("raw"):
        message = message_from_bytes(bytes(raw), policy=policy.SMTP)
        assert message["Bcc"] is None
        assert "eve@example.org" not in [each.addr_spec for each in message["From"].addresses]


def test_a_message_speaks_for_nobody_who_is_not_registered(command: Command) -> None:
    for header in HEADERS_OF_OTHERS:
        stranger = header.replace(BOSS, "boss@example.org")
        line = f"{command.path} -f {SHOP} ann; end=$?; test $end = 77 || test $end = 65"
        subprocess.run(["sh", "-c", line], input=f"{stranger}\n\nhi\n".encode(), env=command.env, check=True)
        assert command.rows() == []


def test_a_message_of_a_stranger_chooses_no_recipients_in_the_spool_either(command: Command, tmp_path: Path) -> None:
    """A filter that pipes what it got: the fields by which a spooled file has its envelope are the command's own."""
    spool = tmp_path / "spool"
    code, said = command.site.outbox("pickup", "add", "spool", str(spool), "--settle", "0s")
    assert code == 0, said
    away = {"OUTBOX_SENDMAIL_SPOOL": str(spool), "OUTBOX_DATABASE": "sqlite:////nowhere/at/all.db"}
    mail = b"X-Receiver: eve@example.org\nX-Sender: <>\nX-receiver : eve@example.org\nBcc: eve@example.org\n" + MAIL
    command.run("-i", "ann@example.net", stdin=mail, env={**command.env, **away})
    code, said = command.site.outbox("pickup", "scan")
    assert code == 0, said

    assert command.rows("sender, recipients, cc, bcc, return_path") == [(SHOP, "ann@example.net", None, None, None)]
    assert b"eve" not in command.raw()


# -- the port: somebody can reach it


class Standing(Server):
    """One server for all of these tests; `rows` has those of the test at hand."""

    since = 0

    def rows(self, columns: str = "source, sender, recipients") -> list[Any]:
        return self.site.query(f"SELECT {columns} FROM outbox WHERE id > ? ORDER BY id", self.since)


@pytest.fixture(scope="module")
def standing(_sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """With the user crm, who may send from shop@ alone; registered are all of example.com."""
    folder = tmp_path_factory.mktemp("standing")
    shutil.copyfile(_sqlite_template, folder / "outbox.db")
    with closing(Site(f"sqlite:///{(folder / 'outbox.db').as_posix()}", folder)) as site:
        site.register(1, sender="*@example.com")
        add_user(site, "crm", SHOP)
        with serving(site) as server, ExitStack() as stack:
            yield Standing(site, server.program, server.port, stack)


@pytest.fixture
def served(standing: Standing) -> Standing:
    ((standing.since,),) = standing.site.query("SELECT coalesce(max(id), 0) FROM outbox")
    return standing


BEFORE_A_LOGIN = [
    ["MAIL FROM:<shop@example.com>"],
    ["MAIL FROM:<>"],
    ["MAIL FROM:<shop@example.com> AUTH=<>"],
    ["RCPT TO:<ann@example.net>"],
    ["DATA"],
    ["HELO x", "MAIL FROM:<shop@example.com>"],
    ["RSET", "MAIL FROM:<shop@example.com>"],
    ["VRFY shop@example.com"],
    ["EXPN staff"],
    ["ETRN example.com"],
    ["BDAT 5 LAST"],
]


def test_who_has_not_logged_in_sends_nothing_and_learns_nothing(served: Server) -> None:
    for lines in BEFORE_A_LOGIN:
        client = served.client()
        codes = [client.docmd(line)[0] for line in lines]
        assert codes[-1] >= 500, lines
        client.close()
    assert served.rows() == []


def test_guesses_are_few_alike_and_logged_with_their_address(served: Server) -> None:
    def answers(name: str) -> list[tuple[int, bytes]]:
        client = served.client()
        said = []
        for guess in range(2):
            secret = base64.b64encode(f"\0{name}\0guess {guess}".encode()).decode()
            said.append(client.docmd("AUTH", f"PLAIN {secret}"))
        assert client.docmd("AUTH", "LOGIN")[0] == 334
        assert client.docmd(base64.b64encode(name.encode()).decode())[0] == 334
        said.append(client.docmd(base64.b64encode(b"guess").decode()))
        said.append(client.docmd("AUTH", "LOGIN"))
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.noop()
        return said

    known, unknown = answers("crm"), answers("nobody")

    assert known == unknown
    assert [code for code, _ in known] == [535, 535, 535, 421]
    assert served.program.output.count("a login as 'crm' from ('127.0.0.1', ") == 3


def test_a_user_speaks_for_nobody_else(served: Server) -> None:
    client = served.client(user="crm")
    for header in HEADERS_OF_OTHERS:
        mail = f"{header}\nTo: ann@example.net\n\nhi\n".replace("\n", "\r\n")
        assert refused(client, mail) == 550, header
    assert served.rows() == []


def test_a_recipient_is_one_address(served: Server) -> None:
    client = served.client(user="crm")
    client.mail(SHOP)
    for path in (
        "<ann@example.net,eve@example.org>",
        "<ann@example.net> <eve@example.org>",
        "<ann@example.net>,<eve@example.org>",
        "<ann@example.net\teve@example.org>",
        "<ann@example.net\0>",
        "ann: ann@example.net, eve@example.org;",
        "<|/bin/sh>",
    ):
        client.send(f"RCPT TO:{path}\r\n")
        assert client.getreply()[0] >= 500, path
    assert client.rcpt('"bo, eve@example.org, "@example.net')[0] == 250
    assert client.docmd("RCPT", "TO:<@example.org:ann@example.net>")[0] == 250  # a route, which RFC 5321 has us ignore
    assert client.data(MAIL)[0] == 250
    ((recipients,),) = served.rows("recipients")

    found = [each.email for each in parse_address_list(recipients)]
    assert found == ['"bo, eve@example.org, "@example.net', "ann@example.net"]


def test_fields_that_are_an_envelope_elsewhere_are_none_here(served: Server) -> None:
    fields = (
        "X-Receiver: eve@example.org\r\nX-Sender: boss@example.com\r\nBcc: eve@example.org\r\nReturn-Path: <eve@x.org>"
    )
    client = served.client(user="crm")

    assert refused(client, f"{fields}\r\nFrom: {SHOP}\r\nTo: bo@example.net\r\n\r\nhi\r\n") == 0
    ((recipients, cc, bcc, return_path, raw),) = served.rows("recipients, cc, bcc, return_path, raw")
    assert (recipients, cc, bcc, return_path) == ("ann@example.net", None, None, None)
    assert b"eve" not in bytes(raw)


def test_recipients_without_end_are_not_kept(served: Server) -> None:
    client = served.client(user="crm")
    client.mail(SHOP)
    client.send("".join(f"RCPT TO:<ann{number}@example.net>\r\n" for number in range(1001)))
    codes = [client.getreply()[0] for _ in range(1001)]

    assert (codes.count(250), codes[-1]) == (1000, 452)


def test_a_line_without_end_is_not_kept(served: Server) -> None:
    client = served.client()
    with suppress(OSError):
        client.send("NOOP " + "x" * 100_000 + "\r\n")
    with suppress(smtplib.SMTPServerDisconnected):
        assert client.getreply()[0] == 500
    assert served.client().noop()[0] == 250


@pytest.mark.parametrize(
    "host",
    ["", "0", "::", "0.0.0.0", "192.0.2.1", "::ffff:192.0.2.1", "localhost.example.com", "127.0.0.1.example.com"],
)
def test_without_a_certificate_or_a_login_only_this_machine_is_listened_to(host: str) -> None:
    with pytest.raises(ConfigError, match="in clear"):
        Listen(host, 2525)
    with pytest.raises(ConfigError, match="has to log in"):
        Listen(host, 2525, tls=ssl.create_default_context(), without_login=True)
