"""Signed mail, with the runner as people run it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from outbox import keys
from tests.relay import Relay
from tests.running import SHOP, Site, eventually
from tests.signatures import Zone


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay() as running:
        yield running


@pytest.fixture
def key() -> str:
    return keys.new().text


def generate(site: Site, key: str, algorithm: str, sender: str = SHOP) -> str:
    """The DNS record, as it is printed."""
    code, said = site.outbox("sender", "dkim", sender, "--generate", "--algorithm", algorithm, keys=key)
    assert code == 0, said
    (line,) = [line for line in said.splitlines() if " TXT " in line]
    return line


def send(site: Site, *arguments: str, **settings: str) -> None:
    with site.run("--until-empty", *arguments, **settings) as runner:
        assert runner.wait() == 0


def test_signed_mail_arrives_signed_with_the_same_bytes_in_every_attempt(site: Site, relay: Relay, key: str) -> None:
    site.register(relay.port)
    zone = Zone(*(generate(site, key, kind) for kind in ("rsa", "ed25519")))
    relay.script["dot"] = ["451 4.3.0 later"]
    [number] = site.insert(1, text_body="Grüße  an alle \n.\n\n")
    send(site, "--wait", "20s", retry_floor="1s", keys=key)

    (message,) = relay.messages
    assert zone.checks(message.content) == [True, True]
    assert {site.attempt(number, turn)["sha256"] for turn in (1, 2)} == {hashlib.sha256(message.content).hexdigest()}


def test_a_domain_signs_for_its_addresses_and_others_are_not_signed(site: Site, relay: Relay, key: str) -> None:
    site.register(relay.port, sender="*@example.com")
    site.register(relay.port, account="other", sender="*@example.org")
    zone = Zone(generate(site, key, "ed25519", "*@example.com"))
    site.insert(1)
    site.insert(1, sender="news@example.org")
    send(site, keys=key)

    checks = {each.sender: zone.checks(each.content) for each in relay.messages}
    assert checks == {SHOP: [True], "news@example.org": []}


def test_a_key_that_is_made_while_a_runner_runs_is_heard(site: Site, relay: Relay, key: str) -> None:
    site.register(relay.port)
    with site.run(keys=key) as runner:
        runner.started()
        zone = Zone(generate(site, key, "ed25519"))

        def signed() -> bool:
            count = len(relay.messages)
            site.insert(1)
            relay.wait(count + 1)
            return zone.checks(relay.messages[-1].content) == [True]

        eventually(signed, "the key is not heard")
        runner.stop()
        assert runner.wait() == 0


def test_redirected_mail_keeps_its_signature(site: Site, relay: Relay, key: str) -> None:
    site.register(relay.port)
    zone = Zone(generate(site, key, "ed25519"))
    site.insert(1)
    send(site, keys=key, deliver_mode="redirect", deliver_redirect_to="qa@staging.example")

    assert zone.checks(relay.messages[0].content) == [True]


def test_mail_whose_key_does_not_open_waits_and_says_why(site: Site, relay: Relay, key: str) -> None:
    site.register(relay.port)
    generate(site, key, "ed25519")
    [number] = site.insert(1)
    send(site, keys=keys.new().text)

    assert relay.messages == []
    assert site.states() == {"queued": 1}
    assert site.delivery(number)["failures"] == 0
    code, said = site.outbox("sender", "list", "--json")
    assert code == 0
    assert "its DKIM key is sealed with key" in said
    assert site.outbox("sender", "resume", SHOP)[0] == 0
    send(site, keys=key)
    assert site.states() == {"sent": 1}
