"""Signing in to a relay that checks, by each mechanism."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode, b64encode

import pytest

from outbox.core.outcome import Stage
from outbox.smtp.sasl import ITERATIONS
from outbox.smtp.session import Derive
from tests import relay as scripted
from tests.smtp.sending import account, run, send

TOKEN = "ya29." + "aB3-_~+/" * 20 + "=="
EVERY = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER")


@pytest.mark.parametrize("mechanism", EVERY)
@pytest.mark.parametrize("username", ["ann", "a=n,n@example.com"])
def test_a_relay_signs_us_in(mechanism: str, username: str) -> None:
    with scripted.Relay(credentials={username: TOKEN}, mechanisms=(mechanism,)) as peer:
        wanted = mechanism.lower() if "OAUTH" in mechanism else "auto"
        report = run(send(account(peer, username=username, password=TOKEN, mechanism=wanted)))
    assert report.stage is Stage.DOT, report
    assert peer.messages[0].session.user == username


@pytest.mark.parametrize("mechanism", EVERY)
def test_a_wrong_password_is_one_attempt(mechanism: str) -> None:
    with scripted.Relay(credentials={"ann": "right"}, mechanisms=EVERY) as peer:
        report = run(send(account(peer, username="ann", password="wrong", mechanism=mechanism.lower())))
    assert (report.stage, report.reply and report.reply.code) == (Stage.AUTH, 535)
    assert sum(line.startswith("AUTH") for line in peer.commands) == 1
    assert "wrong" not in f"{report}".replace("wrong credentials", "")


def test_the_loop_goes_on_while_a_key_is_worked_out() -> None:
    """600,000 iterations are a fifth of a second: so long nobody else's mail may wait."""
    assert any(_longest_pause() < _seconds_of_a_key() / 2 for _ in range(5))


def _seconds_of_a_key() -> float:
    began = time.perf_counter()
    Derive(b"secret", b"salt", ITERATIONS[-1]).run()
    return time.perf_counter() - began


def _longest_pause() -> float:
    """Of a coroutine that asks for the time as often as it may, while another signs in."""

    async def story(relay: scripted.Relay) -> float:
        signing = asyncio.ensure_future(send(account(relay, username="ann", password="secret")))
        pauses, last = [0.0], time.perf_counter()
        while not signing.done():
            await asyncio.sleep(0.001)
            pauses.append((now := time.perf_counter()) - last)
            last = now
        assert signing.result().stage is Stage.AUTH  # the relay does not go on
        return max(pauses)

    asking = f"r=NONCErelay,s={b64encode(b'salt').decode()},i={ITERATIONS[-1]}"

    def answer(session: scripted.Session, line: str) -> str:
        nonce = b64decode(line.split()[2]).decode().rpartition("r=")[2]
        session.send("334 " + b64encode(asking.replace("NONCE", nonce).encode()).decode())
        assert session.line()
        return "535 5.7.8 no"

    with scripted.Relay({"auth": answer}, credentials={"ann": "x"}, mechanisms=("SCRAM-SHA-256",)) as relay:
        return asyncio.run(story(relay))


def test_a_relay_that_is_silent_or_talks_while_a_key_is_worked_out_is_a_report() -> None:
    script = {"response": [("334 x", "250 and more")]}
    with scripted.Relay(script, credentials={"ann": "x"}, mechanisms=("SCRAM-SHA-256",)) as peer:
        report = run(send(account(peer, username="ann", password="x")))
    assert report.stage is Stage.AUTH
    assert report.fault


def test_a_relay_that_repeats_a_password_later_is_not_quoted() -> None:
    """It knows the password; the record of its replies is for people who do not."""
    password = "correct horse"
    sent = b64encode(f"\0ann\0{password}".encode()).decode()
    script = {"rcpt": f"250 2.1.5 hello ann, {password}", "dot": f"550 5.7.1 I know {sent}"}
    with scripted.Relay(script, credentials={"ann": password}, mechanisms=("PLAIN",)) as peer:
        report = run(send(account(peer, username="ann", password=password)))
    assert str(report.reply) == "550 5.7.1 I know <secret>"
    assert str(report.recipients[0]) == "250 2.1.5 hello ann, <secret>"
