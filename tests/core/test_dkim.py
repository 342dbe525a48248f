"""DKIM signatures, as dkimpy verifies them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dkim as dkimpy
import pytest
from dkim.canonicalization import Relaxed
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.core.dkim import WIDTH, Algorithm, DkimKey, canonical_body, canonical_fields, sign
from outbox.core.message import Attachment, Message
from outbox.core.render import render
from tests.core import strategies
from tests.signatures import BOTH, DOMAIN, Zone, private, ready, record, zone

AT = datetime(2026, 3, 1, 9, 30, 0, 250_000, tzinfo=UTC)
SHOP = Message(7, "0a" * 16, AT, "shop@example.com", recipients="Ann <ann@example.net>", subject="Order 7")
TEXT = replace(SHOP, text_body="Thanks.\n")
HEADERS = '{"List-Unsubscribe": "<https://shop.example/u>", "X-Order": "7", "In-Reply-To": "<1@example.com>"}'
RAW_HEADER = b"From: shop@example.com\r\nTo: ann@example.net\r\nDate: Sun, 1 Mar 2026 09:30:00 +0000\r\n"

SHAPES = {
    "a text": TEXT,
    "a text in quoted-printable": replace(SHOP, text_body="Grüße  an\t alle \n\n\n" + "x" * 2000),
    "html and text": replace(TEXT, html_body="<p>Thanks.</p>\n\n"),
    "files": replace(TEXT, attachments=(Attachment("ä.bin", bytes(range(256)) * 9), Attachment("b", b"", "text/csv"))),
    "a folded subject": replace(TEXT, subject="Order " * 60 + "Grüße"),
    "many recipients": replace(TEXT, recipients=", ".join(f"Ann {n} <ann{n}@example.net>" for n in range(200))),
    "own headers": replace(TEXT, headers=HEADERS),
    "an international header": replace(TEXT, recipients="jürgen@bücher.example"),
    "lines of dots": replace(SHOP, text_body=".\n..\n.x\n\n.\n"),
    "empty lines at the end": replace(SHOP, text_body="a\n\n\n\n \n\t\n"),
    "nothing but empty lines": replace(SHOP, text_body="\n\n\n"),
    "raw, without a body": replace(SHOP, raw=RAW_HEADER + b"\r\n"),
    "raw, with an empty body": replace(SHOP, raw=RAW_HEADER + b"\r\n\r\n\r\n"),
    "raw, in eight bits": replace(
        SHOP, raw=RAW_HEADER + "Subject: Grüße\r\n\r\nGrüße \t an  alle\n\xff".encode() + b"\xe4"
    ),
    "raw, without an end": replace(SHOP, raw=RAW_HEADER + b"\r\nno line end  "),
    "raw, oddly folded": replace(
        SHOP, raw=RAW_HEADER + b"SUBJECT:  \r\n\tOrder \t 7\r\n   and\r\n more  \r\nReferences:\r\n <a@b>\r\n\r\nx\n"
    ),
    "raw, with fields that come again": replace(
        SHOP, raw=b"List-Id: one\r\n" + RAW_HEADER + b"List-Id: two\r\nComments: a\r\nList-Id: three\r\n\r\nx\n"
    ),
    "raw, resent": replace(
        SHOP, raw=b"Resent-From: shop@example.com\r\nResent-To: bob@example.net\r\n" + RAW_HEADER + b"\r\nx"
    ),
}


def signed(message: Message, *algorithms: Algorithm) -> bytes:
    return sign(render(message).data, [ready(each) for each in algorithms or BOTH], message.created_at)


@pytest.mark.parametrize("shape", SHAPES)
def test_another_implementation_verifies_both_signatures(shape: str) -> None:
    message = signed(SHAPES[shape])

    assert zone().checks(message) == [True, True]
    assert message.endswith(render(SHAPES[shape]).data)


@settings(max_examples=60)
@given(strategies.messages(created_at=st.just(AT)))
def test_another_implementation_verifies_whatever_is_composed(message: Message) -> None:
    data = signed(message, Algorithm.ED25519)

    assert zone().checks(data) == [True]


@settings(max_examples=200)
@given(st.data())
def test_one_octet_changed_and_the_signature_does_not_hold(data: st.DataObject) -> None:
    message = signed(replace(TEXT, headers=HEADERS), Algorithm.ED25519)
    # Not what nobody signs: the line ends and white space that relays may change, names of fields, X-Order.
    start = message.index(b"\r\nDate: ")
    whole = [at for at in range(start, len(message)) if 64 < message[at] < 127]
    unsigned = message.index(b"X-Order")
    places = [at for at in whole if not unsigned <= at < message.index(b"\r\n", unsigned)]
    place = data.draw(st.sampled_from(places))
    changed = bytearray(message)
    changed[place] = ord("!")

    assert zone().checks(bytes(changed)) == [False]


@pytest.mark.parametrize("tag", [b"d=", b"s=", b"t=", b"h=", b"bh=", b"b="])
def test_a_tag_changed_and_the_signature_does_not_hold(tag: bytes) -> None:
    message = signed(TEXT, Algorithm.ED25519)
    at = re.search(rb"[ \n]" + tag + rb"(?=.)", message)
    assert at is not None
    changed = bytearray(message)
    changed[at.end()] = ord("0") if changed[at.end()] != ord("0") else ord("1")

    assert zone().checks(bytes(changed)) == [False]


@pytest.mark.parametrize("field", ["From", "To", "Cc", "Subject", "Reply-To", "Date", "Message-ID", "Content-Type"])
def test_a_second_field_of_a_name_that_people_see_breaks_the_signature(field: str) -> None:
    message = signed(TEXT, Algorithm.ED25519)

    assert zone().checks(f"{field}: somebody@else.example\r\n".encode() + message) == [False]
    assert zone().checks(b"Received: by mx\r\nX-Spam: no\r\n" + message) == [True]


@pytest.mark.parametrize(
    "name", ["List-X;q=", "List-X;bh=aa", "list-;l=0;z=x", "List-X;d=evil.example", "List-;", "List-x=y"]
)
def test_a_field_whose_name_has_a_semicolon_does_not_end_the_list_of_what_is_signed(name: str) -> None:
    """RFC 5322 allows it in a name, and a tag of a signature ends with it (RFC 6376 §3.2)."""
    assert zone().checks(signed(replace(TEXT, headers=json.dumps({name: "x", "List-Id": "y"})))) == [True, True]
    raw = f"{name}: x\r\nContent-{name}: y\r\n".encode() + RAW_HEADER + b"\r\nx\r\n"
    assert zone().checks(signed(replace(SHOP, raw=raw))) == [True, True]


def test_the_same_message_has_the_same_signatures_in_every_attempt() -> None:
    again = replace(SHAPES["files"])

    assert signed(SHAPES["files"]) == signed(again)


def test_a_signature_says_who_signed_and_when_the_message_was_made() -> None:
    field = signed(TEXT, Algorithm.RSA).partition(b"\r\nDate: ")[0]
    tags = dict(tag.split("=", 1) for tag in re.sub(r"\s", "", field.decode().partition(":")[2]).split(";"))

    assert tags.pop("b")
    assert tags.pop("bh")
    assert tags.pop("h").split(":").count("from") == 2
    assert tags == {
        "v": "1",
        "a": "rsa-sha256",
        "c": "relaxed/relaxed",
        "d": "example.com",
        "s": "rsa",
        "t": str(int(AT.timestamp())),
    }


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("domain", [DOMAIN, "a" * 60 + ".example.com"])
def test_a_signature_is_folded_to_78_columns(shape: str, domain: str) -> None:
    data = render(SHAPES[shape]).data
    message = sign(data, [ready(each, domain, "outbox-rsa-202603") for each in BOTH], AT)
    lines = message[: len(message) - len(data)].decode().split("\r\n")

    assert max(map(len, lines)) <= WIDTH
    assert lines.pop() == ""
    assert [line for line in lines if not line.startswith((" ", "DKIM-Signature: v=1;")) or not line.strip()] == []


def test_a_domain_as_long_as_a_domain_can_be_is_signed_for() -> None:
    domain = ".".join(["x" * 61] * 4)[:230]
    algorithm = Algorithm.ED25519
    message = sign(render(TEXT).data, [ready(algorithm, domain)], AT)

    assert Zone(record(algorithm, domain)).checks(message) == [True]
    assert max(map(len, message.split(b"\r\n"))) == len(f" d={domain};")


def test_without_keys_a_message_stays_as_it_is() -> None:
    data = render(TEXT).data

    assert sign(data, [], AT) is data


# -- a message that somebody has signed before


def presigned(domain: str) -> bytes:
    """A raw message with a signature of dkimpy's own."""
    plain = render(TEXT).data
    field: bytes = dkimpy.sign(
        plain, b"other", domain.encode(), private(Algorithm.RSA).reveal().encode(), include_headers=[b"from"]
    )
    return field + plain


def test_a_message_that_another_domain_has_signed_is_signed_as_well() -> None:
    raw = presigned("esp.example")
    message = signed(replace(SHOP, raw=raw), Algorithm.ED25519)
    records = record(Algorithm.ED25519), record(Algorithm.RSA, "esp.example", "other")

    assert Zone(*records).checks(message) == [True, True]


@pytest.mark.parametrize("domain", ["example.com", "Example.COM"])
def test_a_message_that_its_own_domain_has_signed_stays_as_it_is(domain: str) -> None:
    raw = presigned(domain)

    assert signed(replace(SHOP, raw=raw)) == raw
    assert Zone(record(Algorithm.RSA, domain, "other")).checks(raw) == [True]


@pytest.mark.parametrize(
    "field", [b"dkim-signature: v=1;\r\n\td = \r\n example.com ; s=x", b"DKIM-Signature:d=example.com"]
)
def test_the_domain_of_a_signature_is_found_however_it_is_written(field: bytes) -> None:
    raw = field + b"\r\n" + RAW_HEADER + b"\r\nx\r\n"

    assert sign(raw, [ready(Algorithm.ED25519)], AT) == raw


@pytest.mark.parametrize(
    "field", [b"DKIM-Signature: v=1; bd=example.com", b"X-Not: d=example.com", b"DKIM-Signature: no"]
)
def test_what_only_looks_like_a_signature_of_the_domain_does_not_count(field: bytes) -> None:
    raw = field + b"\r\n" + RAW_HEADER + b"\r\nx\r\n"

    assert zone().checks(sign(raw, [ready(Algorithm.ED25519)], AT))[0]


# -- canonicalisation, against dkimpy's

white = st.text(" \t", max_size=4)
pieces = st.one_of(white, st.sampled_from([".", "a", "=", "é", "b c", "  d\t\te"]))
line_texts = st.lists(pieces, max_size=6).map("".join)
body_texts = st.lists(line_texts, max_size=8).map(lambda lines: "".join(f"{line}\r\n" for line in lines).encode())


@settings(max_examples=500)
@given(body_texts)
def test_bodies_are_canonical_as_another_implementation_has_them(body: bytes) -> None:
    assert canonical_body(body) == Relaxed.canonicalize_body(body)


def test_a_last_line_without_an_end_counts_as_if_the_relay_had_given_it_one() -> None:
    assert canonical_body(b"a \r\n b\t ") == canonical_body(b"a \r\n b\t \r\n") == b"a\r\n b\r\n"


field_names = st.text("abcdefXYZ-0", min_size=1, max_size=10)
folds = st.tuples(st.sampled_from([" ", "\t"]), line_texts.filter(str.strip)).map("".join)
field_values = st.tuples(line_texts, st.lists(folds, max_size=3)).map(lambda parts: "\r\n".join((parts[0], *parts[1])))


@settings(max_examples=500)
@given(st.lists(st.tuples(field_names, field_values), max_size=6))
def test_headers_are_canonical_as_another_implementation_has_them(fields: list[tuple[str, str]]) -> None:
    block = "".join(f"{name}:{value}\r\n" for name, value in fields).encode()
    theirs = Relaxed.canonicalize_headers([(name.encode(), f"{value}\r\n".encode()) for name, value in fields])

    assert canonical_fields(block) == [(name, name + b":" + value) for name, value in theirs]


def test_white_space_between_name_and_colon_does_not_count() -> None:
    assert canonical_fields(b"Subject \t : a\r\n") == [(b"subject", b"subject:a\r\n")]


def test_times_count_in_whole_seconds_wherever_they_are_said() -> None:
    data = render(TEXT).data
    key = ready(Algorithm.ED25519)

    assert sign(data, [key], AT) == sign(data, [key], AT - timedelta(milliseconds=250))
    assert sign(data, [key], AT) != sign(data, [key], AT + timedelta(seconds=1))


GOLDEN = [
    " h=list-id:from:date:from:to:cc:subject:reply-to:list-id:date;",
    " bh=Ck5SoRNWUpSR4X0COv7R5ub2pUTtl6xz4dTFz++ji4M=;",
    " b=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc",
    " 4OTo7PD0+P0BBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fYGFiY2RlZmdoaWprbG1ub3Bx",
    " cnN0dXZ3eHl6e3x9fn+AgYKDhIWGh4iJiouMjY6PkJGSk5SVlpeYmZqbnJ2en6ChoqOkpaanqKmqq",
    " 6ytrq+wsbKztLW2t7i5uru8vb6/wMHCw8TFxsc=",
]
"""Of 200 octets, 0 to 199: each line as full as it may be."""


@pytest.mark.parametrize(
    ("domain", "beginning"),
    [
        ("b.example", ["DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=b.example;", " s=s1; t=1772366400;"]),
        (
            "d" * 60 + ".example",
            [
                "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;",
                f" d={'d' * 60}.example;",
                " s=s1; t=1772366400;",
            ],
        ),
    ],
)
def test_a_signature_is_folded_within_78_characters_and_no_earlier(domain: str, beginning: list[str]) -> None:
    data = b"Date: x\r\nFrom: a@b.example\r\nX-Other: q\r\nList-Id: <b.example>\r\n\r\nbody  \r\n\r\n"
    at = datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=UTC)
    key = DkimKey(domain, "s1", Algorithm.RSA, lambda _: bytes(range(200)))
    field = sign(data, [key], at).removesuffix(data).decode()
    assert field.split("\r\n") == [*beginning, *GOLDEN, ""]
