"""Nothing a row holds becomes a header field, a part or a command that nobody meant (CVE-2024-6923 and its kin)."""

from __future__ import annotations

import email
import email.policy
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from outbox.core.address import Address
from outbox.core.message import Attachment
from outbox.core.outcome import Envelope
from outbox.core.render import render
from outbox.errors import InvalidMessage
from tests.core.intrusion import command_faults, octet_faults
from tests.core.reading import PLAIN
from tests.pythons import ROOT, pythons

INJECTIONS = (
    "A =?utf-8?q?x=0ABcc:_y?=",
    "A 💩 =?UTF-8?Q?=0A?=Bcc: injected@example.org",
    "=?utf-8?q?Hi=0ABcc=3A_evil=40example.org?=",
    "=?utf-8?b?CkJjYzogZXZpbEBleGFtcGxlLm9yZw==?=",
    "=?utf-8?q?=0D=0A=0D=0Abody?=",
    "x" * 70 + " =?utf-8?q?=0ABcc:_y?=",
    "=?=?utf-8?q?=0ABcc:_y?=?=",
    "=?us-ascii'en'?q?a?=",
    "=?utf-8?q?a b?= =?utf-8?q?c?=",
)


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("policy", [email.policy.default, email.policy.SMTP, email.policy.compat32])
def test_what_looks_like_an_encoded_word_arrives_as_that_text(text: str, policy: Any) -> None:
    name = text.replace(":", "").replace("'", "")
    message = replace(
        PLAIN,
        subject=text,
        sender_name=name,
        recipients=str(Address(name, "ann", "example.net")),
        headers=json.dumps({"X-Note": text}),
        attachments=(Attachment(text, b"1"),),
    )
    rendered = render(message)
    read = email.message_from_bytes(rendered.data, policy=policy)
    assert "Bcc" not in read
    assert len(read.keys()) == 9
    again = email.message_from_bytes(read.as_bytes(), policy=email.policy.default)
    assert "Bcc" not in again
    if policy is not email.policy.compat32:
        assert read["Subject"] == text
        assert read["X-Note"] == text
        assert next(iter(read.iter_attachments())).get_filename() == text


CONTROLS = ["\r", "\n", "\r\nBcc: x@y", "\0", "\x0b", "\x1b", "\x7f", "\x85", "\ud800", "a\n b"]


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
@pytest.mark.parametrize("column", ["subject", "sender_name", "recipients", "cc", "reply_to", "sender", "filename"])
def test_no_header_takes_a_line_break_or_a_control_character(column: str, control: str) -> None:
    text = f"a{control}b@example.com" if column not in ("subject", "sender_name") else f"a{control}b"
    if column == "filename":
        message = replace(PLAIN, attachments=(Attachment(text, b"1"),))
    else:
        message = replace(PLAIN, **{column: text})  # type: ignore[arg-type]
    with pytest.raises(InvalidMessage):
        render(message)


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_no_custom_header_takes_one_in_its_value_or_its_name(control: str) -> None:
    for given_headers in ({"X-A": f"a{control}b"}, {f"X-A{control}B": "b"}, {"X-A": ["fine", f"a{control}b"]}):
        with pytest.raises(InvalidMessage):
            render(replace(PLAIN, headers=json.dumps(given_headers)))


BAD_HEADERS = {
    "not JSON": "is not JSON",
    "[1, 2]": "not a JSON object",
    '"X-A: b"': "not a JSON object",
    "[" * 200_000: "is not JSON",
    '{"X-A": 1}': "a name and a text",
    '{"X-A": null}': "a name and a text",
    '{"X-A": {"b": "c"}}': "a name and a text",
    '{"X-A": ["a", ["b"]]}': "a name and a text",
    '{"": "a"}': "not a header name",
    '{"X A": "a"}': "not a header name",
    '{"X-A:": "a"}': "not a header name",
    '{"X-Ü": "a"}': "not a header name",
    '{"From": "evil@example.org"}': "reserved",
    '{"bCC": "evil@example.org"}': "reserved",
    '{"Content-Type": "text/html"}': "reserved",
    '{"MIME-Version": "2.0"}': "reserved",
    '{"DKIM-Signature": "v=1"}': "reserved",
    '{"Resent-To": "evil@example.org"}': "reserved",
    json.dumps({"X-A": "x" * 70_000}): "longer than",
    json.dumps({"X-A": ["x"] * 101}): "more than 100",
}


@pytest.mark.parametrize(("headers", "reason"), BAD_HEADERS.items(), ids=[text[:30] for text in BAD_HEADERS])
def test_bad_custom_headers_fail_the_message(headers: str, reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason) as raised:
        render(replace(PLAIN, headers=headers))
    assert raised.value.status == "5.6.0"


BAD_ROWS: dict[str, dict[str, Any]] = {
    "no body": {"text_body": None},
    "a sender with a name": {"sender": "Shop <shop@example.com>"},
    "no sender": {"sender": ""},
    "a token with an injection": {"token": "x>\r\nBcc: y"},
    "an empty token": {"token": ""},
    "a surrogate in the body": {"text_body": "a\udc80b"},
    "a group for recipients": {"recipients": "undisclosed-recipients:;"},
    "nested comments": {"recipients": "(" * 32_768 + ")" * 32_768 + " a@b"},
    "a number for a subject": {"subject": 7},
    "bytes for a body": {"text_body": b"x"},
    "a naive object for a date": {"created_at": "2026-03-01"},
    "text for raw": {"raw": "Subject: x\n\ny"},
    "an attachment of text": {"attachments": (Attachment("a", "text", "text/plain"),)},  # type: ignore[arg-type]
    "two inline images of one id": {
        "html_body": "x",
        "attachments": (Attachment("a", b"", "image/png", "x"), Attachment("b", b"", "image/png", "x")),
    },
    **{
        f"the content type {kind!r}": {"attachments": (Attachment("a", b"", kind),)}
        for kind in (
            "",
            "text",
            "text/",
            "text/plain\r\nBcc: x",
            "text/plain; a",
            "multipart/mixed",
            "te xt/plain",
            "ü/x",
        )
    },
    **{
        f"the content_id {content_id!r}": {"attachments": (Attachment("a", b"", "image/png", content_id),)}
        for content_id in ("<logo>", "a b", "a\r\nb", "ü", "x" * 256)
    },
}


@pytest.mark.parametrize("row", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_whatever_a_row_holds_is_an_invalid_message_and_nothing_else(row: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage) as raised:
        render(replace(PLAIN, **row))
    assert raised.value.status.startswith("5.")
    assert raised.value.reason


def attempts(python: str) -> dict[str, Any]:
    """What `tests.core.injection` found, in that Python, with nothing but its standard library."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    command = [python, "-s", "-m", "tests.core.injection"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_thousands_of_injections_on_every_python_are_refused_or_stay_text() -> None:
    """0 extra fields, parts, recipients and commands, by the octets and by each Python's own parser."""
    installed = pythons()
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(installed, pool.map(attempts, installed.values()), strict=True))
    for version, result in found.items():
        assert result["python"] == version
        shown = "\n".join(each[:500] for each in result["faults"][:20])
        assert not shown, f"Python {result['python']}, {len(result['faults'])} faults, among them:\n{shown}"
        assert result["cases"] >= 5000
        assert result["composed"] >= 2000, "what is refused proves little"
        never = [column for column, counts in result["by_column"].items() if "composed" not in counts]
        assert never == [], "a column that takes nothing is not tested"
    outcomes = {(result["cases"], result["composed"], result["refused"]) for result in found.values()}
    assert len(outcomes) == 1, f"the Pythons do not agree: {outcomes}"
    if len(found) == 1:
        pytest.skip(f"INJECTIONS ARE TESTED ON ONE PYTHON ONLY, {next(iter(found))}: NO OTHER IS INSTALLED")


def test_the_checks_see_an_injection() -> None:
    """A careless composer and a careless client are caught by them."""
    names = ["From", "Subject"]
    assert octet_faults(b"From: a@b.example\r\nSubject: Hi\r\n\r\n", names) == []
    for careless in (b"Hi\r\nBcc: x@y.example", b"Hi\nBcc: x@y.example", b"Hi\r\n\r\n.", b"H\0i"):
        assert octet_faults(b"From: a@b.example\r\nSubject: %s\r\n\r\nbody\n" % careless, names) != []
    envelope = Envelope("a@b.example", ("c@d.example",))
    assert command_faults(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n.\r\n", envelope) == []
    for more in (
        b"c@d.example>\r\nRCPT TO:<x@y.example",
        b"x@y.example",
        b"c@d.example> NOTIFY=NEVER>",
        b"c@d.example> X=",
    ):
        said = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<%s>\r\nDATA\r\n.\r\n" % more
        assert command_faults(said, envelope) != []
