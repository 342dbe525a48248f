"""TLS is verified or there is none, and nothing secret is said before it."""

from __future__ import annotations

import asyncio
import base64
import datetime
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from outbox.core.outcome import Report, Stage
from outbox.smtp.connection import Connection, Relay
from outbox.smtp.dial import tls_context
from tests import relay as scripted
from tests.relay import DROP, HANG, RST, server_context
from tests.running import eventually
from tests.smtp.sending import BIG, HELLO, TO_ANN, Mark, account, connect, deadlines, run, send

PASSWORD = "correct horse"
BLOB = base64.b64encode(f"\0ann\0{PASSWORD}".encode())


class Authority:
    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def context(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """A server's context with a certificate for `names`."""
        end = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC) if expired else None
        return server_context(self._ca.issue_cert(*(names or ("127.0.0.1",)), not_after=end))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def sign_in(relay: scripted.Relay, authority: Authority, tls: str) -> Relay:
    return account(relay, tls=tls, ca_file=authority.file, username="ann", password=PASSWORD)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize("message", [HELLO, BIG], ids=["small", "big"])
def test_mail_goes_out_encrypted_and_signed_in(tls: str, message: object, authority: Authority) -> None:
    async def story(relay: scripted.Relay) -> list[Report]:
        connection = await connect(sign_in(relay, authority, tls))
        reports = [await connection.deliver(TO_ANN, message, Mark()) for _ in range(2)]  # type: ignore[arg-type]
        await connection.close()
        return reports

    with scripted.Relay(tls=tls, context=authority.context(), credentials={"ann": PASSWORD}) as relay:
        reports = run(story(relay))
    assert [report.stage for report in reports] == [Stage.DOT, Stage.DOT]
    assert reports[0].tls.startswith("TLSv1.")
    assert " TLS_" in reports[0].tls
    assert [received.session.user for received in relay.messages] == ["ann", "ann"]
    assert relay.commands[-1] == "QUIT"
    assert b"MAIL" not in relay.sessions[0].clear


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize(
    ("names", "expired", "words"),
    [
        (("mail.example",), False, "not valid for '127.0.0.1'"),
        ((), True, "certificate has expired"),
    ],
    ids=["wrong name", "expired"],
)
def test_a_certificate_that_does_not_hold_ends_it(
    names: tuple[str, ...], expired: bool, words: str, tls: str, authority: Authority
) -> None:
    context = authority.context(*names, expired=expired)
    with scripted.Relay(tls=tls, context=context, credentials={"ann": PASSWORD}) as relay:
        report = run(send(sign_in(relay, authority, tls)))
    assert_nothing_secret(report, relay)
    assert words in report.fault


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_an_authority_that_is_not_ours_ends_it(tls: str, authority: Authority, tmp_path: Path) -> None:
    with scripted.Relay(tls=tls, context=Authority(tmp_path).context(), credentials={"ann": PASSWORD}) as relay:
        with_ours = run(send(sign_in(relay, authority, tls)))
        with_the_systems = run(send(account(relay, tls=tls, username="ann", password=PASSWORD)))
    for report in (with_ours, with_the_systems):
        assert_nothing_secret(report, relay)
        assert "the relay's certificate is not to be trusted: " in report.fault


def test_every_context_verifies_chain_and_name_and_speaks_nothing_old(authority: Authority) -> None:
    for context in (tls_context(""), tls_context(authority.file)):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("script", [{"starttls": DROP}, {"starttls": ("220 go", DROP)}], ids=["before", "after"])
def test_a_relay_that_closes_around_starttls_is_a_report(script: dict[str, object], authority: Authority) -> None:
    with scripted.Relay(script, tls="starttls", context=authority.context()) as relay:
        report = run(send(sign_in(relay, authority, "starttls")))
    assert report.stage in (Stage.STARTTLS, Stage.TLS)
    assert report.fault


@pytest.mark.parametrize("act", [DROP, RST], ids=["closes", "resets"])
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_relay_that_is_gone_right_after_the_handshake_is_a_report(
    act: object, tls: str, authority: Authority
) -> None:
    """Whichever side of the handshake's end it is noticed on."""
    for _ in range(10):
        script = {"banner": act} if tls == "implicit" else {"ehlo": [None, act]}
        with scripted.Relay(script, tls=tls, context=authority.context()) as relay:
            report = run(send(account(relay, tls=tls, ca_file=authority.file)))
        assert report.stage in (Stage.TLS, Stage.BANNER, Stage.EHLO)
        assert report.fault


def test_a_handshake_that_hangs_ends_at_its_deadline(authority: Authority) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        settings = Relay("127.0.0.1", silent.getsockname()[1], "implicit", ca_file=authority.file)
        report = run(send(settings, limits=deadlines(tls=0.1)))
    assert report.stage is Stage.TLS
    assert report.fault


@pytest.mark.parametrize(
    ("script", "offered", "stage", "code"),
    [
        ({}, False, Stage.STARTTLS, None),
        ({"starttls": "454 4.7.0 not now"}, True, Stage.STARTTLS, 454),
        ({"starttls": "502 5.5.1 no"}, True, Stage.STARTTLS, 502),
        ({"starttls": "250 ok"}, True, Stage.STARTTLS, 250),
    ],
    ids=["not offered", "454", "502", "250"],
)
def test_required_tls_never_falls_back(
    script: dict[str, object], offered: bool, stage: Stage, code: int | None, authority: Authority
) -> None:
    tls, context = ("starttls", authority.context()) if offered else (None, None)
    with scripted.Relay(script, tls=tls, context=context, credentials={"ann": PASSWORD}) as relay:
        report = run(send(sign_in(relay, authority, "starttls")))
    assert (report.stage, report.reply and report.reply.code) == (stage, code)
    assert_nothing_secret(report, relay)
    if not offered:
        assert report.fault == "the relay does not offer STARTTLS, and this account requires it"


def test_words_injected_behind_the_220_end_it(authority: Authority) -> None:
    injected = b"220 go on\r\n250-relay.example\r\n250 AUTH PLAIN\r\n"
    with scripted.Relay({"starttls": injected}, tls="starttls", context=authority.context()) as relay:
        report = run(send(sign_in(relay, authority, "starttls")))
    assert report.stage is Stage.TLS
    assert "injected" in report.fault
    assert_nothing_secret(report, relay)


def test_implicit_tls_to_a_plain_relay_is_a_report(authority: Authority) -> None:
    with scripted.Relay() as relay:
        report = run(send(account(relay, tls="implicit", ca_file=authority.file)))
    assert report.stage is Stage.TLS
    assert report.reply is None


def test_the_banner_that_comes_in_clear_is_not_read_when_tls_is_implicit(authority: Authority) -> None:
    """Neither before nor after the handshake: what came in clear is nobody's word."""
    with scripted.Relay({"banner": HANG}) as relay:
        report = run(send(account(relay, tls="implicit", ca_file=authority.file), limits=deadlines(tls=0.2)))
        relay.release()
    assert report.stage is Stage.TLS


def own_address() -> str:
    """An address of this machine that is not loopback, or ``""``."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a datagram socket: nothing is sent
        except OSError:
            return ""
        address: str = probe.getsockname()[0]
        return "" if address.startswith("127.") else address


def test_credentials_are_not_said_in_clear_but_on_loopback() -> None:
    address = own_address()
    if not address:
        pytest.skip("this machine has no address but loopback")
    with scripted.Relay(credentials={"ann": PASSWORD}, host=address) as relay:
        report = run(send(account(relay, host=address, username="ann", password=PASSWORD)))
        eventually(lambda: relay.sessions, "the relay has taken the connection, which is closed already")
    assert (report.stage, report.reply and report.reply.status) == (Stage.AUTH, "5.7.11")
    assert bytes(relay.sessions[0].clear) == b""


def test_on_loopback_they_are() -> None:
    with scripted.Relay(credentials={"ann": PASSWORD}) as relay:
        report = run(send(account(relay, host="localhost", username="ann", password=PASSWORD)))
    assert report.stage is Stage.DOT


def test_a_changed_ca_file_is_read_again(authority: Authority, tmp_path: Path) -> None:
    mine = tmp_path / "ca.pem"
    mine.write_bytes(Path(Authority(tmp_path).file).read_bytes())
    with scripted.Relay(tls="implicit", context=authority.context()) as relay:
        settings = account(relay, tls="implicit", ca_file=str(mine))
        assert run(send(settings)).stage is Stage.TLS
        mine.write_bytes(Path(authority.file).read_bytes())
        assert run(send(settings)).stage is Stage.DOT


def test_a_relay_that_drops_tls_without_a_word_after_quit_is_fine(authority: Authority) -> None:
    async def story(relay: scripted.Relay) -> None:
        connection = await Connection.open(account(relay, tls="implicit", ca_file=authority.file), deadlines())
        assert isinstance(connection, Connection)
        assert (await connection.deliver(TO_ANN, HELLO, Mark())).stage is Stage.DOT
        async with asyncio.timeout(10):
            await connection.close()

    with scripted.Relay({"quit": DROP}, tls="implicit", context=authority.context()) as relay:
        run(story(relay))


def assert_nothing_secret(report: Report, relay: scripted.Relay) -> None:
    assert report.stage in (Stage.TLS, Stage.STARTTLS)
    for session in relay.sessions:
        assert not any(line.startswith(("AUTH", "MAIL")) for line in session.commands)
        assert b"AUTH" not in session.clear
        assert BLOB not in session.clear
    assert relay.messages == []
