"""TLS that must not be trusted: the relay sees no octet of a login or a message, and the fault is the relay's.

The relay keeps everything that comes to it in clear, also after a handshake that failed.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import socket
import ssl
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from outbox.core.judge import classify
from outbox.core.message import Recipient
from outbox.core.outcome import Scope, Stage, Verdict
from outbox.core.secret import Secret
from outbox.core.settlement import Fate, Trial, fates_of
from outbox.smtp import session as smtp
from outbox.smtp.connection import Relay
from outbox.smtp.dial import tls_fault
from outbox.smtp.dialogue import Dialogue
from outbox.smtp.opening import opening
from tests import relay as scripted
from tests.relay import GARBAGE, HANG, server_context
from tests.relay_session import DROP, Answer, Session
from tests.smtp.peer import Peer
from tests.smtp.sending import HELLO, TO_ANN, account, connect, deadlines, run, send

PASSWORD = "correct horse"
SECRETS = (b"AUTH", b"MAIL", b"correct", base64.b64encode(f"\0ann\0{PASSWORD}".encode()), b"Subject", b"example.net")
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Authority:
    """`file` is what the account trusts; `other` is another authority."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.other = trustme.CA(), trustme.CA()
        self.file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.file)
        self.folder = folder


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def good(authority: Authority) -> ssl.SSLContext:
    return server_context(authority.ca.issue_cert("127.0.0.1"))


def self_signed(
    authority: Authority, issuer: tuple[ec.EllipticCurvePrivateKey, x509.Name] | None = None
) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    signer, by = issuer or (key, name)
    builder = x509.CertificateBuilder(by, name, key.public_key(), 1, NOW - DAY, NOW + DAY)
    certificate = builder.sign(signer, hashes.SHA256())
    path = authority.folder / "self-signed.pem"
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(*form) + certificate.public_bytes(form[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def wrong_name(authority: Authority) -> ssl.SSLContext:
    return server_context(authority.ca.issue_cert("mail.example"))


def expired(authority: Authority) -> ssl.SSLContext:
    return server_context(authority.ca.issue_cert("127.0.0.1", not_after=NOW - DAY))


def not_yet_valid(authority: Authority) -> ssl.SSLContext:
    return server_context(authority.ca.issue_cert("127.0.0.1", not_before=NOW + DAY, not_after=NOW + 2 * DAY))


def wrong_authority(authority: Authority) -> ssl.SSLContext:
    return server_context(authority.other.issue_cert("127.0.0.1"))


def old(authority: Authority) -> ssl.SSLContext:
    """A relay that knows TLS 1.1 and nothing newer."""
    context = good(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def garbage(session: Session, line: str) -> Answer:
    session.clear += session.socket.recv(65536)  # the ClientHello
    session.send(GARBAGE * 10)
    session.drain(session.socket)
    return DROP


OFFERED = ("starttls", "implicit", "opportunistic")
BY_STARTTLS = ("starttls", "opportunistic")


@dataclass(frozen=True)
class Bad:
    """What is wrong with the relay, and the report that it must lead to. `modes` of the account's TLS."""

    name: str
    stage: Stage
    words: str = ""
    code: int | None = None
    context: Callable[[Authority], ssl.SSLContext] = field(default=good)
    script: Mapping[str, Any] = field(default_factory=dict)
    modes: tuple[str, ...] = OFFERED
    offered: bool = True
    seen: bool = False
    pins: tuple[str, ...] = ()
    deadline: float = 20.0


UNTRUSTED = "the relay's certificate is not to be trusted: "
INJECTED = b"220 go on\r\n250-relay.example\r\n250 AUTH PLAIN\r\n"
BAD = [
    Bad("self-signed", Stage.TLS, UNTRUSTED + "self", context=self_signed),
    Bad("wrong name", Stage.TLS, "not valid for '127.0.0.1'", context=wrong_name),
    Bad("expired", Stage.TLS, UNTRUSTED + "certificate has expired", context=expired),
    Bad("not yet valid", Stage.TLS, UNTRUSTED + "certificate is not yet valid", context=not_yet_valid),
    Bad("wrong authority", Stage.TLS, UNTRUSTED + "unable to get local issuer certificate", context=wrong_authority),
    Bad("TLS 1.1 only", Stage.TLS, "TLS failed: ", context=old),
    Bad("not offered", Stage.STARTTLS, "does not offer STARTTLS", modes=("starttls",), offered=False),
    Bad("454", Stage.STARTTLS, code=454, script={"starttls": "454 4.7.0 not now"}, modes=BY_STARTTLS),
    Bad("502", Stage.STARTTLS, code=502, script={"starttls": "502 5.5.1 no"}, modes=BY_STARTTLS),
    Bad("250 instead of 220", Stage.STARTTLS, code=250, script={"starttls": "250 ok"}, modes=BY_STARTTLS),
    Bad("injected behind the 220", Stage.TLS, "injected", script={"starttls": INJECTED}, modes=BY_STARTTLS),
    Bad("downgraded", Stage.STARTTLS, "before and does not now", modes=("opportunistic",), offered=False, seen=True),
    Bad("garbage", Stage.TLS, "TLS failed: ", script={"tls": garbage}),
    Bad("closed", Stage.TLS, "", script={"tls": DROP}),
    Bad("not the pinned one", Stage.TLS, "is not the pinned one: its SHA-256 is ", pins=("ab" * 32, "cd" * 32)),
    Bad("hangs", Stage.TLS, "SSL handshake is taking longer", script={"tls": HANG}, deadline=0.3),
]
CASES = [pytest.param(bad, mode, id=f"{bad.name}: {mode}") for bad in BAD for mode in bad.modes]


@pytest.mark.parametrize(("bad", "mode"), CASES)
def test_bad_tls_sees_nothing_and_is_the_relays_fault(bad: Bad, mode: str, authority: Authority) -> None:
    tls = None if not bad.offered else "implicit" if mode == "implicit" else "starttls"
    context = bad.context(authority)
    with scripted.Relay(bad.script, tls=tls, context=context, credentials={"ann": PASSWORD}) as relay:
        settings = account(relay, tls=mode, ca_file=authority.file, username="ann", password=PASSWORD)
        settings = replace(settings, tls_pins=bad.pins, starttls_seen=bad.seen)
        report = run(send(settings, limits=deadlines(tls=bad.deadline)))

    assert (report.stage, report.reply and report.reply.code, report.dotted) == (bad.stage, bad.code, False)
    assert bad.words in report.fault
    assert bool(report.fault) == (bad.code is None)
    assert len(relay.sessions) == 1, "there is no second try in clear"
    session = relay.sessions[0]
    assert [secret for secret in SECRETS if secret in session.clear] == []
    assert [line for line in session.commands if line.startswith(("AUTH", "MAIL"))] == []
    assert relay.messages == []
    outcome = classify(report.stage, report.reply)
    assert (outcome.verdict, outcome.scope) == (Verdict.DEFER, Scope.RELAY)
    assert [each.fate for each in fates_of(Trial((Recipient(1, "ann@example.net", "to"),), report))] == [Fate.DEFERRED]


def test_an_old_authority_that_strict_verification_refuses_is_explained(authority: Authority) -> None:
    """As Python does by itself since 3.13: this authority's certificate lacks what RFC 5280 wants of it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - DAY, NOW + DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
    bare = authority.folder / "bare.pem"
    bare.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    context = ssl.create_default_context(cafile=str(bare))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    peer = self_signed(authority, issuer=(key, name))
    with (
        scripted.Relay(tls="implicit", context=peer) as relay,
        socket.create_connection(("127.0.0.1", relay.port), 5) as connected,
        pytest.raises(ssl.SSLCertVerificationError) as caught,
    ):
        context.wrap_socket(connected)
    assert tls_fault(caught.value).endswith("against RFC 5280: have it, or its authority's, made anew, or pin it")


# ---------------------------------------------------------------- pins


@pytest.mark.parametrize("mode", OFFERED)
@pytest.mark.parametrize("context", [self_signed, wrong_name, expired, wrong_authority])
def test_a_pinned_certificate_is_enough(
    mode: str, context: Callable[[Authority], ssl.SSLContext], authority: Authority
) -> None:
    tls = "implicit" if mode == "implicit" else "starttls"
    with scripted.Relay(tls=tls, context=context(authority), credentials={"ann": PASSWORD}) as relay:
        settings = account(relay, tls=mode, username="ann", password=PASSWORD)
        refused = run(send(replace(settings, tls_pins=("00" * 32,))))
        seen = refused.fault.rpartition(" ")[2]
        for pin in (seen, seen.upper()):
            report = run(send(replace(settings, tls_pins=("00" * 32, pin))))
            assert report.stage is Stage.DOT, report
            assert report.tls.startswith("TLSv1.")


def test_the_fingerprint_is_that_of_the_certificate(authority: Authority) -> None:
    certificate = authority.ca.issue_cert("127.0.0.1")
    der = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())
    with scripted.Relay(tls="implicit", context=server_context(certificate)) as relay:
        settings = replace(account(relay, tls="implicit"), tls_pins=(hashlib.sha256(der).hexdigest(),))
        assert run(send(settings)).stage is Stage.DOT


def test_pinned_tls_speaks_nothing_old(authority: Authority) -> None:
    with scripted.Relay(tls="implicit", context=old(authority)) as relay:
        report = run(send(replace(account(relay, tls="implicit"), tls_pins=("00" * 32,))))
    assert report.stage is Stage.TLS
    assert "TLS failed" in report.fault


# ---------------------------------------------------------------- opportunistic


def opportunistic(relay: scripted.Relay, authority: Authority, *, seen: bool = False) -> Relay:
    return replace(account(relay, tls="opportunistic", ca_file=authority.file), starttls_seen=seen)


@pytest.mark.parametrize("seen", [False, True])
def test_opportunistic_tls_is_used_where_it_is_offered(seen: bool, authority: Authority) -> None:
    with scripted.Relay(tls="starttls", context=good(authority)) as relay:
        report = run(send(opportunistic(relay, authority, seen=seen)))
    assert report.stage is Stage.DOT
    assert report.tls
    assert b"MAIL" not in relay.sessions[0].clear


@pytest.mark.parametrize("script", [{}, {"ehlo": "502 what?"}], ids=["EHLO", "HELO"])
def test_opportunistic_goes_without_where_it_was_never_offered(script: Mapping[str, Any], authority: Authority) -> None:
    with scripted.Relay(script) as relay:
        report = run(send(opportunistic(relay, authority)))
        assert (report.stage, report.tls) == (Stage.DOT, "")
        report = run(send(opportunistic(relay, authority, seen=True)))
        assert report.stage in (Stage.STARTTLS, Stage.EHLO)
    assert len(relay.messages) == 1


@pytest.mark.parametrize("script", [{}, {"ehlo": "502 what?"}], ids=["EHLO", "HELO"])
def test_opportunistic_never_goes_without_where_a_certificate_is_pinned(
    script: Mapping[str, Any], authority: Authority
) -> None:
    with scripted.Relay(script) as relay:
        report = run(send(replace(opportunistic(relay, authority), tls_pins=("0" * 64,))))
    assert report.stage in (Stage.STARTTLS, Stage.EHLO)
    assert "before" not in report.fault
    assert not any(line.startswith("MAIL") for line in relay.commands)


def test_a_pin_without_tls_is_a_fault_of_the_settings(authority: Authority) -> None:
    with scripted.Relay() as relay:
        report = run(send(replace(account(relay, tls="none"), tls_pins=("0" * 64,))))
    assert (report.stage, relay.sessions) == (Stage.LOCAL, [])
    assert "without TLS the relay shows none" in str(report.reply)


def test_what_was_said_before_tls_is_forgotten(authority: Authority) -> None:
    """In clear it offers what a thief would like; behind TLS it offers nothing."""
    script = {"ehlo-tls": "250-relay.example\r\n250 SIZE 1000"}
    with scripted.Relay(script, tls="starttls", context=good(authority), credentials={"ann": PASSWORD}) as relay:
        settings = account(relay, tls="starttls", ca_file=authority.file, username="ann", password=PASSWORD)
        report = run(send(settings))
    assert (report.stage, report.reply and report.reply.code) == (Stage.AUTH, 504)
    assert sum(line.startswith("EHLO") for line in relay.commands) == 2


def test_nothing_of_it_is_left_where_there_is_only_helo_behind_tls(authority: Authority) -> None:
    with scripted.Relay({"ehlo-tls": "502 what?"}, tls="starttls", context=good(authority)) as relay:
        report = run(send(account(relay, tls="starttls", ca_file=authority.file)))
    assert report.stage is Stage.DOT
    assert "MAIL FROM:<shop@example.com>" in relay.commands, "SIZE was offered in clear only"


def test_a_login_is_not_said_in_clear_because_starttls_was_not_offered() -> None:
    settings = Relay("relay.example", 587, "opportunistic", username="ann", password=Secret(PASSWORD))
    for mechanism in ("auto", "cram-md5", "scram-sha-256", "xoauth2", "oauthbearer", "login"):
        session = smtp.Session(replace(settings, mechanism=mechanism))
        offer = b"250-relay.example\r\n250 AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256 XOAUTH2 OAUTHBEARER\r\n"
        peer = Peer({b"EHLO": offer})
        report = peer.play(Dialogue(session), opening(session))
        assert report is not None
        assert (report.stage, report.reply and report.reply.status) == (Stage.AUTH, "5.7.11")
        assert peer.said == [b"EHLO localhost\r\n"]


@pytest.mark.parametrize(("tls", "offered"), [("starttls", True), (None, False)])
def test_whether_starttls_was_offered_is_remembered(tls: str | None, offered: bool, authority: Authority) -> None:
    async def story(relay: scripted.Relay) -> bool:
        connection = await connect(opportunistic(relay, authority))
        await connection.close()
        return connection.starttls_offered

    with scripted.Relay(tls=tls, context=good(authority)) as relay:
        assert run(story(relay)) is offered


class Coalescing:
    """Makes a relay with TLS 1.2 send its banner in one segment with the end of the handshake."""

    def __init__(self, context: ssl.SSLContext, banner: bytes) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.banner = banner

    def __call__(self, session: Session, line: str) -> Answer:
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                session.socket.sendall(self.outgoing.read())
                self.incoming.write(session.socket.recv(65536))
        self.tls.write(self.banner)
        session.socket.sendall(self.outgoing.read())
        session.drain(session.socket)
        return DROP


def test_a_banner_in_one_segment_with_the_end_of_the_handshake_is_heard(authority: Authority) -> None:
    peer = Coalescing(good(authority), b"554 5.3.2 go away\r\n")
    with scripted.Relay({"connect": peer}, tls="implicit", context=good(authority)) as relay:
        report = run(send(account(relay, tls="implicit", ca_file=authority.file)))
    assert (report.stage, str(report.reply)) == (Stage.BANNER, "554 5.3.2 go away")


def test_before_a_pin_is_compared_nothing_is_heard(authority: Authority) -> None:
    peer = Coalescing(good(authority), b"220 relay.example\r\n")
    with scripted.Relay({"connect": peer}, tls="implicit", context=good(authority)) as relay:
        report = run(send(replace(account(relay, tls="implicit"), tls_pins=("00" * 32,))))
    assert (report.stage, report.reply) == (Stage.TLS, None)
    assert "is not the pinned one" in report.fault
    assert TO_ANN.return_path.encode() not in relay.sessions[0].clear
    assert HELLO.data not in relay.sessions[0].clear
