"""An account's settings as the wire has them: what is refused before a connection is made, and how long is waited."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from outbox.core.account import Account, Mechanism, Tls
from outbox.core.networks import Networks
from outbox.core.outcome import Stage
from outbox.core.secret import Secret
from outbox.smtp.dial import settings_flaw
from outbox.smtp.relay import MECHANISMS, TLS_MODES, Deadlines, Relay

PIN = "ab" * 32
RELAY = Relay("smtp.example.com", 587, "starttls", helo="client.example", username="ann", password=Secret("pencil"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"tls": "ssl"}, "TLS mode 'ssl' is not one of implicit, starttls, opportunistic, none"),
        ({"mechanism": "ntlm"}, "mechanism 'ntlm' is not one of auto, "),
        ({"port": 0}, "port 0 is not between 1 and 65535"),
        ({"port": 1}, ""),
        ({"port": 65535}, ""),
        ({"port": 65536}, "port 65536 is not between 1 and 65535"),
        ({"tls_pins": (PIN,)}, ""),
        ({"tls_pins": (PIN.upper(),)}, ""),
        ({"tls_pins": (PIN, PIN[1:])}, f"TLS pin '{PIN[1:]}' is not the SHA-256 of a certificate, 64 hex digits"),
        ({"tls_pins": (PIN + "a",)}, "TLS pin "),
        ({"tls_pins": ("g" * 64,)}, "TLS pin "),
        ({"tls_pins": (PIN,), "tls": "none"}, "a certificate is pinned, and without TLS the relay shows none"),
        ({"tls_pins": (PIN,), "tls": "opportunistic"}, ""),
        ({"helo": ""}, "EHLO name '' is not a word of ASCII"),
        ({"helo": "my host"}, "EHLO name 'my host' is not a word of ASCII"),
        ({"helo": "j\u00f6rg.example"}, "EHLO name "),
        ({"helo": "[192.0.2.1]"}, ""),
        ({"username": "ann\0"}, "the user name or password contains NUL or a broken character"),
        ({"username": "ann\udcff"}, "the user name or password contains NUL"),
        ({"password": Secret("pen\0cil")}, "the user name or password contains NUL"),
        ({"password": Secret("pen\ud800cil")}, "the user name or password contains NUL"),
        ({"password": Secret("pen\ue000\u00e9cil")}, ""),
        ({"host": ""}, "host '' is not a host name"),
        ({"host": ".example.com"}, "host '.example.com' is not a host name"),
        ({"host": "a b"}, "host 'a b' is not a host name"),
        ({"host": "x" * 64 + ".example"}, "host 'xxx"),
        ({"host": "b\u00fccher.example"}, ""),
        ({"host": "mail_relay"}, ""),
        ({"host": "192.0.2.1"}, ""),
        ({"host": "169.254.1.1"}, "host 169.254.1.1: it is link-local"),
        ({"host": "192.168.1.1", "networks": Networks.parse(["public"])}, "host 192.168.1.1: "),
        ({"host": "smtp.example.com", "networks": Networks.parse(["public"])}, ""),
    ],
)
def test_a_flaw_is_told_before_anybody_is_called(change: dict[str, Any], words: str) -> None:
    flaw = replace(RELAY, **change).flaw()
    assert flaw.startswith(words)
    assert bool(flaw) == bool(words)


def test_every_mode_and_mechanism_is_one() -> None:
    assert TLS_MODES == ("implicit", "starttls", "opportunistic", "none")
    assert [replace(RELAY, tls=each).flaw() for each in TLS_MODES] == [""] * 4
    assert [replace(RELAY, mechanism=each).flaw() for each in MECHANISMS] == [""] * len(Mechanism)


def test_a_file_of_authorities_that_cannot_be_read_is_a_flaw_where_tls_is_used(tmp_path: Path) -> None:
    gone, nonsense = tmp_path / "gone.pem", tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    relay = replace(RELAY, ca_file=str(gone))
    assert settings_flaw(relay) == f"CA file {gone}: No such file or directory"
    assert settings_flaw(replace(relay, tls="none")) == ""
    assert settings_flaw(replace(relay, tls_pins=(PIN,))) == ""  # nobody's word is taken but the certificate's own
    assert settings_flaw(replace(relay, port=0)).startswith("port 0")
    assert settings_flaw(replace(relay, ca_file=str(nonsense))).startswith(f"CA file {nonsense}: NO_CERTIFICATE")
    assert settings_flaw(RELAY) == ""


@pytest.mark.parametrize(
    ("tls", "seen", "pins", "required"),
    [
        ("starttls", False, (), True),
        ("starttls", True, (PIN,), True),
        ("opportunistic", False, (), False),
        ("opportunistic", True, (), True),
        ("opportunistic", False, (PIN,), True),
        ("implicit", True, (PIN,), False),
        ("none", True, (PIN,), False),
    ],
)
def test_when_starttls_is_required(tls: str, seen: bool, pins: tuple[str, ...], required: bool) -> None:
    assert replace(RELAY, tls=tls, starttls_seen=seen, tls_pins=pins).requires_starttls is required


def test_a_relay_is_what_its_account_says() -> None:
    account = Account(
        "main",
        "smtp.example.com",
        465,
        Tls.IMPLICIT,
        Mechanism.LOGIN,
        "ann",
        ca_file="/etc/ca.pem",
        tls_pins=f"{PIN}  {PIN.upper()}",
        starttls_seen_at=datetime(2026, 3, 1, tzinfo=UTC),
        max_messages=7,
    )
    networks = Networks.parse(["public"])
    relay = Relay.of(account, helo="client.example", password=Secret("pencil"), networks=networks)
    assert {name: value for name, value in _fields(relay).items() if name not in ("nonce", "password")} == {
        "host": "smtp.example.com",
        "port": 465,
        "tls": "implicit",
        "helo": "client.example",
        "ca_file": "/etc/ca.pem",
        "mechanism": "login",
        "username": "ann",
        "max_messages": 7,
        "tls_pins": (PIN, PIN.upper()),
        "starttls_seen": True,
        "networks": networks,
    }
    assert relay.password.reveal() == "pencil"
    assert not Relay.of(replace(account, starttls_seen_at=None), helo="x", password=Secret()).starttls_seen


def test_two_relays_that_say_the_same_are_the_same_and_their_chance_is_not() -> None:
    same = replace(RELAY)
    assert (same, hash(same)) == (RELAY, hash(RELAY))
    assert hash(replace(RELAY, port=25)) != hash(RELAY)
    assert replace(RELAY, username="bob") != RELAY
    assert replace(RELAY, nonce=lambda: "x") == RELAY
    assert "pencil" not in repr(RELAY)
    assert "nonce" not in repr(RELAY)
    assert RELAY.nonce() != RELAY.nonce()


def test_how_long_is_waited() -> None:
    """RFC 5321 §4.5.3.2 with Postfix's and our own cuts: what the docstring and docs/delivery.md speak of."""
    waited = {30: "connect starttls tls", 60: "banner ehlo auth", 120: "mail rcpt data", 180: "body", 600: "dot"}
    waited |= {10: "rset", 2: "quit"}
    assert _fields(Deadlines()) == {name: seconds for seconds, names in waited.items() for name in names.split()}


def test_each_stage_has_its_own_deadline() -> None:
    names = [each.name for each in dataclasses.fields(Deadlines)]
    known = Deadlines(**{name: float(place) for place, name in enumerate(names)})
    assert known.by_stage() == {
        Stage(name): float(place) for place, name in enumerate(names) if name not in ("connect", "tls")
    }


def _fields(of: Any) -> dict[str, Any]:
    return {each.name: getattr(of, each.name) for each in dataclasses.fields(of)}
