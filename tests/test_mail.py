"""What an application may hand over: what a Mail becomes, what it refuses, and that what it takes can be sent."""

from __future__ import annotations

import email
import email.message
import email.policy
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.address import parse_address_list
from outbox.core.message import Message, recipients_of, senders_of
from outbox.core.render import render
from outbox.errors import InvalidMail
from outbox.mail import Attachment, Mail
from tests.core import strategies as some

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
GOOD: dict[str, Any] = {"sender": "shop@example.com", "to": "ann@example.net", "subject": "Order 7", "text": "Thanks"}


def as_row(mail: Mail) -> Message:
    """What the runner reads after the INSERT."""
    columns = mail.columns()
    kept: dict[str, Any] = {name: columns[name] for name in columns if name in Message.__dataclass_fields__}
    return Message(id=7, token="0123456789abcdef", created_at=NOON, attachments=tuple(mail.attachments), **kept)


def test_a_mail_is_its_row() -> None:
    mail = Mail(
        "ann@example.net, Bo <bo@example.net>",
        "Order 7",
        "Thanks",
        sender="Shop & Söhne <shop@example.com>",
        cc=['"Doe, J." <j@example.net>'],
        reply_to="help@example.com",
        html="<p>Thanks",
        headers={"X-Order": "7", "X-Tags": ["a", "ü"]},
        return_path="bounces@example.com",
        priority=2,
        due_at=datetime(2026, 3, 1, 13, tzinfo=timezone(timedelta(hours=1))),
        expires_at=NOON + timedelta(days=1),
        dedup_key="order-7",
        on_doubt="hold",
        tag="orders",
        dsn_notify="failure,delay",
        dsn_ret="hdrs",
        dsn_envid="order 7",
        attachments=[Attachment("a.pdf", b"1", "application/pdf")],
    )
    assert mail.columns() == {
        "priority": 2,
        "on_doubt": "hold",
        "due_at": NOON,
        "expires_at": NOON + timedelta(days=1),
        "dedup_key": "order-7",
        "tag": "orders",
        "dsn_notify": "failure,delay",
        "dsn_ret": "hdrs",
        "dsn_envid": "order 7",
        "sender": "shop@example.com",
        "sender_name": "Shop & Söhne",
        "return_path": "bounces@example.com",
        "recipients": "ann@example.net, Bo <bo@example.net>",
        "cc": '"Doe, J." <j@example.net>',
        "reply_to": "help@example.com",
        "subject": "Order 7",
        "headers": '{"X-Order": "7", "X-Tags": ["a", "ü"]}',
        "text_body": "Thanks",
        "html_body": "<p>Thanks",
    }
    assert mail.attachments == (Attachment("a.pdf", b"1", "application/pdf"),)


def test_what_is_not_given_is_left_to_the_database() -> None:
    assert Mail(**GOOD).columns().keys() == {"priority", "on_doubt", "sender", "recipients", "subject", "text_body"}


def test_what_the_caller_changes_afterwards_does_not_matter() -> None:
    to, headers, files = ["ann@example.net"], {"X-A": ["1"]}, [Attachment("a", b"")]
    mail = Mail(sender="shop@example.com", to=to, text="x", headers=headers, attachments=files)
    before = mail.columns()
    to.append("evil\r\n")
    headers["X-A"].append("\r\n")
    files.clear()
    mail.columns().clear()
    assert mail.columns() == before
    assert len(mail.attachments) == 1


def test_its_repr_says_nothing_of_its_content() -> None:
    mail = Mail(**GOOD | {"text": "secret", "html": "secret", "attachments": [Attachment("a", b"secret")]})
    assert "secret" not in repr(mail)
    assert "ann@example.net" in repr(mail)


@pytest.mark.parametrize("path", ["", "<>"])
def test_the_null_return_path_can_be_asked_for(path: str) -> None:
    assert Mail(**GOOD, return_path=path).columns()["return_path"] == "<>"


def test_only_hidden_recipients_are_recipients() -> None:
    assert Mail(sender="shop@example.com", bcc=["ann@example.net"], text="x").columns()["bcc"] == "ann@example.net"


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("to", {"to": ""}, "no recipient"),
    ("to", {"to": []}, "no recipient"),
    ("to", {"to": "ann"}, "no @"),
    ("to", {"to": "ann@example.net,"}, "empty place"),
    ("to", {"to": ["ann@example.net, evil@example.org"]}, "one address was expected, not 2"),
    ("to", {"to": ["ann@example.net", "a@b\r\nDATA"]}, "control character"),
    ("to", {"to": [b"ann@example.net"]}, "str, not bytes"),
    ("to", {"to": b"ann@example.net"}, "not bytes"),
    ("to", {"to": None}, "not NoneType"),
    ("to", {"to": {"ann@example.net"}}, "not set"),
    ("to", {"to": "ann@example.net, " * 70_000 + "ann@example.net"}, "longer than"),
    ("cc", {"cc": "a b@y"}, "not an address"),
    ("bcc", {"bcc": "friends: a@b.example;"}, "groups"),
    ("reply_to", {"reply_to": "a@b@c"}, "not an address"),
    ("reply_to", {"reply_to": "ann@example.net, " * 700 + "ann@example.net"}, "longer than"),
    ("sender", {"sender": ""}, "empty"),
    ("sender", {"sender": None}, "str, not NoneType"),
    ("sender", {"sender": "shop@example.com, x@y.example"}, "not 2"),
    ("sender", {"sender": "shop@example.com\r\nBcc: x@y"}, "control character"),
    ("sender", {"sender": '"a b"@example.com'}, "quotes"),
    ("sender", {"sender": f"{'x' * 1001} <shop@example.com>"}, "longer than 1000"),
    ("subject", {"subject": "a\nBcc: x@y"}, "line break"),
    ("subject", {"subject": "a\rb"}, "line break"),
    ("subject", {"subject": "a\0b"}, "NUL"),
    ("subject", {"subject": "a\x1bb"}, "control character"),
    ("subject", {"subject": "a\ud800b"}, "surrogate"),
    ("subject", {"subject": "x" * 2001}, "characters"),
    ("subject", {"subject": 7}, "not int"),
    ("text", {"text": None}, "no body"),
    ("text", {"text": ""}, "no body"),
    ("text", {"text": b"Thanks"}, "not bytes"),
    ("text", {"text": "a\0b"}, "NUL"),
    ("text", {"text": "a\udfffb"}, "surrogate"),
    ("text", {"text": "x" * (25 * 1024 * 1024 + 1)}, "characters"),
    ("html", {"html": "ü" * (13 * 1024 * 1024)}, "larger than"),
    ("headers", {"headers": {"X-A": "a\r\nBcc: x@y"}}, "line break"),
    ("headers", {"headers": {"X-A\r\nBcc": "x@y"}}, "not a header name"),
    ("headers", {"headers": {"X-A": ["a", "b\0"]}}, "control character"),
    ("headers", {"headers": {"X-A": 7}}, "a name and a text"),
    ("headers", {"headers": {7: "a"}}, "a name and a text"),
    ("headers", {"headers": {"Bcc": "x@y"}}, "reserved"),
    ("headers", {"headers": {"content-type": "x"}}, "reserved"),
    ("headers", {"headers": [("X-A", "a")]}, "not be a list"),
    ("headers", {"headers": {"X-A": ["a"] * 101}}, "more than 100"),
    ("headers", {"headers": {f"X-{number}": "x" * 65_000 for number in range(5)}}, "larger than"),
    ("return_path", {"return_path": "Bo <bo@example.net>"}, "bare address"),
    ("return_path", {"return_path": "bo"}, "no @"),
    ("priority", {"priority": 10}, "0 "),
    ("priority", {"priority": -1}, "0 "),
    ("priority", {"priority": True}, "0 "),
    ("priority", {"priority": "5"}, "0 "),
    ("priority", {"priority": 5.0}, "0 "),
    ("due_at", {"due_at": datetime(2026, 3, 1, 12)}, "naive"),  # noqa: DTZ001 - that is the point
    ("due_at", {"due_at": "2026-03-01"}, "not str"),
    ("due_at", {"due_at": datetime(1969, 12, 31, tzinfo=UTC)}, "out of range"),
    ("due_at", {"due_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))}, "out of range"),
    ("expires_at", {"expires_at": datetime(9999, 12, 31, tzinfo=UTC)}, "out of range"),
    ("expires_at", {"due_at": NOON, "expires_at": NOON}, "not after due_at"),
    ("dedup_key", {"dedup_key": ""}, "1 to 500"),
    ("dedup_key", {"dedup_key": "x" * 501}, "1 to 500"),
    ("dedup_key", {"dedup_key": 7}, "not int"),
    ("on_doubt", {"on_doubt": "assume_sent"}, "'retry' or 'hold'"),
    ("on_doubt", {"on_doubt": None}, "'retry' or 'hold'"),
    ("tag", {"tag": "x" * 256}, "255"),
    ("dsn_notify", {"dsn_notify": "failure,never"}, "it must be 'never', or of"),
    ("dsn_notify", {"dsn_notify": "delay,delay"}, "it must be 'never', or of"),
    ("dsn_notify", {"dsn_notify": ["failure"]}, "not list"),
    ("dsn_ret", {"dsn_ret": "FULL"}, "'full' or 'hdrs'"),
    ("dsn_envid", {"dsn_envid": "Größe"}, "printable ASCII"),
    ("dsn_envid", {"dsn_envid": "x" * 101}, "at most 100"),
    ("dsn_envid", {"dsn_envid": "7\r\nRCPT TO:<eve@example.org>"}, "printable ASCII"),
    ("attachments", {"attachments": [b"x"]}, "list of Attachment"),
    ("attachments", {"attachments": Attachment("a", b"")}, "list of Attachment"),
    ("attachments", {"attachments": [Attachment("a", "x")]}, "must be bytes"),  # type: ignore[arg-type]
    ("attachments", {"attachments": [Attachment("a\r\nb", b"")]}, "line break"),
    ("attachments", {"attachments": [Attachment("a", b"", "text")]}, "content type"),
    ("attachments", {"attachments": [Attachment("a", b"", "multipart/mixed")]}, "each part"),
    ("attachments", {"attachments": [Attachment("a", b"", "image/png", "<x>")]}, "content_id"),
    ("attachments", {"attachments": [Attachment("a", bytes(25 * 1024 * 1024 + 1))]}, "larger than"),
    ("attachments", {"attachments": [Attachment("a", b"\xff", "message/rfc822")]}, "ASCII"),
    ("attachments", {"html": "x", "attachments": [Attachment("a", b"", "image/png", "x")] * 2}, "two of them"),
    ("raw", {"raw": b"From: shop@example.com\n\nx"}, "inside"),
]


@pytest.mark.parametrize(
    ("field", "wrong", "reason"), REFUSED, ids=[f"{field} {number}" for number, (field, _, _) in enumerate(REFUSED)]
)
def test_what_is_wrong_is_named_with_its_field_before_the_database_sees_it(
    field: str, wrong: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidMail, match=reason) as raised:
        Mail(**(GOOD | wrong))
    assert raised.value.field == field
    assert str(raised.value) == f"{field}: {raised.value.reason}"
    assert len(raised.value.reason) < 400


def test_an_invalid_mail_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="to: "):
        Mail(sender="shop@example.com", text="x")


@given(some.messages(sender=st.builds("{}@{}".format, some.locals_ascii, some.domains)))
def test_what_a_mail_takes_can_be_sent(row: Message) -> None:
    given_fields: dict[str, Any] = {
        "sender": f"{quoted(row.sender_name)} <{row.sender}>",
        "to": row.recipients,
        "cc": row.cc,
        "bcc": row.bcc,
        "reply_to": row.reply_to,
        "subject": row.subject[:2000],
        "text": row.text_body,
        "html": row.html_body,
        "headers": json.loads(row.headers) if row.headers else None,
        "attachments": row.attachments,
    }
    try:
        mail = Mail(**given_fields)
    except InvalidMail as invalid:
        assert invalid.field in ("reply_to", "sender", "text", "html")  # noqa: PT017 - too long, an odd name, or a NUL
        return
    stored = as_row(mail)
    rendered = render(stored)
    assert rendered.data
    assert recipients_of(stored)
    assert senders_of(stored)
    assert parse_address_list(stored.recipients or "x@y")


@given(st.fixed_dictionaries({}, optional={
    "to": some.header_texts, "cc": st.lists(some.header_texts, max_size=2), "subject": st.text(max_size=50),
    "text": st.text(max_size=50), "html": st.text(max_size=50), "tag": st.text(max_size=50),
    "headers": st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=2),
    "attachments": st.lists(st.builds(Attachment, st.text(), st.binary(), st.text(), st.text()), max_size=2),
    "raw": st.binary(max_size=50), "return_path": st.text(max_size=20),
}))  # fmt: skip
def test_anything_is_either_refused_or_can_be_sent(fields: dict[str, Any]) -> None:
    try:
        mail = Mail(**({"sender": "shop@example.com", "bcc": "ann@example.net"} | fields))
    except InvalidMail as invalid:
        assert invalid.field in fields or invalid.field == "text"  # noqa: PT017 - refusing is one of two right answers
    else:
        assert render(as_row(mail)).data


def quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


# -- complete messages


def complete(**headers: str) -> email.message.EmailMessage:
    message = email.message.EmailMessage()
    fields = {"From": "Shop <shop@example.com>", "To": "ann@example.net", "Subject": "Grüße", **headers}
    for name, value in fields.items():
        message[name] = value
    message.set_content("Thanks, Jürgen\n")
    return message


def test_an_email_message_becomes_raw_and_its_bcc_only_envelope() -> None:
    mail = Mail.from_message(complete(Cc="bo@example.net", Bcc="hidden@example.org"), tag="orders", priority=1)
    columns = mail.columns()
    assert columns["recipients"] == "ann@example.net"
    assert columns["cc"] == "bo@example.net"
    assert columns["bcc"] == "hidden@example.org"
    assert columns["sender"] == "shop@example.com"
    assert (columns["tag"], columns["priority"]) == ("orders", 1)
    assert columns["subject"] == "Grüße"  # for lists; what is sent is in raw
    raw = columns["raw"]
    assert isinstance(raw, bytes)
    assert b"hidden@example.org" not in raw
    read = email.message_from_bytes(render(as_row(mail)).data, policy=email.policy.default)
    assert read["Subject"] == "Grüße"
    assert read.get_content().replace("\r\n", "\n") == "Thanks, Jürgen\n"
    assert [each.kind for each in recipients_of(as_row(mail))] == ["to", "cc", "bcc"]


def test_arguments_win_over_the_header() -> None:
    mail = Mail.from_message(complete(), sender="boss@example.com", to=["x@example.net"], bcc="y@example.net")
    columns = mail.columns()
    assert columns["sender"] == "boss@example.com"
    assert (columns["recipients"], columns["bcc"]) == ("x@example.net", "y@example.net")
    assert "cc" not in columns


def test_bytes_are_taken_as_they_are() -> None:
    columns = Mail.from_message(b"From: shop@example.com\nTo: ann@example.net\n\nx\n").columns()
    assert columns["raw"] == b"From: shop@example.com\r\nTo: ann@example.net\r\n\r\nx\r\n"


def test_the_sender_field_speaks_for_several_authors() -> None:
    message = complete(Sender="secretary@example.com")
    message.replace_header("From", "a@example.com, b@example.com")
    assert Mail.from_message(message).columns()["sender"] == "secretary@example.com"


def test_the_older_kind_of_message_is_one_too() -> None:
    message = email.message_from_string("From: shop@example.com\nTo: ann@example.net\n\nx\n")
    assert Mail.from_message(message).columns()["recipients"] == "ann@example.net"


def test_a_local_part_in_another_script_stays_one() -> None:
    mail = Mail.from_message(complete(Cc="jürgen@example.net"))
    assert mail.columns()["cc"] == "jürgen@example.net"
    assert render(as_row(mail)).smtputf8


@pytest.mark.parametrize(
    ("message", "field", "reason"),
    [
        (b"", "message", "no empty line"),
        (b"From: shop@example.com\nTo: ann@example.net\n", "message", "no empty line"),
        (b"From: shop@example.com\nTo: ann@example.net\n\n\0", "message", "NUL"),
        (b"From: shop@example.com\nTo: ann@example.net\n\n" + b"x" * 999, "message", "998"),
        (b"From: a@example.com, b@example.com\nTo: ann@example.net\n\n", "sender", "names 2"),
        (b"To: ann@example.net\n\n", "sender", "names 0"),
        (b"From: shop@example.com\nTo: a b@y\n\n", "to", "not an address"),
        (b"From: shop@example.com\n\n", "to", "no recipient"),
        ("From: shop@example.com\n\n", "message", "not str"),
        (None, "message", "not NoneType"),
    ],
)
def test_a_complete_message_that_is_none_is_refused(message: Any, field: str, reason: str) -> None:
    with pytest.raises(InvalidMail, match=reason) as raised:
        Mail.from_message(message)
    assert raised.value.field == field


def test_an_email_message_that_writes_more_fields_than_it_has_is_refused() -> None:
    """CVE-2024-6923, made by hand so that it is the same on every Python."""

    class Leaky(email.message.EmailMessage):
        def as_bytes(self, *arguments: Any, **options: Any) -> bytes:
            return b"Bcc: injected@example.org\n" + super().as_bytes(*arguments, **options)

    message = Leaky()
    message["From"], message["To"] = "shop@example.com", "ann@example.net"
    with pytest.raises(InvalidMail, match="other fields"):
        Mail.from_message(message)


@pytest.mark.parametrize("subject", ["A 💩 =?UTF-8?Q?=0A?=Bcc: injected@example.org", "=?utf-8?q?Hi=0ABcc=3A_x=40y?="])
def test_the_injections_of_the_standard_library_do_not_get_through(subject: str) -> None:
    message = complete()
    message.replace_header("Subject", subject)
    try:
        mail = Mail.from_message(message)
    except InvalidMail:
        return  # this Python has the bug, and it was seen
    data = render(as_row(mail)).data
    assert b"\nBcc" not in data
    assert [each.address for each in recipients_of(as_row(mail))] == ["ann@example.net"]


def test_a_raw_mail_takes_its_recipients_from_the_columns_or_its_header() -> None:
    raw = b"From: shop@example.com\nTo: ann@example.net\n\nx"
    assert Mail(sender="shop@example.com", raw=raw).columns()["raw"] == raw
    assert Mail(sender="shop@example.com", to="x@y.example", raw=raw).columns()["recipients"] == "x@y.example"
    for wrong in (b"", b"nonsense", raw + b"\0", b"From: a b@y\nTo: x@y.example\n\n", b"From: x@y.example\n\n"):
        with pytest.raises(InvalidMail):
            Mail(sender="shop@example.com", raw=wrong)


def test_importing_it_imports_no_email_package_and_no_database() -> None:
    heavy = ("email", "peewee", "sqlite3", "asyncio", "ssl")
    script = f"import outbox.mail, sys; print([name for name in {heavy!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
