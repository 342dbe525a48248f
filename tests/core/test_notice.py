"""Notices, against the standard library's parser and a bounce processor's (flufl.bounce)."""

from __future__ import annotations

import email.message
import email.policy
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes
from typing import Any

import pytest
from flufl.bounce import all_failures
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.message import Message
from outbox.core.notice import MOST_HEADER, MOST_RECIPIENTS, Action, Notice, Unreached, compose
from outbox.core.render import render

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BOB = Unreached("bob@example.net", 550, "5.1.1", "no such user", "mx.example.net[192.0.2.1]:25", NOON)
NOTICE = Notice(
    sender="postmaster@example.com",
    to="ann@example.com",
    reporting="mail.example.com",
    action=Action.FAILED,
    recipients=(BOB,),
    enqueued_at=NOON,
    seed="7.8",
    subject="Order 7",
    message_id="<7.abc@example.com>",
    envelope_id="order+7",
    header=b"From: ann@example.com\r\nTo: bob@example.net\r\nSubject: Order 7\r\n",
)


def parsed(notice: Notice) -> email.message.EmailMessage:
    """The whole notice as its row becomes a message, parsed."""
    raw = compose(notice)
    assert raw.isascii()
    data = render(Message(9, "abc", NOON, notice.sender, raw=raw, return_path="<>", recipients=notice.to)).data
    message = message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    assert [part.defects for part in message.walk() if part.defects] == []
    return message


def status(message: email.message.EmailMessage) -> list[dict[str, str]]:
    """The blocks of the delivery status."""
    _, part, _ = message.iter_parts()
    blocks = part.get_payload()
    assert isinstance(blocks, list)
    return [dict(block.items()) for block in blocks]  # type: ignore[union-attr]


def text(message: email.message.EmailMessage, place: int) -> str:
    content = list(message.iter_parts())[place].get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode()


def test_a_failure_is_a_report_in_three_parts() -> None:
    message = parsed(NOTICE)
    assert (message.get_content_type(), message.get_param("report-type")) == ("multipart/report", "delivery-status")
    kinds = [part.get_content_type() for part in message.iter_parts()]
    assert kinds == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    assert message["From"] == "Mail Delivery System <postmaster@example.com>"
    assert (message["To"], message["Subject"]) == ("ann@example.com", "Undelivered mail: Order 7")
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == message["References"] == "<7.abc@example.com>"
    assert message["Date"] is not None
    assert message["Message-ID"].startswith("<9.abc@")


def test_programs_read_what_became_of_each_recipient() -> None:
    about, bob = status(parsed(NOTICE))
    assert about == {
        "Original-Envelope-Id": "order+7",
        "Reporting-MTA": "dns; mail.example.com",
        "Arrival-Date": "Sun, 01 Mar 2026 12:00:00 +0000",
    }
    assert bob == {
        "Original-Recipient": "rfc822; bob@example.net",
        "Final-Recipient": "rfc822; bob@example.net",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.net",
        "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
        "Last-Attempt-Date": "Sun, 01 Mar 2026 12:00:00 +0000",
    }


def test_a_bounce_processor_finds_who_failed_and_who_is_only_late() -> None:
    people = (BOB, Unreached("carl@example.net"))
    raw = compose(replace(NOTICE, recipients=people))
    late, failed = all_failures(message_from_bytes(raw))
    assert (sorted(late), sorted(failed)) == ([], [b"bob@example.net", b"carl@example.net"])
    late, failed = all_failures(message_from_bytes(compose(replace(NOTICE, action=Action.DELAYED))))
    assert (sorted(late), sorted(failed)) == ([b"bob@example.net"], [])


def test_people_read_the_same() -> None:
    said = text(parsed(replace(NOTICE, subject="Größe 7")), 0)
    for words in ("could not be delivered", "Größe 7", "<bob@example.net>\n    550 5.1.1 no such user"):
        assert words in said.replace("\r\n", "\n")


def test_the_header_of_the_original_goes_back() -> None:
    assert text(parsed(NOTICE), 2) == NOTICE.header.decode()
    header = "From: ann@example.com\r\nSubject: Größe 7\r\n"
    assert text(parsed(replace(NOTICE, header=header.encode())), 2) == header


def test_a_long_header_is_cut_between_lines() -> None:
    header = b"X-Filler: filler\r\n" * 5000
    returned = text(parsed(replace(NOTICE, header=header)), 2).encode()
    assert MOST_HEADER - 30 < len(returned) <= MOST_HEADER
    assert header.startswith(returned)
    assert returned.endswith(b"\r\n")


def test_of_erased_mail_its_name_goes_back() -> None:
    assert text(parsed(replace(NOTICE, header=b"", subject="")), 2) == "Message-ID: <7.abc@example.com>\r\n"
    assert text(parsed(replace(NOTICE, header=b"", subject="", message_id="")), 2) == ""


@pytest.mark.parametrize(
    ("notice", "each", "expected"),
    [
        (NOTICE, Unreached("b@example.net", 554), "5.0.0"),
        (NOTICE, Unreached("b@example.net"), "5.0.0"),
        (NOTICE, Unreached("b@example.net", 550, "nonsense"), "5.0.0"),
        (replace(NOTICE, gave_up=True), Unreached("b@example.net"), "5.4.7"),
        (replace(NOTICE, gave_up=True), Unreached("b@example.net", 450, "4.2.0"), "4.2.0"),
        (replace(NOTICE, action=Action.DELAYED), Unreached("b@example.net"), "4.0.0"),
        (replace(NOTICE, action=Action.DELAYED), Unreached("b@example.net", 535, "5.7.8"), "4.7.8"),
    ],
)
def test_there_is_always_a_status(notice: Notice, each: Unreached, expected: str) -> None:
    assert status(parsed(replace(notice, recipients=(each,))))[1]["Status"] == expected


def test_our_own_words_are_not_called_a_relays() -> None:
    each = Unreached("bob@example.net", 0, "5.7.1", "sender not registered", "", None)
    block = status(parsed(replace(NOTICE, recipients=(each,))))[1]
    assert block["Diagnostic-Code"] == "X-Outbox; 5.7.1 sender not registered"
    assert "Remote-MTA" not in block


def test_an_address_in_another_script_is_written_in_seven_bits() -> None:
    block = status(parsed(replace(NOTICE, recipients=(replace(BOB, address="jörg@example.net"),))))[1]
    assert block["Final-Recipient"] == r"utf-8; j\x{F6}rg@example.net"


def test_of_very_many_recipients_the_first_are_told_and_the_others_counted() -> None:
    many = [replace(BOB, address=f"p{number}@example.net") for number in range(MOST_RECIPIENTS + 3)]
    message = parsed(replace(NOTICE, recipients=many))
    assert len(status(message)) == 1 + MOST_RECIPIENTS
    assert "and 3 more recipients" in text(message, 0)


def test_what_people_read_is_short_and_complete() -> None:
    long = "x" * 2000
    notice = replace(NOTICE, subject=long, message_id=long, recipients=(replace(BOB, address=long, text=long),))
    said = text(parsed(notice), 0).replace("\r\n", "\n").split("\n")
    assert said[2:] == [
        f"    Subject: {long[:500]}",
        f"    Message-ID: {long[:500]}",
        "    Enqueued: Sun, 01 Mar 2026 12:00:00 +0000",
        "",
        f"<{long[:320]}>",
        f"    {('550 5.1.1 ' + long)[:1200]}",
        "",
    ]
    assert parsed(notice)["Subject"] == f"Undelivered mail: {long[:200]}"
    assert parsed(replace(NOTICE, subject=""))["Subject"] == "Undelivered mail"
    assert parsed(replace(NOTICE, action=Action.DELAYED))["Subject"] == "Delayed mail: Order 7"


def test_the_first_words_say_what_has_become_of_it() -> None:
    def first(**change: Any) -> str:
        return text(parsed(replace(NOTICE, **change)), 0).split("\r\n\r\n")[0].replace("\r\n", " ")

    assert first().startswith("Your message could not be delivered to the recipients below. It is not tried any more.")
    assert first(gave_up=True).startswith("Your message was given up")
    delayed = first(action=Action.DELAYED)
    assert delayed.startswith("Your message has not been delivered yet")
    assert first(action=Action.DELAYED, gave_up=True) == delayed


def test_what_is_told_of_whom_has_its_bounds() -> None:
    assert (MOST_RECIPIENTS, MOST_HEADER) == (500, 65536)
    everybody = [replace(BOB, address=f"p{number}@example.net") for number in range(MOST_RECIPIENTS)]
    assert "more recipients" not in text(parsed(replace(NOTICE, recipients=everybody)), 0)
    line = b"X-Filler: " + b"f" * 501 + b"\r\n"  # 513 octets
    exact = line * 127 + b"X-Filler: " + b"f" * 373 + b"\r\n"
    assert len(exact) == MOST_HEADER
    assert text(parsed(replace(NOTICE, header=exact)), 2).encode() == exact
    assert text(parsed(replace(NOTICE, header=exact + b"X: y\r\n")), 2).encode() == exact
    assert text(parsed(replace(NOTICE, header=exact[:-2] + b"f\r\n")), 2).encode() == exact[:-385]


def test_a_header_that_no_mail_can_carry_does_not_go_back() -> None:
    header = b"X-Filler: " + b"f" * 1200 + b"\r\n"
    returned = text(parsed(replace(NOTICE, header=header)), 2)
    assert returned == "Message-ID: <7.abc@example.com>\r\nSubject: Order 7\r\n"
    assert text(parsed(replace(NOTICE, header=b"", message_id="no id")), 2) == "Subject: Order 7\r\n"


def test_moments_are_told_in_utc_and_whole_seconds() -> None:
    there = datetime(2026, 3, 1, 17, 30, 0, 999_999, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    about, bob = status(parsed(replace(NOTICE, enqueued_at=there, recipients=(replace(BOB, at=there),))))
    assert about["Arrival-Date"] == bob["Last-Attempt-Date"] == "Sun, 01 Mar 2026 12:00:00 +0000"
    _, bob = status(parsed(replace(NOTICE, recipients=(replace(BOB, at=None),))))
    assert "Last-Attempt-Date" not in bob


@pytest.mark.parametrize(
    ("code", "relay", "host"),
    [
        (550, "mx.example.net[192.0.2.1]:25", "dns; mx.example.net"),
        (550, "mx.example.net:25", "dns; mx.example.net"),
        (550, "", None),
        (0, "mx.example.net[192.0.2.1]:25", None),
        (399, "mx.example.net", "dns; mx.example.net"),
    ],
)
def test_whose_words_they_are(code: int, relay: str, host: str | None) -> None:
    _, bob = status(parsed(replace(NOTICE, recipients=(replace(BOB, code=code, status="", relay=relay),))))
    assert bob.get("Remote-MTA") == host
    assert bob["Diagnostic-Code"] == (f"smtp; {code} no such user" if code else "X-Outbox; no such user")
    assert bob["Status"] == "5.0.0"


def test_of_a_recipient_of_whom_nothing_was_said_nothing_is_told() -> None:
    _, bob = status(parsed(replace(NOTICE, recipients=(Unreached("bob@example.net"),))))
    assert bob.keys() == {"Original-Recipient", "Final-Recipient", "Action", "Status"}
    said = text(parsed(replace(NOTICE, recipients=(Unreached("bob@example.net"),))), 0)
    assert said.endswith("<bob@example.net>\r\n")


def test_an_envelope_without_an_id_has_none() -> None:
    about, _ = status(parsed(replace(NOTICE, envelope_id="")))
    assert list(about) == ["Reporting-MTA", "Arrival-Date"]


def test_a_word_that_is_longer_than_a_line_is_cut() -> None:
    _, bob = status(parsed(replace(NOTICE, recipients=(replace(BOB, text="w" * 1000),))))
    lines = bob["Diagnostic-Code"].split()
    assert [len(each) for each in lines] == [5, 3, 5, 900, 100]
    _, bob = status(parsed(replace(NOTICE, recipients=(replace(BOB, code=0, status="", text="\u00e9\u4e2d"),))))
    assert bob["Diagnostic-Code"] == "X-Outbox; ??"


@pytest.mark.parametrize("change", [{"to": "nobody"}, {"sender": ""}, {"recipients": ()}])
def test_what_cannot_be_told_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"recipient|no @|empty"):
        compose(replace(NOTICE, **change))  # type: ignore[arg-type]


# Whatever a relay said and whatever stood in the database.
words = st.text(max_size=300) | st.sampled_from(
    ["a\r\nAction: delivered", "x\n\n--=_r.7.8--\n\nBcc: eve@example.org", "é" * 400]
)


@given(address=words, said=words, subject=words, name=words, relay=words, code=st.integers(0, 600))
def test_nothing_that_is_told_becomes_a_field_or_a_part(
    address: str, said: str, subject: str, name: str, relay: str, code: int
) -> None:
    each = Unreached(address, code, said, said, relay, NOON)
    notice = replace(NOTICE, recipients=(each,), subject=subject, message_id=name, envelope_id=name, reporting=name)
    raw = compose(notice)
    message = message_from_bytes(raw, policy=email.policy.compat32)
    assert {field.lower() for field in message.keys()} <= {  # noqa: SIM118
        *("from", "to", "subject", "auto-submitted", "in-reply-to", "references", "mime-version", "content-type")
    }
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert len(parts) == 3
    blocks: Any = parts[1].get_payload()  # type: ignore[union-attr]
    about, one = blocks
    assert set(about.keys()) <= {"Original-Envelope-Id", "Reporting-MTA", "Arrival-Date"}
    assert one["Action"] == "failed"
    assert len(one.get_all("Final-Recipient")) == 1
