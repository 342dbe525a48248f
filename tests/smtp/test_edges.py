"""What relays hardly ever do, and ours must survive: found where coverage showed that no test went."""

from __future__ import annotations

import asyncio
import errno
import socket
from base64 import b64encode
from dataclasses import replace

import pytest

from outbox.core.dsn import Dsn
from outbox.core.outcome import Envelope, Report, Stage
from outbox.smtp.connection import Connection
from outbox.smtp.dialogue import Dialogue
from outbox.smtp.features import read_features
from outbox.smtp.opening import opening
from outbox.smtp.relay import Relay
from outbox.smtp.sasl import Unacceptable
from outbox.smtp.session import SECURE, Derive, Session
from tests import relay as scripted
from tests.smtp.peer import Peer, session, transact
from tests.smtp.sending import ANN, HELLO, SENDER, account, connect, deadlines, run
from tests.smtp.test_sasl import SERVER_FIRST, play, relay


def test_words_between_the_go_ahead_and_the_handshake_end_it() -> None:
    dialogue = Dialogue(Session(Relay("relay.example", 587, "starttls")))
    dialogue.begin(opening(dialogue.session))
    dialogue.received(b"220 hello\r\n")
    dialogue.received(b"250-relay.example\r\n250 STARTTLS\r\n")
    assert dialogue.received(b"220 go ahead\r\n") is SECURE
    report = dialogue.received(b"250 one more thing\r\n").report  # type: ignore[union-attr]
    assert report is not None
    assert (report.stage, report.fault) == (Stage.TLS, "the relay spoke in clear when TLS was to begin")
    assert not dialogue.session.usable


def test_words_while_a_key_is_worked_out_end_it() -> None:
    dialogue = Dialogue(Session(relay(), loopback=True))
    dialogue.begin(opening(dialogue.session))
    dialogue.received(b"220 hello\r\n")
    dialogue.received(b"250-relay.example\r\n250 AUTH SCRAM-SHA-256\r\n")
    action = dialogue.received(b"334 " + b64encode(SERVER_FIRST.encode()) + b"\r\n")
    assert isinstance(action, Derive)
    report = dialogue.received(b"334 \r\n").report  # type: ignore[union-attr]
    assert report is not None
    assert report.fault == "the relay spoke when it was our turn"


def test_a_login_that_is_called_an_error_and_a_success_is_not_believed() -> None:
    with pytest.raises(Unacceptable, match="an error and a success"):
        play("SCRAM-SHA-256", relay(), SERVER_FIRST, "e=other-error", None)


def test_notifications_that_cannot_be_asked_for_are_refused_by_ourselves() -> None:
    opened, peer = session(), Peer()
    opened.features = replace(opened.features, dsn=True)
    report = transact(peer, opened, Envelope(SENDER, (ANN,), Dsn("sometimes")), HELLO)
    assert (report.stage, report.reply and report.reply.status) == (Stage.MAIL, "5.6.0")
    assert "dsn_notify must be" in str(report.reply)
    assert peer.said == []


def test_what_was_never_connected_can_be_closed() -> None:
    async def story() -> bool:
        connection = Connection(Relay("relay.example", 25, "none"), deadlines())
        await connection.close()
        return connection.usable

    assert run(story())


def test_a_connection_that_is_reset_as_soon_as_it_is_made_is_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(place: scripted.Relay) -> Report:
        async def broken(*_: object, sock: socket.socket, **__: object) -> None:
            sock.close()
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", broken)
        report = await Connection.open(account(place))
        assert isinstance(report, Report)
        return report

    with scripted.Relay() as place:
        report = run(story(place))
    assert report.stage is Stage.CONNECT
    assert "reset by peer" in report.fault


def test_an_address_that_is_named_twice_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(port: int) -> Report:
        async def twice(*_: object, **__: object) -> list[object]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))] * 2

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", twice)
        report = await Connection.open(Relay("mail.example", port, "none"))
        assert isinstance(report, Report)
        return report

    with scripted.Relay() as gone:
        pass
    report = run(story(gone.port))
    assert report.stage is Stage.CONNECT
    assert report.fault.count("127.0.0.1") <= 1


def test_a_connection_says_whom_it_reaches() -> None:
    async def story(place: scripted.Relay) -> tuple[str, str]:
        opened = await connect(account(place))
        try:
            return opened.relay_name, opened.tls_name
        finally:
            await opened.close()

    with scripted.Relay() as place:
        assert run(story(place)) == (f"127.0.0.1[127.0.0.1]:{place.port}", "")


def test_a_size_without_a_number_is_no_limit() -> None:
    assert read_features([b"SIZE", b"8BITMIME"]).size == 0
    assert read_features([b"SIZE 100"]).size == 100
    assert read_features([b"8BITMIME"]).size is None
