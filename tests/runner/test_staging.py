"""A copied production database, started with the staging configuration, mails nobody."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.relay import EXTENSIONS, HANG, Relay
from tests.running import Site, eventually

QA = "qa@staging.example"
REDIRECT = {"deliver_mode": "redirect", "deliver_redirect_to": QA}
ALLOWLIST = {"deliver_mode": "allowlist", "deliver_allow": "ann0@example.net, *@allowed.example"}
OFF = {"deliver_mode": "off"}
RAW = b"From: shop@example.com\r\nTo: raw@example.net\r\nCc: raw2@example.net\r\nSubject: Raw\r\n\r\nThanks\r\n"


class Production:
    """What a copy of a database in the middle of its work holds: mail that waits, that was deferred, that was being
    sent when the copy was made, and that is for many.
    """

    def __init__(self, site: Site, relay: Relay) -> None:
        self.waiting = site.insert(3)
        [self.for_three] = site.insert(
            1, recipients="Ann <ann0@example.net>", cc="bob@example.net", bcc="cyd@allowed.example"
        )
        [self.raw] = site.insert(1, recipients=None, subject=None, text_body=None, raw=RAW)
        relay.script.update({"mail": ["451 4.3.0 later"], "data": HANG})
        with site.run() as runner:  # one is deferred, the others are under way when it dies
            eventually(lambda: any(line == "DATA" for line in relay.commands), "no message under way")
            runner.kill()
        relay.release()
        relay.script.clear()
        self.messages = [*self.waiting, self.for_three, self.raw]
        assert relay.messages == []
        site.query("UPDATE outbox_delivery SET due_at = first_attempt_at WHERE state = 'queued' AND failures > 0")


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay() as running:
        yield running


@pytest.fixture
def copy(site: Site, relay: Relay) -> Production:
    site.register(relay.port)
    return Production(site, relay)


def spoken_to(relay: Relay) -> set[str]:
    """Everybody whom a relay was told to send to."""
    return {line.split("<")[1].split(">")[0] for line in relay.commands if line.upper().startswith("RCPT TO:")}


def fates(site: Site, message_id: int) -> dict[str, tuple[str, str]]:
    rows = site.query("SELECT address, fate, code, status, reply FROM outbox_fate WHERE message_id = ?", message_id)
    return {address: (fate, f"{code or ''} {status} {reply}".strip()) for address, fate, code, status, reply in rows}


def run_staging(site: Site, *arguments: str, **settings: str) -> None:
    with site.run(*(arguments or ("--until-empty",)), **settings) as runner:
        assert runner.wait() == 0


def test_redirect_sends_each_message_once_to_one_address(site: Site, copy: Production, relay: Relay) -> None:
    already = len(relay.commands)
    run_staging(site, "--until-empty", "--wait", "5s", **REDIRECT)

    assert site.states() == {"sent": len(copy.messages)}
    assert {each.recipients for each in relay.messages} == {(QA,)}
    assert len(relay.messages) == len(copy.messages)
    assert [line for line in relay.commands[already:] if "example.net" in line] == []


def test_redirected_mail_says_for_whom_it_was_and_so_do_the_fates(site: Site, relay: Relay) -> None:
    site.register(relay.port)
    [number] = site.insert(1, recipients="Ann <ann@example.net>", cc="bob@example.net", bcc="cyd@example.org")
    run_staging(site, **REDIRECT)

    (message,) = relay.messages
    assert message.content.startswith(b"X-Outbox-Meant-For: ann@example.net, bob@example.net, cyd@example.org\r\n")
    assert site.attempt(number)["sha256"] == hashlib.sha256(message.content).hexdigest()
    told = fates(site, number)
    assert set(told) == {"ann@example.net", "bob@example.net", "cyd@example.org"}
    assert {fate for fate, _ in told.values()} == {"accepted"}
    assert all(f"redirected to {QA}: 250" in words for _, words in told.values())


@pytest.mark.parametrize("asked", ["success,failure,delay", None])
def test_no_return_path_of_production_hears_of_redirected_mail(site: Site, asked: str | None) -> None:
    with Relay(extensions=(*EXTENSIONS, "DSN")) as relay:
        site.register(relay.port)
        site.insert(1, dsn_notify=asked, dsn_ret="full" if asked else None)
        run_staging(site, **REDIRECT)
    (said,) = [line for line in relay.commands if line.startswith("RCPT")]
    assert said.startswith(f"RCPT TO:<{QA}> NOTIFY=NEVER")
    assert not any("RET=" in line for line in relay.commands)


def test_redirected_mail_is_one_copy_however_many_it_is_for(site: Site, relay: Relay) -> None:
    site.register(relay.port)
    [number] = site.insert(1, recipients=", ".join(f"r{place}@example.net" for place in range(250)))
    run_staging(site, **REDIRECT)

    assert [each.recipients for each in relay.messages] == [(QA,)]
    assert b"and 240 more" in relay.messages[0].content
    assert [fate for fate, _ in fates(site, number).values()] == ["accepted"] * 250


def test_redirected_mail_is_tried_again_with_the_same_bytes(site: Site, relay: Relay) -> None:
    relay.script["dot"] = ["451 4.3.0 later"]
    site.register(relay.port)
    assert site.outbox("suppress", "add", "cyd@example.net")[0] == 0
    [number] = site.insert(1, cc="bob@example.net, cyd@example.net")
    run_staging(site, "--until-empty", "--wait", "20s", retry_floor="1s", **REDIRECT)

    assert site.attempt(number, 1)["sha256"] == site.attempt(number, 2)["sha256"]
    assert [each.recipients for each in relay.messages] == [(QA,)]


def test_a_redirection_that_is_refused_is_everybodys_fate(site: Site, relay: Relay) -> None:
    relay.script[f"rcpt:{QA}"] = "550 5.1.1 no such user"
    site.register(relay.port)
    [number] = site.insert(1, cc="bob@example.net")
    run_staging(site, **REDIRECT)

    assert site.states() == {"failed": 1}
    assert set(fates(site, number).values()) == {("bounced", f"550 5.1.1 redirected to {QA}: 550 5.1.1 no such user")}


def test_an_allowlist_reaches_only_those_on_it(site: Site, copy: Production, relay: Relay) -> None:
    already = len(relay.sessions)
    run_staging(site, "--until-empty", "--wait", "5s", **ALLOWLIST)

    said = {line for session in relay.sessions[already:] for line in session.commands if "RCPT" in line.upper()}
    assert all("ann0@example.net" in line or "allowed.example" in line for line in said)
    assert site.states() == {"sent": 1, "failed": len(copy.messages) - 1}
    told = fates(site, copy.for_three)
    assert told["ann0@example.net"][0] == told["cyd@allowed.example"][0] == "accepted"
    assert told["bob@example.net"] == (
        "bounced",
        "5.7.1 not sent, says Outbox: staging allowlist: bob@example.net is not in [deliver] allow",
    )


def test_who_may_reach_nobody_does_not_even_connect(site: Site, relay: Relay) -> None:
    site.register(relay.port)
    site.insert(3)
    run_staging(site, deliver_mode="allowlist", deliver_allow="*@nowhere.example")

    assert relay.sessions == []
    assert site.states() == {"failed": 3}


@pytest.mark.parametrize("errand", ["--once", "--until-empty"])
def test_off_claims_nothing(site: Site, copy: Production, relay: Relay, errand: str) -> None:
    already, attempts = len(relay.sessions), sum(site.attempts().values())
    run_staging(site, errand, **OFF)

    assert len(relay.sessions) == already
    assert sum(site.attempts().values()) == attempts
    assert set(site.states()) <= {"queued", "sending", "held"}
    assert relay.messages == []


def test_a_runner_that_is_off_stays_off_while_mail_arrives(site: Site, relay: Relay) -> None:
    site.register(relay.port)
    with site.run(run_poll="100ms", **OFF) as runner:
        runner.started()
        runner.says(r"WARNING .* \[deliver\] mode is off")
        site.insert(3)
        with site.run("--once", **OFF) as other:  # so that time passes in which the first could have claimed it
            assert other.wait() == 0
        runner.stop()
        assert runner.wait() == 0

    assert relay.sessions == []
    assert site.states() == {"queued": 3}
    assert sum(site.attempts().values()) == 0


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"deliver_mode": "redirect"}, "mode redirect needs redirect_to"),
        ({"deliver_mode": "allowlist"}, "mode allowlist needs allow"),
        ({"deliver_mode": "allowlist", "deliver_allow": "example.net"}, "neither an address nor"),
    ],
)
def test_a_safety_that_would_not_hold_does_not_start(sqlite_site: Site, settings: dict[str, str], fault: str) -> None:
    sqlite_site.insert(1)
    code, said = sqlite_site.outbox("run", "--once", **settings)

    assert code == 3
    assert fault in said
    assert sqlite_site.states() == {"queued": 1}
