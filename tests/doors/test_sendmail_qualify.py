"""Names without a domain."""

from __future__ import annotations

import pytest

from outbox.doors.sendmail.qualify import qualified_header, qualified_list

CASES = [
    ("root", "root@d.example"),
    ("ann@example.net", "ann@example.net"),
    ("root, ann@example.net,bo", "root@d.example, ann@example.net,bo@d.example"),
    ("root (Cron Daemon)", ' "Cron Daemon" <root@d.example>'),
    ("Root <root>", "Root <root@d.example>"),
    ("<root>", "<root@d.example>"),
    (
        '"Root, the" <root>, Ann <ann@example.net>, bo',
        '"Root, the" <root@d.example>, Ann <ann@example.net>, bo@d.example',
    ),
    ('"a <b>" <ann@example.net>', '"a <b>" <ann@example.net>'),
    ("ann@example.net (Ann, or <Bo>)", "ann@example.net (Ann, or <Bo>)"),
    ("undisclosed-recipients:;", "undisclosed-recipients:;"),
    ("", ""),
    ("<>", "<>"),
    ('"open <root', '"open <root'),
]


@pytest.mark.parametrize(("given", "meant"), CASES)
def test_a_name_without_a_domain_gets_one_and_nothing_else_changes(given: str, meant: str) -> None:
    assert qualified_list(given, "d.example") == meant


def test_only_the_address_fields_of_the_header_are_looked_at() -> None:
    raw = b"To: root,\r\n  bo\r\nSubject: To: root\r\nX-To: root\r\nresent-Cc: ann\n\nTo: root\n"

    assert qualified_header(raw, "d.example") == (
        b"To: root@d.example,\r\n  bo@d.example\r\nSubject: To: root\r\nX-To: root\r\n"
        b"resent-Cc: ann@d.example\n\nTo: root\n"
    )


def test_a_long_list_is_read_in_linear_time() -> None:
    text = '"' * 50_000 + "(" * 50_000 + "<" * 50_000

    assert qualified_list(text, "d.example") == text
