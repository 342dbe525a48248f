"""What hardly ever happens, and what is said then: found where coverage showed that no test went, or a mutant lived."""

from __future__ import annotations

import email.message
from datetime import UTC, datetime
from typing import Any

import pytest

from outbox.core.account import Tls, is_loopback, parse_relay
from outbox.core.address import MAX_ADDRESS, MAX_LOCAL, ascii_domain, parse_address_list
from outbox.core.dkim_key import MAX_SELECTOR, checked_selector, signing_domain
from outbox.core.fate import Fate, Trial, fates_of
from outbox.core.header import split_block
from outbox.core.meaning import INTERMEDIATE, LATER, NEVER, POSITIVE, SILENCE
from outbox.core.message import Attachment, Message, Recipient, recipients_of
from outbox.core.outcome import Report, Stage
from outbox.core.raw import written
from outbox.core.render import render
from outbox.core.reply import Reply
from outbox.core.secret import Secret
from outbox.core.staging import Mode
from outbox.core.words import address_field
from outbox.errors import InvalidMessage


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("smtp.example.com", ("smtp.example.com", 587)),
        ("smtp.example.com:1", ("smtp.example.com", 1)),
        ("smtp.example.com:65535", ("smtp.example.com", 65535)),
        ("[::1]:25", ("::1", 25)),
        ("[0:0:0:0:0:0:0:1]", ("::1", 587)),
    ],
)
def test_where_a_relay_is(text: str, place: tuple[str, int]) -> None:
    assert parse_relay(text, Tls.STARTTLS) == place


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not HOST:PORT"),
        ("smtp.example.com:", "is not HOST:PORT"),
        ("::1", "is not HOST:PORT"),
        ("smtp.example.com:0", "port 0 is not between 1 and 65535"),
        ("smtp.example.com:65536", "port 65536 is not between 1 and 65535"),
    ],
)
def test_where_no_relay_can_be(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_relay(text, Tls.STARTTLS)


def test_a_key_is_published_in_the_senders_own_domain() -> None:
    assert signing_domain("Shop@Example.COM") == signing_domain("*@example.com") == "example.com"
    with pytest.raises(ValueError, match="no DNS"):
        signing_domain("shop@[192.0.2.1]")


def test_a_selector_is_what_a_name_in_the_dns_can_begin_with() -> None:
    assert checked_selector("S1.Two-3", "example.com") == "s1.two-3"
    assert checked_selector("s" * MAX_SELECTOR, "example.com") == "s" * MAX_SELECTOR
    for selector in ("", "-s", "s-", "s..t", "s_t", "s" * (MAX_SELECTOR + 1)):
        with pytest.raises(ValueError, match="is not a selector"):
            checked_selector(selector, "example.com")
    with pytest.raises(ValueError, match="longer than"):
        checked_selector("s" * MAX_SELECTOR, ".".join(["d" * 62] * 4))


def test_an_acceptance_of_anything_but_the_dot_is_none() -> None:
    """Whatever mistake of ours would report it so: nobody has the message."""
    trial = Trial((Recipient(0, "ann@example.net", "to"),), Report(Stage.DOT, Reply(250, "2.0.0", "queued")))
    (fate,) = fates_of(trial)
    assert fate.fate is Fate.DEFERRED


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (b"To: a@b.example", "does not end with a line end"),
        (b" folded\r\nTo: a@b.example\r\n", "begins with a continuation line"),
        (b"To: a@b.example\r\nno field\r\n", "line 2 of its header"),
    ],
)
def test_a_header_that_is_none(block: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split_block(block)


def test_a_header_of_nothing_has_no_fields() -> None:
    assert split_block(b"") == []


def test_a_message_that_cannot_be_written_is_refused_in_words() -> None:
    message = email.message.EmailMessage()
    message["Subject"] = "Order 7"
    message.set_payload(object())  # type: ignore[call-overload] # as somebody's code does
    with pytest.raises(ValueError, match="it cannot be written: "):
        written(message)
    with pytest.raises(ValueError, match="not str"):
        written("Subject: Order 7")  # type: ignore[arg-type]


def test_a_raw_message_has_its_attachments_inside() -> None:
    columns: dict[str, Any] = {"attachments": (Attachment("a.txt", b"a", "text/plain", ""),)}
    raw = b"From: shop@example.com\r\nTo: ann@example.net\r\n\r\nThanks\r\n"
    message = Message(1, "t" * 32, datetime(2026, 3, 1, tzinfo=UTC), "shop@example.com", raw=raw, **columns)
    with pytest.raises(InvalidMessage, match="attachments inside"):
        render(message)


def test_a_long_name_of_plain_words_is_folded_between_them() -> None:
    name = " ".join(["word"] * 20)
    (address,) = parse_address_list(f'"{name}" <ann@example.net>')
    field = address_field("To", [address])
    assert field.replace("\r\n", "") == f"To: {name} <ann@example.net>"
    assert max(map(len, field.split("\r\n"))) <= 78


def test_a_local_part_of_64_octets_is_the_longest() -> None:
    (address,) = parse_address_list("x" * MAX_LOCAL + "@example.net")
    assert address.email == "x" * 64 + "@example.net"
    with pytest.raises(ValueError, match="64"):
        parse_address_list("x" * (MAX_LOCAL + 1) + "@example.net")


def test_an_address_of_254_octets_is_the_longest() -> None:
    domain = ".".join(["d" * 60] * 4)  # 243
    (address,) = parse_address_list("x" * 10 + "@" + domain)
    assert len(address.email) == MAX_ADDRESS == 254
    with pytest.raises(ValueError, match="longer than 254"):
        parse_address_list("x" * 11 + "@" + domain)


def test_a_domain_of_255_characters_is_looked_at_and_a_longer_one_is_not() -> None:
    with pytest.raises(ValueError, match="longer than 255"):
        ascii_domain("d" * 256)
    assert ascii_domain(".".join(["d" * 63] * 3 + ["d" * 61])).count("d") == 250


def test_clean_is_what_everybody_who_was_asked_is_part_of() -> None:
    queued = Reply(250, "2.0.0", "queued")
    assert Report(Stage.DOT, queued, dotted=True).is_clean
    assert Report(Stage.DOT, queued, recipients=(queued, queued), dotted=True).is_clean
    for unclean in (
        Report(Stage.DOT, queued, recipients=(queued, None), dotted=True),
        Report(Stage.DOT, queued, recipients=(Reply(550, "5.1.1", "no"), queued), dotted=True),
        Report(Stage.DOT, queued),
        Report(Stage.DOT, Reply(354, "", "go on"), dotted=True),
        Report(Stage.DATA, queued, dotted=True),
        Report(Stage.DOT, None, dotted=True),
    ):
        assert not unclean.is_clean


def test_every_code_is_of_one_kind() -> None:
    kinds = [SILENCE, POSITIVE, INTERMEDIATE, LATER, NEVER]
    assert {code: [code in kind for kind in kinds].count(True) for code in (0, *range(200, 600))} == dict.fromkeys(
        (0, *range(200, 600)), 1
    )
    assert [sorted(kind)[0] for kind in kinds] == [0, 200, 300, 400, 500]
    assert [sorted(kind)[-1] for kind in kinds] == [0, 299, 399, 499, 599]


@pytest.mark.parametrize(("host", "is_here"), [("localhost.", True), ("LOCALHOST", True), ("localhost.example", False)])
def test_what_cannot_leave_this_machine(host: str, is_here: bool) -> None:
    assert is_loopback(host) is is_here


def test_a_staging_mode_is_written_as_it_is_documented() -> None:
    assert [str(mode) for mode in Mode] == ["live", "redirect", "allowlist", "off"]


def test_a_secret_is_shown_as_one() -> None:
    assert (repr(Secret("pencil")), f"{Secret('pencil'):>10}") == ("<secret>", "  <secret>")


@pytest.mark.parametrize("name", ["From", "Sender", "Reply-To", "To", "Cc", "Bcc"])
def test_an_international_address_is_written_as_it_is(name: str) -> None:
    """And not as an encoded-word, which means nothing in an address."""
    message = email.message.EmailMessage()
    message["Subject"] = "Order 7"
    message[name] = "j\u00f6rg@example.net"
    message.set_content("Thanks")
    assert "j\u00f6rg@example.net".encode() in written(message)


@pytest.mark.parametrize("recipients", ["ann@example.net", "ann@example.net, bob@example.net"])
def test_recipients_are_counted_from_nought_however_many_they_are(recipients: str) -> None:
    """What an earlier attempt has written of one is found by its place."""
    created = datetime(2026, 3, 1, tzinfo=UTC)
    message = Message(1, "t" * 32, created, "shop@example.com", recipients=recipients, subject="Order 7", text_body="T")
    assert [each.position for each in recipients_of(message)] == list(range(recipients.count("@")))
