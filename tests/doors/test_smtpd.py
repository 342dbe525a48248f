"""`outbox smtpd` as a process: who may send, what 250 means, TLS, smuggling, and how it ends."""

from __future__ import annotations

import base64
import re
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.relay import Relay
from tests.running import Program, Site
from tests.running import command as outbox_command

SHOP = "shop@example.com"
PASSWORD = "canary-Pa55w0rd"
MAIL = f"From: {SHOP}\r\nTo: ann@example.net\r\nSubject: Order 7\r\n\r\nThanks\r\n"

Open = Callable[..., smtplib.SMTP]


class Server:
    """The server, its port, and clients of it."""

    def __init__(self, site: Site, program: Program, port: int, stack: ExitStack) -> None:
        self.site, self.program, self.port, self._stack = site, program, port, stack

    def client(self, *, user: str = "", password: str = PASSWORD) -> smtplib.SMTP:
        client = smtplib.SMTP("127.0.0.1", self.port, timeout=30)
        self._stack.callback(client.close)
        client.ehlo()
        if user:
            client.login(user, password)
        return client

    def rows(self, columns: str = "source, sender, recipients") -> list[Any]:
        return self.site.query(f"SELECT {columns} FROM outbox ORDER BY id")


@contextmanager
def serving(site: Site, *arguments: str, host: str = "127.0.0.1") -> Iterator[Server]:
    words = outbox_command("-v", "-v", "smtpd", "--listen", f"{host}:0", *arguments)
    with Program(words, site.folder, OUTBOX_DATABASE=site.url) as program, ExitStack() as stack:
        port = int(program.says(r"listening at .*:(\d+)")[1])
        yield Server(site, program, port, stack)


def add_user(site: Site, name: str, *senders: str) -> None:
    secret = site.folder / "password"
    secret.write_text(PASSWORD, encoding="utf-8")
    options = [word for each in senders for word in ("--sender", each)]
    status, said = site.outbox("user", "add", name, "--password-file", str(secret), *options)
    assert status == 0, said


@pytest.fixture
def served(site: Site) -> Iterator[Server]:
    """With the user crm, who may send from shop@ and news@; registered are all of example.com."""
    site.register(1, sender="*@example.com")
    add_user(site, "crm", SHOP, "*@news.example.com")
    with serving(site) as server:
        yield server


def refused(client: smtplib.SMTP, mail: str = MAIL, sender: str = SHOP) -> int:
    try:
        client.sendmail(sender, ["ann@example.net"], mail)
    except smtplib.SMTPSenderRefused as error:
        return error.smtp_code
    except smtplib.SMTPDataError as error:
        return error.smtp_code
    return 0


# -- who may send


def test_a_user_who_has_logged_in_hands_over_mail(served: Server) -> None:
    client = served.client(user="crm")

    assert client.sendmail(SHOP, ["ann@example.net", "bo@example.net"], MAIL) == {}
    assert served.rows() == [("smtp", SHOP, "ann@example.net, bo@example.net")]


def test_nobody_else_does(served: Server) -> None:
    client = served.client()
    assert refused(client) == 530
    for name, password in (("crm", "wrong"), ("nobody", PASSWORD)):
        with pytest.raises(smtplib.SMTPAuthenticationError) as told:
            served.client(user=name, password=password)
        assert told.value.smtp_code == 535
    assert served.rows() == []


def test_guesses_are_counted(served: Server) -> None:
    client = served.client()
    guess = base64.b64encode(b"\0crm\0guess").decode()
    answers = [client.docmd("AUTH", f"plain {guess}")[0] for _ in range(4)]

    assert answers == [535, 535, 535, 421]


@pytest.mark.parametrize(
    ("sender", "header", "code"),
    [
        (SHOP, SHOP, 0),
        ("eve@example.org", SHOP, 550),
        ("boss@example.com", SHOP, 550),
        (SHOP, "boss@example.com", 550),
        (SHOP, "eve@example.org", 550),
        (SHOP, f"{SHOP}, boss@example.com", 550),
        (SHOP, f"{SHOP}\r\nSender: boss@example.com", 550),
        (SHOP, f"{SHOP}\r\nFrom: boss@example.com", 550),
        ("", SHOP, 0),
        ("", "boss@example.com", 550),
    ],
)
def test_mail_is_taken_from_the_users_own_senders_only(sqlite_site: Site, sender: str, header: str, code: int) -> None:
    sqlite_site.register(1, sender="*@example.com")
    add_user(sqlite_site, "crm", SHOP)
    with serving(sqlite_site) as served:
        assert refused(served.client(user="crm"), MAIL.replace(f"From: {SHOP}", f"From: {header}"), sender) == code
        assert len(served.rows()) == (0 if code else 1)


def test_who_is_removed_is_out_at_once(served: Server) -> None:
    client = served.client(user="crm")
    assert served.site.outbox("user", "remove", "crm")[0] == 0

    assert refused(client) == 550
    with pytest.raises(smtplib.SMTPAuthenticationError):
        served.client(user="crm")


def test_without_login_this_machine_may_send(sqlite_site: Site) -> None:
    sqlite_site.register(1, sender="*@example.com")
    with serving(sqlite_site, "--without-login") as served:
        assert refused(served.client()) == 0
        assert refused(served.client(), sender="eve@example.org") == 550


@pytest.mark.parametrize(
    "arguments", [("0.0.0.0:0",), ("0.0.0.0:0", "--without-login"), ("nowhere",), ("127.0.0.1:99999",)]
)
def test_what_would_be_open_to_others_does_not_start(sqlite_site: Site, arguments: tuple[str, ...]) -> None:
    status, said = sqlite_site.outbox("smtpd", "--listen", *arguments)

    assert status != 0
    assert "Traceback" not in said


# -- TLS


def test_other_machines_speak_tls_before_they_log_in(sqlite_site: Site, tmp_path: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("localhost", "127.0.0.1")
    pem = tmp_path / "server.pem"
    pem.write_bytes(made.private_key_and_cert_chain_pem.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)
    sqlite_site.register(1, sender="*@example.com")
    add_user(sqlite_site, "crm")
    with serving(sqlite_site, "--tls-cert", str(pem), host="0.0.0.0") as served:
        client = served.client()
        assert not client.has_extn("auth")
        secret = base64.b64encode(f"\0crm\0{PASSWORD}".encode()).decode()
        assert client.docmd("AUTH", f"PLAIN {secret}")[0] in (530, 538)
        assert refused(client) == 530
        client = served.client()
        client.starttls(context=context)
        client.ehlo()
        assert refused(client) == 530
        client.login("crm", PASSWORD)
        assert client.sendmail(SHOP, ["ann@example.net"], MAIL) == {}
        with socket.create_connection(("127.0.0.1", served.port), 20) as plain, plain.makefile("rb") as answers:
            plain.sendall(b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<shop@example.com>\r\n")  # CVE-2011-0411
            while not answers.readline().startswith(b"220 2.0.0 "):
                pass
            with context.wrap_socket(plain, server_hostname="localhost") as secured:
                secured.sendall(b"NOOP\r\n")
                assert secured.recv(100) == b"250 2.0.0 OK\r\n"
    assert len(served.rows()) == 1
    assert PASSWORD not in served.program.output


# -- what 250 means


def test_a_mail_is_committed_when_250_is_said_though_the_server_is_killed(served: Server) -> None:
    client = served.client(user="crm")
    client.mail(SHOP)
    client.rcpt("ann@example.net")
    code, said = client.data(MAIL)
    served.program.kill()

    assert code == 250
    assert said == b"2.0.0 Ok: queued as %d" % served.rows("id")[0][0]


def test_without_its_end_a_mail_is_none(served: Server) -> None:
    client = served.client(user="crm")
    client.mail(SHOP)
    client.rcpt("ann@example.net")
    assert client.docmd("DATA")[0] == 354
    client.send(MAIL)
    client.close()
    assert refused(served.client(user="crm")) == 0

    assert len(served.rows()) == 1


def test_while_the_database_is_away_the_client_is_told_to_come_again(served: Server) -> None:
    client = served.client(user="crm")
    drop, back = "ALTER TABLE outbox_sender RENAME TO gone", "ALTER TABLE gone RENAME TO outbox_sender"
    served.site.query(drop)
    assert refused(client) == 451
    served.site.query(back)

    assert refused(client) == 0


def test_a_connection_that_the_database_has_ended_is_made_anew(postgres_site: Site) -> None:
    postgres_site.register(1, sender="*@example.com")
    with serving(postgres_site, "--without-login") as served:
        client = served.client()
        client.mail(SHOP)
        client.rcpt("ann@example.net")
        postgres_site.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert client.data(MAIL)[0] == 451
        assert served.rows() == []
        assert refused(client) == 0
    assert len(served.rows()) == 1


def test_a_locked_database_is_waited_for_and_then_451(sqlite_site: Site) -> None:
    sqlite_site.register(1, sender="*@example.com")
    with serving(sqlite_site, "--without-login") as served:
        client = served.client()
        with sqlite_site.db.atomic("IMMEDIATE"):
            assert refused(client) == 451
        assert refused(client) == 0
        assert len(served.rows()) == 1


# -- what is said


def test_too_large_is_said_before_and_after(sqlite_site: Site) -> None:
    sqlite_site.register(1, sender="*@example.com")
    with serving(sqlite_site, "--without-login") as served:
        client = served.client()
        assert client.mail(SHOP, [f"SIZE={26 << 20}"])[0] == 552
        client = served.client()
        client.esmtp_features.pop("size")
        assert refused(client, MAIL + ("x" * 78 + "\r\n") * (26 << 20 >> 6)) in (552, 500)
        assert refused(client, MAIL + "x" * 999 + "\r\n") in (500, 550)
        assert refused(client) == 0
    assert len(served.rows()) == 1


@pytest.mark.parametrize(
    "end", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\0.\r\n"]
)
def test_no_second_mail_is_smuggled_in(sqlite_site: Site, end: bytes) -> None:
    """To the end, at a relay: what is no CRLF.CRLF does not end a mail, here or there."""
    stuffed = (
        b"MAIL FROM:<shop@example.com>\r\nRCPT TO:<eve@example.net>\r\nDATA\r\nFrom: shop@example.com\r\n\r\nsmuggled"
    )
    with Relay() as relay:
        sqlite_site.register(relay.port, sender="*@example.com")
        with serving(sqlite_site, "--without-login") as served:
            client = served.client()
            client.mail(SHOP)
            client.rcpt("ann@example.net")
            assert client.docmd("DATA")[0] == 354
            client.send(MAIL.encode() + b"text" + end + stuffed + b"\r\n.\r\n")
            code, _ = client.getreply()
            assert client.noop()[0] == 250
        with sqlite_site.run("--until-empty") as runner:
            assert runner.wait() == 0
        got = relay.messages

    assert code == (550 if b"\0" in end else 250)
    assert [each.recipients for each in got] == ([] if b"\0" in end else [("ann@example.net",)])


def test_passwords_are_in_no_log(served: Server) -> None:
    served.client(user="crm")
    client = served.client()
    client.docmd("AUTH", "LOGIN")
    client.docmd(base64.b64encode(b"crm").decode())
    client.docmd(base64.b64encode(PASSWORD.encode()).decode())
    client.docmd("AUTH", f"PLAIN {PASSWORD}")
    served.client().docmd("AUTHPLAIN", PASSWORD)
    with pytest.raises(smtplib.SMTPAuthenticationError):
        served.client(user="crm", password=PASSWORD + "x")
    served.program.stop()
    assert served.program.wait() == 0

    hidden = (PASSWORD, base64.b64encode(PASSWORD.encode()).decode()[:16], "scrypt$")
    assert [each for each in hidden if each in served.program.output] == []
    assert re.search("a login as 'crm' from .* was refused", served.program.output)


# -- its bounds and its end


def test_connections_are_bounded(sqlite_site: Site) -> None:
    from outbox.doors.smtpd.dialogue import MOST_CONNECTIONS

    sqlite_site.register(1, sender="*@example.com")
    with serving(sqlite_site, "--without-login") as served:
        clients = [served.client() for _ in range(MOST_CONNECTIONS)]
        with socket.create_connection(("127.0.0.1", served.port), 20) as one_more, one_more.makefile("rb") as said:
            assert said.read().startswith(b"421 4.3.2 ")
        clients[0].quit()
        assert refused(served.client()) == 0


def test_it_ends_when_it_is_told_to_and_says_goodbye(sqlite_site: Site) -> None:
    sqlite_site.register(1, sender="*@example.com")
    with serving(sqlite_site, "--without-login") as served:
        idle, busy = served.client(), served.client()
        busy.mail(SHOP)
        busy.rcpt("ann@example.net")
        assert busy.docmd("DATA")[0] == 354
        served.program.stop()
        assert idle.getreply()[0] == 421
        busy.send(MAIL + ".\r\n")
        assert busy.getreply()[0] == 250
        assert busy.getreply()[0] == 421
        assert served.program.wait() == 0
    assert len(served.rows()) == 1
    assert "Traceback" not in served.program.output
