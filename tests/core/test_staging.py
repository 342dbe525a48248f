"""Staging: where mail really goes."""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes, policy

import pytest

from outbox.core.fate import Fate, Trial, fates_of
from outbox.core.message import Recipient
from outbox.core.outcome import Report, Scope, Stage, Verdict
from outbox.core.reply import Reply
from outbox.core.staging import MEANT_FOR, Mode, Staging

ANN, BOB = Recipient(0, "ann@example.net", "to"), Recipient(1, "bob@Example.ORG", "bcc")
LIVE = Staging()
REDIRECT = Staging(Mode.REDIRECT, "qa@staging.example")
ALLOWLIST = Staging(Mode.ALLOWLIST, allow=("Ann@example.net", "*@bücher.example"))
OFF = Staging(Mode.OFF)
DATA = b"Subject: x\r\n\r\n.\r\n"


def test_only_off_claims_nothing() -> None:
    assert [each.claims for each in (LIVE, REDIRECT, ALLOWLIST, OFF)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("mode", "redirect_to", "allow", "fault"),
    [
        (Mode.REDIRECT, "", (), "mode redirect needs redirect_to"),
        (Mode.REDIRECT, "qa", (), "no @"),
        (Mode.ALLOWLIST, "", (), "mode allowlist needs allow"),
        (Mode.ALLOWLIST, "", ("ann@example.net", "example.net"), "allow: 'example.net' is neither an address nor"),
        (Mode.ALLOWLIST, "", ("*",), r"allow: '\*' is neither"),
    ],
)
def test_settings_that_would_not_hold_are_refused(
    mode: Mode, redirect_to: str, allow: tuple[str, ...], fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        Staging(mode, redirect_to, allow)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("ann@example.net", True),
        ("ANN@EXAMPLE.NET", True),
        ("x@xn--bcher-kva.example", True),
        ("bob@example.net", False),
        ("ann@sub.example.net", False),
        ("ann@example.net.evil.example", False),
        ("x@y.xn--bcher-kva.example", False),
    ],
)
def test_an_allowlist_lets_exactly_its_addresses_and_domains_through(address: str, allowed: bool) -> None:
    assert ALLOWLIST.allows(address) == allowed
    assert LIVE.allows(address)
    assert not OFF.allows(address)


def test_who_is_not_allowed_bounces_and_it_is_said_who_says_so() -> None:
    fate = ALLOWLIST.withheld(BOB)

    assert (fate.recipient, fate.fate, fate.stage) == (BOB, Fate.BOUNCED, Stage.POLICY)
    assert (fate.outcome.verdict, fate.outcome.scope) == (Verdict.BOUNCE, Scope.RECIPIENT)
    assert str(fate.reply) == (
        "5.7.1 not sent, says Outbox: staging allowlist: bob@Example.ORG is not in [deliver] allow"
    )


def test_live_changes_nothing() -> None:
    report = Report(Stage.DOT, Reply(250), recipients=(Reply(250), Reply(550)), dotted=True)
    fates = fates_of(Trial((ANN, BOB), report))

    assert LIVE.envelope([ANN, BOB]) == ("ann@example.net", "bob@Example.ORG")
    assert LIVE.labelled(DATA, [ANN, BOB]) is DATA
    assert LIVE.spread(report, [ANN, BOB]) is report
    assert LIVE.told(fates) == fates


def test_redirected_mail_goes_once_to_one_address_and_says_for_whom_it_was() -> None:
    assert REDIRECT.envelope([ANN, BOB]) == ("qa@staging.example",)
    labelled = REDIRECT.labelled(DATA, [ANN, BOB])
    assert labelled == b"X-Outbox-Meant-For: ann@example.net, bob@Example.ORG\r\n" + DATA


def test_of_many_recipients_ten_are_named_and_the_others_counted() -> None:
    many = [Recipient(n, f"someone.with.a.long.name{n}@example.net", "to") for n in range(1011)]
    labelled = REDIRECT.labelled(DATA, many)
    value = message_from_bytes(labelled, policy=policy.SMTP)[MEANT_FOR]

    assert value == ", ".join([each.address for each in many[:10]]) + ", and 1,001 more"
    assert max(map(len, labelled.split(b"\r\n"))) <= 78
    assert b"more" not in REDIRECT.labelled(DATA, many[:10])


def test_an_address_in_another_script_keeps_the_header_in_ascii() -> None:
    labelled = REDIRECT.labelled(DATA, [replace(ANN, address="jürgen@example.net")])

    assert labelled.isascii()
    assert message_from_bytes(labelled, policy=policy.SMTP)[MEANT_FOR] == "jürgen@example.net"


def test_what_a_relay_says_of_the_one_address_becomes_of_all_and_says_so() -> None:
    accepted = Report(Stage.DOT, Reply(250, "2.0.0", "queued"), recipients=(Reply(250),), dotted=True)
    fates = REDIRECT.told(fates_of(Trial((ANN, BOB), REDIRECT.spread(accepted, [ANN, BOB]))))

    assert [(each.recipient, each.fate) for each in fates] == [(ANN, Fate.ACCEPTED), (BOB, Fate.ACCEPTED)]
    assert {str(each.reply) for each in fates} == {"250 2.0.0 redirected to qa@staging.example: 250 2.0.0 queued"}


@pytest.mark.parametrize(
    ("report", "fate", "words"),
    [
        (
            Report(Stage.RCPT, Reply(550, "5.1.1", "who?"), recipients=(Reply(550, "5.1.1", "who?"),)),
            Fate.BOUNCED,
            "550 5.1.1 redirected to qa@staging.example: 550 5.1.1 who?",
        ),
        (Report(Stage.CONNECT, fault="refused"), Fate.DEFERRED, "redirected to qa@staging.example: refused"),
        (Report(Stage.DOT, fault="silence", dotted=True), Fate.DOUBT, "redirected to qa@staging.example: silence"),
    ],
)
def test_a_fault_of_the_one_address_is_everybodys(report: Report, fate: Fate, words: str) -> None:
    fates = REDIRECT.told(fates_of(Trial((ANN, BOB), REDIRECT.spread(report, [ANN, BOB]))))

    assert [(each.fate, str(each.reply)) for each in fates] == [(fate, words)] * 2


def test_the_address_is_used_as_smtp_says_it() -> None:
    assert Staging(Mode.REDIRECT, "QA <qa@bücher.example>").envelope([ANN]) == ("qa@xn--bcher-kva.example",)
