"""Whatever applications INSERT: every good mail of the batch is sent, every bad one ends visibly, with its reason."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest

from outbox.store.database import dialect
from tests.relay import Relay
from tests.running import Site

GOOD = 900

HEAD = b"From: shop@example.com\r\nTo: ann@example.net\r\nSubject: Order 7\r\n"
UNREADABLE = "CAST(x'ff41' AS TEXT)"

# What is inserted besides or instead of the columns of a good mail; the status it ends with; words of the reason.
HOSTILE: list[tuple[dict[str, object], str, str]] = [
    ({"headers": '{"X-A": 7}'}, "5.6.0", "a header is a name and a text"),
    ({"headers": '{"X-A": {"b": "c"}}'}, "5.6.0", "a header is a name and a text"),
    ({"headers": json.dumps({"X-A": "1\r\nBcc: eve@example.net"})}, "5.6.0", "line break"),
    ({"headers": json.dumps({"X-A: 1\r\nBcc": "eve@example.net"})}, "5.6.0", "not a header name"),
    ({"headers": json.dumps({"Bcc": "eve@example.net"})}, "5.6.0", "reserved"),
    ({"headers": json.dumps({"from": "eve@example.net"})}, "5.6.0", "reserved"),
    ({"recipients": "nobody"}, "5.1.3", "there is no @ in 'nobody'"),
    ({"recipients": "ann@example.net, <bo@example.net> evil"}, "5.1.3", "not an address"),
    ({"recipients": "ann@example.net;bo@example.net"}, "5.1.3", "separated by commas"),
    ({"recipients": "(" * 20_000 + "ann@example.net"}, "5.1.3", "comments are not accepted"),
    ({"cc": "ann@@example.net"}, "5.1.3", "not an address"),
    ({"bcc": "ann@exam ple.net"}, "5.1.3", "not"),
    ({"reply_to": "nonsense"}, "5.1.3", "Reply-To"),
    ({"return_path": "nonsense"}, "5.1.7", "return path"),
    ({"return_path": "eve@example.org"}, "5.7.1", "outbox sender add eve@example.org --account main"),
    ({"sender": "eve@example.org"}, "5.7.1", "outbox sender add eve@example.org --account NAME"),
    ({"sender": "eve@`reboot`"}, "5.7.1", "outbox sender add 'eve@`reboot`' --account NAME"),
    ({"raw": b"no header, just words", "text_body": None}, "5.1.7", "no empty line"),
    ({"raw": HEAD + b"nonsense\r\n\r\nThanks\r\n", "text_body": None}, "5.1.7", "not a header field"),
    ({"raw": HEAD + b"\r\n" + b"a" * 999 + b"\r\n", "text_body": None}, "5.6.0", "longer than 998"),
    ({"raw": HEAD + b"\r\nThanks\0\r\n", "text_body": None}, "5.6.0", "NUL"),
    ({"raw": b"From: eve@example.org\r\n\r\nThanks\r\n", "text_body": None}, "5.7.1", "not registered"),
    (
        {"raw": b"From: shop@example.com\r\n\r\nThanks\r\n", "text_body": None, "recipients": None},
        "5.1.0",
        "no recipient",
    ),
]

# PostgreSQL refuses these at the INSERT.
HOSTILE_ON_SQLITE: list[tuple[dict[str, object], str, str]] = [
    ({"headers": "{not json}"}, "5.6.0", "not JSON"),
    ({"headers": '{"X-A": ' + "[" * 100_000 + "]" * 100_000 + "}"}, "5.6.0", "not JSON"),
    ({"headers": '{"X-A": ' + "1" * 200_000 + "}"}, "5.6.0", "not JSON"),
    ({"headers": '{"X-A": "\\ud800"}'}, "5.6.0", "broken"),
    ({"headers": '{"X-A": "a\\u0000b"}'}, "5.6.0", "control character"),
]

# Bytes that are no text; as SQL, for no driver binds them. Good for SQLite alone.
UNREADABLE_ON_SQLITE: list[tuple[str, str, str]] = [
    *((column, UNREADABLE, "5.6.0") for column in ("sender_name", "recipients", "cc", "reply_to", "subject")),
    *((column, UNREADABLE, "5.6.0") for column in ("return_path", "text_body", "html_body")),
    ("headers", "CAST(x'7bff7d' AS TEXT)", "5.6.0"),
    ("sender", "CAST(x'ff406578616d706c652e636f6d' AS TEXT)", "5.7.1"),
]


def insert_hostile(site: Site) -> dict[int, tuple[str, str]]:
    """The hostile rows, each with what is expected of it: a status, and words."""
    cases = HOSTILE + (HOSTILE_ON_SQLITE if dialect(site.db) == "sqlite" else [])
    expected = {}
    for columns, status, words in cases:
        expected[site.insert_one(**{"recipients": "ann@example.net", **columns})] = (status, words)
    if dialect(site.db) == "sqlite":
        for column, value, status in UNREADABLE_ON_SQLITE:
            row = {"sender": "'shop@example.com'", "recipients": "'ann@example.net'", "text_body": "'Thanks'"}
            row[column] = value
            sql = f"INSERT INTO outbox ({', '.join(row)}) VALUES ({', '.join(row.values())}) RETURNING id"
            words = "not UTF-8" if status == "5.6.0" else "not registered"
            expected[int(site.query(sql)[0][0])] = (status, words)
    return expected


def test_hostile_rows_fail_each_for_its_reason_and_all_others_are_sent(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port, connections=10)
        with site.db.atomic():
            site.insert(GOOD // 2)
            expected = insert_hostile(site)
            site.insert(GOOD // 2)
        with site.run("-q", "--until-empty") as runner:
            assert runner.wait(60) == 0

        told = [line for line in runner.lines if " status=failed (" not in line]
        assert told == [], "nothing of this is the runner's trouble"
        assert len(runner.lines) == len(expected), "each refusal is said"
        assert site.states() == {"sent": GOOD, "failed": len(expected)}
        assert len(relay.messages) == GOOD
        found = dict(rows_of(site, "SELECT message_id, last_status, last_reply FROM outbox_delivery"))
        wrong = {
            number: (found[number], status, words)
            for number, (status, words) in expected.items()
            if found[number][0] != status or not re.search(re.escape(words), found[number][1])
        }
        assert wrong == {}
        listed = {row[0] for row in site.query("SELECT id FROM outbox_dead WHERE reason IS NOT NULL")}
        assert listed == set(expected), "the view of the dead shows them, with the reason"
        heard = "\n".join(relay.commands) + "".join(str(message.content) for message in relay.messages)
        assert "eve@" not in heard
        site.audit(relay.messages)


def rows_of(site: Site, sql: str) -> list[tuple[int, Sequence[str]]]:
    return [(row[0], row[1:]) for row in site.query(sql)]


def test_big_mails_are_good_mails(site: Site) -> None:
    """20 MB of text, and ten thousand recipients."""
    many = ", ".join(f"ann{turn}@example.net" for turn in range(10_000))
    with Relay() as relay:
        site.register(relay.port)
        site.insert(5)
        [wide] = site.insert(1, bcc=many)
        [long] = site.insert(1, text_body="Thanks for your order.\n" * (20_000_000 // 23))
        site.insert(5)
        with site.run("-q", "--until-empty") as runner:
            assert runner.wait(90) == 0

        assert site.states() == {"sent": 12}
        accepted = "SELECT count(*) FROM outbox_fate WHERE message_id = ? AND fate = 'accepted'"
        assert site.query(accepted, wide) == [(10_000,)]
        assert max(len(message.recipients) for message in relay.messages) == 100
        assert max(len(message.content) for message in relay.messages) > 20_000_000
        assert site.delivery(long)["last_code"] == 250
        site.audit(relay.messages)


@pytest.mark.parametrize("text", ["line\n.\nMAIL FROM:<eve@example.org>\n", "line\r.\rMAIL FROM:<eve@example.org>\r"])
def test_no_body_smuggles_a_second_mail(sqlite_site: Site, text: str) -> None:
    site = sqlite_site
    with Relay() as relay:
        site.register(relay.port)
        site.insert(1, text_body=text)
        site.insert(1, raw=HEAD + b"\r\n" + text.encode(), text_body=None)
        with site.run("-q", "--until-empty") as runner:
            assert runner.wait() == 0
        assert len(relay.messages) == 2
        assert not [command for command in relay.commands if "eve@" in command]
        site.audit(relay.messages)
