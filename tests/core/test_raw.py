"""Messages that arrive complete: opaque, but for line ends, what leaks, and what is missing."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.lines import has_long_line, with_crlf
from outbox.core.message import Message, Recipient, recipients_of, senders_of
from outbox.core.raw import subject_of
from outbox.core.render import message_id, render
from outbox.errors import InvalidMessage
from tests.core.reading import PLAIN

COMPLETE = (
    b"Received: by x\r\n"
    b"From: Shop <shop@example.com>\r\n"
    b"To: ann@example.net,\r\n"
    b"\tbo@example.net\r\n"
    b"Date: Sun, 1 Mar 2026 09:05:07 +0100 (CET)\r\n"
    b"Message-ID: <mine@example.com>\r\n"
    b"Subject: odd   spacing \r\n"
    b" =?utf-8?q?kept?=\r\n"
    b"X-Empty:\r\n"
    b"\r\n"
    b"Body \r\n"
    b"..dots\r\n"
)


def raw(data: bytes, **columns: Any) -> Message:
    return replace(PLAIN, recipients="", subject="", text_body=None, raw=data, **columns)


def test_a_complete_message_goes_out_byte_for_byte() -> None:
    rendered = render(raw(COMPLETE))
    assert rendered.data == COMPLETE
    assert not rendered.smtputf8
    assert not rendered.eight_bit


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_whatever_ends_a_line_becomes_crlf(end: bytes) -> None:
    assert render(raw(COMPLETE.replace(b"\r\n", end))).data == COMPLETE


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"x", b"\r\r\n", b"\xff"]), max_size=30).map(b"".join))
def test_no_bare_line_end_survives_anywhere(body: bytes) -> None:
    data = render(raw(b"From: shop@example.com\nTo: ann@example.net\n\n" + body)).data
    assert data.count(b"\r\n") == data.count(b"\r") == data.count(b"\n")
    assert data.endswith(b"\r\n")


@given(st.lists(st.binary(max_size=40), max_size=20), st.sampled_from([b"\r\n", b"\n"]))
def test_a_body_is_otherwise_untouched(lines: list[bytes], end: bytes) -> None:
    lines = [line.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"") for line in lines] + [b"end"]
    data = render(raw(b"From: shop@example.com" + end * 2 + end.join(lines) + end)).data
    assert data.partition(b"\r\n\r\n")[2].split(b"\r\n") == [*lines, b""]


@pytest.mark.parametrize(
    "leak",
    [
        b"Bcc: hidden@example.org\r\n",
        b"BCC:hidden@example.org\r\n",
        b"bcc : hidden@example.org\r\n",
        b"Bcc: a@example.org,\r\n\thidden@example.org,\r\n  b@example.org\r\n",
        b"Bcc:\r\n hidden@example.org\r\n",
        b"Bcc: a@example.org\r\n \r\n hidden@example.org\r\n",
        b"Resent-Bcc: hidden@example.org\r\n",
        b"Return-Path: <hidden@example.org>\r\n",
        b"X-Sender: hidden@example.org\r\n",
        b"X-Receiver: hidden@example.org NOTIFY=NEVER\r\n",
    ],
)
@pytest.mark.parametrize(
    "place", [0, COMPLETE.index(b"From:"), COMPLETE.index(b"X-Empty"), COMPLETE.index(b"\r\nBody")]
)
def test_what_recipients_may_not_see_is_taken_out_with_its_continuation_lines(leak: bytes, place: int) -> None:
    assert render(raw(COMPLETE[:place] + leak + COMPLETE[place:])).data == COMPLETE


def test_a_bcc_in_the_body_is_the_body() -> None:
    data = COMPLETE + b"Bcc: visible@example.org\r\n"
    assert render(raw(data)).data == data


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_an_mbox_line_is_dropped(end: bytes) -> None:
    assert render(raw(b"From shop@example.com Sun Mar  1 09:05:07 2026" + end + COMPLETE)).data == COMPLETE


def test_an_obsolete_from_field_is_no_mbox_line() -> None:
    data = b"From : shop@example.com\r\nDate: x\r\nMessage-ID: <x@y>\r\n\r\n"
    assert render(raw(data, bcc="ann@example.net")).data == data
    assert senders_of(raw(data)) == ("shop@example.com",)


def test_a_missing_date_and_message_id_are_added_from_the_row_and_nothing_else() -> None:
    data = render(raw(b"From: shop@example.com\n\nx")).data
    assert data == (
        b"From: shop@example.com\r\n"
        b"Date: Sun, 01 Mar 2026 09:05:07 +0000\r\n"
        b"Message-ID: <7.0123456789abcdef@example.com>\r\n"
        b"\r\n"
        b"x\r\n"
    )
    assert message_id(raw(b"From: shop@example.com\n\nx")) == "<7.0123456789abcdef@example.com>"
    assert message_id(raw(COMPLETE)) == "<mine@example.com>"


def test_the_flags_say_what_the_content_needs() -> None:
    body = render(raw(COMPLETE + b"\xe4\xf6\xfc\r\n"))
    assert (body.smtputf8, body.eight_bit) == (False, True)
    header = render(raw(b"Subject: \xc3\xbc\r\n" + COMPLETE))
    assert (header.smtputf8, header.eight_bit) == (True, True)
    assert b"Subject: \xc3\xbc\r\n" in header.data


BAD = {
    "a NUL in the body": COMPLETE + b"\0",
    "a NUL in the header": b"X-A: \0\r\n" + COMPLETE,
    "a line of 999 octets": COMPLETE + b"x" * 999 + b"\r\n",
    "a line of 999 octets without an end": COMPLETE + b"x" * 999,
    "a header line of 999 octets": b"X-A: " + b"x" * 994 + b"\r\n" + COMPLETE,
    "no empty line": COMPLETE.partition(b"\r\n\r\n")[0] + b"\r\n",
    "no header": b"\r\nbody\r\n",
    "only an mbox line": b"From shop@example.com\n",
    "text": b"hello\r\n\r\nworld",
    "a line that is no field": b"From: a@b\r\nnonsense\r\n\r\n",
    "a name with a space": b"From: a@b\r\nX A: b\r\n\r\n",
    "a name that is not ASCII": b"From: a@b\r\nX-\xc3\xbc: b\r\n\r\n",
    "a name that is missing": b"From: a@b\r\n: b\r\n\r\n",
    "a byte order mark": b"\xef\xbb\xbfFrom: a@b\r\n\r\n",
    "a continuation line first": b" x\r\nFrom: a@b\r\n\r\n",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_no_relay_should_see_fails(data: bytes) -> None:
    with pytest.raises(InvalidMessage) as raised:
        render(raw(data))
    assert raised.value.status == "5.6.0"
    assert raised.value.reason


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_an_invalid_message(data: bytes) -> None:
    for read in (render, recipients_of, senders_of, message_id):
        try:
            read(raw(b"From: " + data))
        except InvalidMessage as invalid:
            assert invalid.status  # noqa: PT017 - raising is one of two right answers


def test_lines_of_998_octets_pass_wherever_they_are() -> None:
    lines = [b"x" * 998, b"", b"y" * 998, b"z" * 10, b"w" * 998]
    data = COMPLETE + b"\r\n".join(lines) + b"\r\n"
    assert render(raw(data)).data == data


@given(st.lists(st.sampled_from([0, 1, 500, 997, 998, 999, 1000, 1001, 3000]), max_size=12))
def test_a_long_line_is_found_wherever_it_is(lengths: list[int]) -> None:
    data = b"".join(b"x" * length + b"\r\n" for length in lengths)
    assert has_long_line(data) == any(length > 998 for length in lengths)
    assert has_long_line(data + b"x" * 999)
    assert with_crlf(data) == data


def test_twenty_megabytes_take_time_linear_in_the_size() -> None:
    data = COMPLETE + b"a line of a file that somebody sent\n" * 600_000
    started = time.process_time()
    render(raw(data))
    assert time.process_time() - started < 2


# -- who it is for, and who says it


def test_the_columns_of_the_row_decide_who_gets_it() -> None:
    message = raw(COMPLETE, bcc="carl@example.net, dora@example.net")
    assert [each.address for each in recipients_of(message)] == ["carl@example.net", "dora@example.net"]


def test_without_columns_its_own_header_decides() -> None:
    data = b"Cc: friends: ccc@example.net, Bo <bo@example.net>;\nBcc: hidden@example.org (secret)\n" + COMPLETE
    assert recipients_of(raw(data)) == (
        Recipient(0, "ann@example.net", "to"),
        Recipient(1, "bo@example.net", "to"),
        Recipient(2, "ccc@example.net", "cc"),
        Recipient(3, "hidden@example.org", "bcc"),
    )


def test_a_resent_message_is_for_those_it_was_resent_to_last() -> None:
    data = (
        b"Resent-From: shop@example.com\nResent-Bcc: new@example.net\n"
        b"Resent-From: other@example.org\nResent-To: old@example.net\n" + COMPLETE
    )
    assert [each.address for each in recipients_of(raw(data))] == ["new@example.net"]


def test_a_resent_field_without_recipients_changes_nothing() -> None:
    assert len(recipients_of(raw(b"Resent-From: shop@example.com\n" + COMPLETE))) == 2


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"To: undisclosed-recipients:;", "5.1.0"),
        (b"Subject: for nobody", "5.1.0"),
        (b"To: a b@y", "5.1.3"),
        (b"To: ann@example.net, <x@y> evil", "5.1.3"),
        (b"To: " + b"(" * 60_000, "5.1.3"),
        (b"To: =?utf-8?q?ann=40example.net?=", "5.1.3"),
    ],
)
def test_recipients_that_cannot_be_read_fail_the_message(header: bytes, status: str) -> None:
    with pytest.raises(InvalidMessage) as raised:
        recipients_of(raw(header + b"\n\nx"))
    assert raised.value.status == status


def test_everybody_in_whose_name_it_speaks_is_named() -> None:
    data = (
        b"From: Boss <boss@example.org>, shop@EXAMPLE.com\nSender: (x) secretary@example.org\n"
        b"Resent-From: third@example.org\nResent-Sender: fourth@example.org\n\n"
    )
    assert senders_of(raw(data, return_path="bounces@example.com")) == (
        "shop@example.com",
        "bounces@example.com",
        "boss@example.org",
        "secretary@example.org",
        "third@example.org",
        "fourth@example.org",
    )


@pytest.mark.parametrize(
    "header", [b"From: a b@y", b"From: boss@example.org)shop@example.com", b'From: "x', b"Sender: ("]
)
def test_a_sender_that_cannot_be_read_does_not_go_out(header: bytes) -> None:
    with pytest.raises(InvalidMessage) as raised:
        senders_of(raw(header + b"\n\n"))
    assert raised.value.status == "5.1.7"


# -- the same questions of a composed message


def test_recipients_are_counted_over_to_cc_and_bcc_and_come_once() -> None:
    message = replace(
        PLAIN,
        recipients="Ann <ann@example.net>, ANN@Example.NET",
        cc="bo@münchen.example, ann@example.net",
        bcc="bo@xn--mnchen-3ya.example, ünal@example.net",
    )
    assert recipients_of(message) == (
        Recipient(0, "ann@example.net", "to"),
        Recipient(1, "bo@xn--mnchen-3ya.example", "cc"),
        Recipient(2, "ünal@example.net", "bcc"),
    )


@pytest.mark.parametrize(
    ("columns", "status"),
    [
        ({"recipients": ""}, "5.1.0"),
        ({"recipients": " ", "cc": " "}, "5.1.0"),
        ({"recipients": "ann@example.net", "bcc": "a b@y"}, "5.1.3"),
        ({"recipients": 7}, "5.1.3"),
    ],
)
def test_a_row_without_readable_recipients_fails(columns: dict[str, Any], status: str) -> None:
    with pytest.raises(InvalidMessage) as raised:
        recipients_of(replace(PLAIN, **columns))
    assert raised.value.status == status


@pytest.mark.parametrize(
    ("columns", "senders"),
    [
        ({}, ("shop@example.com",)),
        ({"sender": " Shop@EXAMPLE.com "}, ("shop@example.com",)),
        ({"sender": "shop@München.example"}, ("shop@xn--mnchen-3ya.example",)),
        ({"return_path": "<>"}, ("shop@example.com",)),
        ({"return_path": "bounces@example.com"}, ("shop@example.com", "bounces@example.com")),
    ],
)
def test_the_senders_of_a_composed_message_are_its_columns(columns: dict[str, Any], senders: tuple[str, ...]) -> None:
    assert senders_of(replace(PLAIN, **columns)) == senders


@pytest.mark.parametrize(
    "columns",
    [
        {"sender": "Shop <shop@example.com>"},
        {"sender": "shop"},
        {"sender": None},
        {"return_path": "Shop <shop@example.com>"},
        {"return_path": "a b@y"},
    ],
)
def test_a_sender_or_return_path_that_is_no_bare_address_fails(columns: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage) as raised:
        senders_of(replace(PLAIN, **columns))
    assert raised.value.status == "5.1.7"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"Order 7", "Order 7"),
        (b"=?utf-8?q?Ch=C3=A8re?= maman", "Chère maman"),
        ("Süß".encode(), "Süß"),
        (b"folded\r\n here", "folded here"),
        (b"=?utf-8?q?a=0AX-Evil=3A_b?=", "a X-Evil: b"),
        (b"=?nope?q?x?=", ""),
        (b"=?utf-8?b?a?=", ""),
    ],
)
def test_a_subject_is_read_for_lists_or_left_out(written: bytes, read: str) -> None:
    assert subject_of(b"Subject: " + written + b"\r\n\r\nbody\r\n") == read
