"""The scripted relay itself: honest by default, and it does what its script says."""

from __future__ import annotations

import json
import smtplib
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from tests.relay import DROP, Accept, Flood, Plus, Relay, server_context

MAIL = b"Subject: x\r\nMessage-ID: <1.a@example.com>\r\n\r\n.dots\r\n"


def test_an_honest_relay_takes_mail_and_writes_its_ledger(tmp_path: Path) -> None:
    with Relay(ledger=tmp_path / "ledger") as relay, smtplib.SMTP("127.0.0.1", relay.port, timeout=5) as client:
        client.sendmail("shop@example.com", ["ann@example.net", "bob@example.net"], MAIL)
        message = relay.wait(1)[0]
    assert (message.sender, message.recipients) == ("shop@example.com", ("ann@example.net", "bob@example.net"))
    assert (message.content, message.message_id) == (MAIL, "<1.a@example.com>")
    assert json.loads((tmp_path / "ledger").read_text())["message_id"] == "<1.a@example.com>"
    assert relay.commands[-2:] == [".", "QUIT"] or relay.commands[-2:] == [".", "quit"]


def test_the_script_answers_by_stage_address_and_turn() -> None:
    script = {"mail": ["451 4.3.0 later", None], "rcpt:bob@example.net": "550 5.1.1 unknown"}
    with Relay(script) as relay, smtplib.SMTP("127.0.0.1", relay.port, timeout=5) as client:
        with pytest.raises(smtplib.SMTPSenderRefused):
            client.sendmail("shop@example.com", ["ann@example.net"], MAIL)
        refused = client.sendmail("shop@example.com", ["ann@example.net", "bob@example.net"], MAIL)
    assert refused == {"bob@example.net": (550, b"5.1.1 unknown")}
    assert relay.messages[0].recipients == ("ann@example.net",)


def test_a_message_can_be_accepted_without_an_answer() -> None:
    with Relay({"dot": Accept(DROP)}) as relay:
        client = smtplib.SMTP("127.0.0.1", relay.port, timeout=5)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.sendmail("shop@example.com", ["ann@example.net"], MAIL)
        assert len(relay.messages) == 1


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_it_signs_in_whom_the_standard_library_can(mechanism: str) -> None:
    with Relay(credentials={"ann": "correct horse"}, mechanisms=(mechanism,)) as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=5) as client:
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("ann", "battery staple")
            client.login("ann", "correct horse")
        assert relay.sessions[0].user == "ann"


def test_it_says_too_much_where_its_script_says_so() -> None:
    script = {"ehlo": Plus("250 more"), "noop": Flood(b"250-again\r\n" * 1000)}
    with Relay(script) as relay, socket.create_connection(("127.0.0.1", relay.port), 5) as client:
        said = client.makefile("rb")
        assert said.readline().startswith(b"220 ")
        client.sendall(b"EHLO x\r\n")
        lines = [said.readline() for _ in range(7)]
        assert lines[-2:] == [b"250 ENHANCEDSTATUSCODES\r\n", b"250 more\r\n"]
        client.sendall(b"NOOP\r\n")
        assert len(said.read(1_000_000)) == 1_000_000


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_it_speaks_tls_and_wants_credentials(mode: str) -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    context = server_context(authority.issue_cert("127.0.0.1"))
    with Relay(tls=mode, context=context, credentials={"ann": "grün"}) as relay:
        if mode == "starttls":
            client = smtplib.SMTP("127.0.0.1", relay.port, timeout=5)
            client.starttls(context=trusting)
        else:
            client = smtplib.SMTP_SSL("127.0.0.1", relay.port, timeout=5, context=trusting)
        with client:
            with pytest.raises(smtplib.SMTPSenderRefused):
                client.sendmail("shop@example.com", ["ann@example.net"], MAIL)
            client.user, client.password = "ann", "grün"
            client.docmd("AUTH PLAIN", "AGFubgBncsO8bg==")
            client.sendmail("shop@example.com", ["ann@example.net"], MAIL)
        assert relay.messages[0].session.user == "ann"
