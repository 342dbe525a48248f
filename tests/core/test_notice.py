"""Notices, against the standard library's parser and a bounce processor's (flufl.bounce)."""

from __future__ import annotations

import email.message
import email.policy
from dataclasses import replace
from datetime import UTC, datetime
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
