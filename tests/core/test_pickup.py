"""What a file of a pickup folder says about its envelope, and what names mean."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.pickup import (
    Envelope,
    Folder,
    Mode,
    bad_names,
    read_envelope,
    sent_names,
    shortened,
    shown,
    without_replayed,
)
from outbox.core.raw import read_fields

MOMENT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


def envelope(header: str, mode: Mode = Mode.PICKUP) -> Envelope:
    return read_envelope(read_fields(f"{header}\r\n\r\nbody\r\n".encode()), mode)


def test_net_writes_x_fields_and_they_are_the_envelope() -> None:
    """System.Net.Mail with SpecifiedPickupDirectory: X-Receiver for To, Cc and Bcc alike."""
    header = (
        "X-Sender: shop@example.com\r\nX-Receiver: ann@example.net\r\nX-Receiver: secret@example.org\r\n"
        "MIME-Version: 1.0\r\nFrom: shop@example.com\r\nTo: ann@example.net\r\nSubject: x"
    )
    assert envelope(header) == Envelope("shop@example.com", ("ann@example.net", "secret@example.org"))


def test_without_x_receiver_the_message_names_its_recipients() -> None:
    assert envelope("From: shop@example.com\r\nTo: ann@example.net") == Envelope("shop@example.com", None)


def test_sender_speaks_before_from() -> None:
    assert envelope("From: a@example.com, b@example.com\r\nSender: b@example.com").sender == "b@example.com"


def test_several_from_and_no_sender_are_refused() -> None:
    with pytest.raises(ValueError, match="say which one"):
        envelope("From: a@example.com, b@example.com\r\nTo: c@example.net")


def test_parameters_of_mail_and_rcpt_are_read() -> None:
    found = envelope(
        "X-Sender: <shop@example.com> BODY=8bitmime RET=HDRS ENVID=order+2D7 auth=<>\r\n"
        "X-Receiver: <ann@example.net> NOTIFY=FAILURE,DELAY ORcpt=rfc822;ann@example.net\r\n"
        "X-Receiver: bo@example.net NOTIFY=NEVER\r\nFrom: shop@example.com"
    )
    assert (found.dsn_ret, found.dsn_envid, found.dsn_notify) == ("hdrs", "order-7", "delay,failure")
    assert found.recipients == ("ann@example.net", "bo@example.net")


def test_the_null_sender_keeps_who_speaks() -> None:
    found = envelope("X-Sender: <>\r\nX-Receiver: a@example.net\r\nFrom: shop@example.com")
    assert (found.sender, found.return_path) == ("shop@example.com", "<>")


def test_a_replayed_file_begins_with_its_envelope() -> None:
    with pytest.raises(ValueError, match="begins with X-Sender"):
        envelope("Subject: x\r\nX-Sender: a@example.com\r\nX-Receiver: b@example.net", Mode.REPLAY)


def test_what_is_behind_the_head_is_no_envelope_of_a_replayed_file() -> None:
    header = "X-Sender: a@example.com\r\nX-Receiver: b@example.net\r\nFrom: a@example.com\r\nX-Receiver: c@example.net"
    assert envelope(header, Mode.REPLAY).recipients == ("b@example.net",)


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_what_is_for_the_server_alone_leaves_a_replayed_file(end: str) -> None:
    lines = [
        "X-Sender: a@example.com",
        "X-CreatedBy: MSExchange",
        " 15",
        "X-HeloDomain: secret.local",
        "From: a@example.com",
        "X-Source: mine",
        "",
        "X-Source: body",
    ]
    kept = [*lines[:1], *lines[4:]]
    assert without_replayed(end.join(lines).encode()) == end.join(kept).encode()


def test_mail_queue_dispatcher_took_everybody_who_is_named() -> None:
    found = envelope(
        "X-Sender: rubbish\r\nX-Sender: shop@example.com\r\nX-Receiver: d@example.net\r\nFrom: x@example.com\r\n"
        "To: a@example.net\r\nCc: b@example.net\r\nBcc: c@example.net",
        Mode.MQD,
    )
    assert found.sender == "shop@example.com"
    assert found.recipients == ("a@example.net", "b@example.net", "c@example.net", "d@example.net")


@pytest.mark.parametrize("text", ["nobody", "<a@example.com", "a b@example.com", "<>"])
def test_an_x_receiver_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        envelope(f"X-Receiver: {text}\r\nFrom: a@example.com")


@pytest.mark.parametrize(
    ("name", "mode", "taken"),
    [
        ("a.eml", Mode.PICKUP, True),
        ("A.EML", Mode.PICKUP, True),
        ("a.txt", Mode.PICKUP, False),
        ("a.txt", Mode.MQD, True),
        ("a", Mode.MQD, True),
        (".a.eml", Mode.MQD, False),
        ("~a.eml", Mode.PICKUP, False),
        ("a.eml.tmp", Mode.MQD, False),
        ("a.eml.bad", Mode.MQD, False),
        ("a.eml~", Mode.MQD, False),
        ("a.bad.json", Mode.MQD, False),
    ],
)
def test_which_names_are_taken(name: str, mode: Mode, taken: bool) -> None:
    assert Folder("in", "/in", "/bad", mode=mode).takes(name) is taken


@pytest.mark.parametrize(
    ("address", "admitted"),
    [("shop@example.com", True), ("Shop@Example.COM", True), ("any@example.org", True), ("ceo@example.com", False)],
)
def test_who_may_send_through_a_folder(address: str, admitted: bool) -> None:
    folder = Folder("in", "/in", "/bad", senders=("shop@example.com", "*@example.org"))
    assert folder.admits(address) is admitted


def test_names_in_sentmail_and_badmail_are_those_people_know() -> None:
    assert list(islice(sent_names("a.eml", MOMENT), 2)) == [
        "2026-03-01_093000-a.eml.sent",
        "2026-03-01_093000-a.eml.sent-2",
    ]
    assert list(islice(bad_names("a.eml", MOMENT), 2)) == ["a.eml.bad", "a.eml.bad-20260301T093000000000"]


@given(st.binary(min_size=1, max_size=400).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_any_name_can_be_stored_and_shortened(raw: bytes) -> None:
    name = raw.decode("utf-8", "surrogateescape")
    shown(name).encode("utf-8")
    assert len(shortened(name).encode("utf-8", "surrogateescape")) <= 180
