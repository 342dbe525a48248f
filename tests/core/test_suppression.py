"""Who is suppressed: how entries are written, compared, and read from files."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.fate import Fate
from outbox.core.message import Recipient
from outbox.core.outcome import Scope, Stage, Verdict
from outbox.core.suppression import Listed, Suppression, pattern_of, patterns_for, read_list, withheld
from tests.core.strategies import addresses

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def said(listed: Listed) -> list[tuple[str, str, datetime | None]]:
    return [(each.address, each.reason, each.until) for each in listed.entries]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("Ann@Example.NET", "ann@example.net"),
        (" ann@example.net ", "ann@example.net"),
        ("Ann Bee <ann@example.net>", "ann@example.net"),
        ("*@Example.NET", "*@example.net"),
        ("ann@Bücher.example", "ann@xn--bcher-kva.example"),
        ("*@bücher.example", "*@xn--bcher-kva.example"),
        ("ÜNNI@example.net", "ünni@example.net"),
        ("JOSE\u0301@example.net", "jos\u00e9@example.net"),
    ],
)
def test_an_entry_is_stored_as_it_is_compared(text: str, pattern: str) -> None:
    assert pattern_of(text) == pattern


@pytest.mark.parametrize(
    "text", ["", "ann", "@example.net", "*", "*@", "*@*", "*@a b", "Ann <*@b.example>", "a@b, c@d"]
)
def test_what_is_neither_an_address_nor_a_domain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        pattern_of(text)


@given(addresses())
def test_an_entry_stands_for_its_address_and_its_domain_however_they_are_written(address: object) -> None:
    written = str(address)
    wire = address.wire  # type: ignore[attr-defined]

    assert pattern_of(written) in patterns_for(wire)
    assert pattern_of(written) in patterns_for(wire.upper() if wire.isascii() else wire)
    for form in ("NFC", "NFD"):
        assert pattern_of(normalize(form, written)) in patterns_for(normalize(form, wire))
        assert pattern_of(written) in patterns_for(normalize(form, wire))
    if "[" not in wire:
        assert pattern_of(f"*@{wire.rpartition('@')[2]}") in patterns_for(wire)


def test_a_suppressed_recipient_bounces_with_the_reason_and_the_way_back() -> None:
    ann = Recipient(3, "ann@example.net", "cc")
    fate = withheld(ann, Suppression("*@example.net", "they asked"))

    assert (fate.recipient, fate.fate, fate.stage) == (ann, Fate.BOUNCED, Stage.POLICY)
    assert (fate.outcome.verdict, fate.outcome.scope) == (Verdict.BOUNCE, Scope.RECIPIENT)
    assert fate.reply is not None
    assert (fate.reply.code, fate.reply.status) == (0, "5.7.1")
    assert fate.reply.text == "suppressed: they asked; `outbox suppress remove '*@example.net'`, then retry"


def test_an_entry_is_over_at_its_end() -> None:
    entry = Suppression("ann@example.net", "x", until=NOW)

    assert entry.is_over(NOW)
    assert not entry.is_over(NOW - timedelta(seconds=1))
    assert not Suppression("ann@example.net", "x").is_over(NOW)


def test_a_plain_list_is_an_address_a_line() -> None:
    lines = [
        "\ufeff# from the old system\n",
        "ann@example.net\n",
        "\n",
        "   \r\n",
        "*@Example.org\n",
        '"a,b"@example.com\n',
    ]

    assert said(read_list(lines)) == [
        ("ann@example.net", "", None),
        ("*@example.org", "", None),
        ('"a,b"@example.com', "", None),
    ]


def test_csv_is_told_by_its_first_line_and_read_by_its_names() -> None:
    lines = [
        "\ufeffcreated,Email,REASON,until\n",
        '1,ann@example.net,"hard bounce, twice",\n',
        "2,bob@example.net,,2026-12-31\n",
        "3,cyd@example.net,spam\u2028report,2026-12-31T10:00:00+02:00\n",
    ]

    assert said(read_list(lines)) == [
        ("ann@example.net", "hard bounce, twice", None),
        ("bob@example.net", "", datetime(2026, 12, 31, tzinfo=UTC)),
        ("cyd@example.net", "spam report", datetime(2026, 12, 31, 8, tzinfo=UTC)),
    ]


def test_bad_lines_are_told_by_their_numbers_and_the_others_are_read() -> None:
    listed = read_list(
        [
            "# comment\n",
            "address,reason,until\n",
            "\n",
            "ann@example.net,x,tomorrow\n",
            'bob@example.net,"no end,\n',
            "nobody,x,\n",
            "cyd@example.net,ok,\n",
            ",ok,\n",
        ]
    )

    assert said(listed) == [("cyd@example.net", "ok", None)]
    assert [number for number, _ in listed.bad] == [4, 5, 6, 8]
    assert "'tomorrow' is not a date" in listed.bad[0][1]
    assert "it is not CSV" in listed.bad[1][1]


def test_of_an_address_that_comes_again_the_last_line_counts() -> None:
    assert said(read_list(["address,reason\n", "A@b.example,one\n", "a@B.example,two\n"])) == [
        ("a@b.example", "two", None)
    ]


def test_an_empty_file_says_nothing() -> None:
    assert read_list([]) == Listed()
    assert read_list(["address,reason,until\n"]) == Listed()


@given(st.lists(st.text(max_size=40), max_size=10))
def test_whatever_a_file_holds_is_read_or_reported(lines: list[str]) -> None:
    listed = read_list(f"{line}\n" for line in lines)

    assert all(pattern_of(each.address) == each.address for each in listed.entries)
    assert all(1 <= number <= len(lines) and fault for number, fault in listed.bad)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has one zone for all its programs")
def test_a_moment_without_a_zone_is_in_utc_wherever_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        listed = read_list(["address,until\n", "ann@example.net,2026-03-01T09:00:00\n"])
    finally:
        monkeypatch.undo()
        time.tzset()
    assert [each.until for each in listed.entries] == [datetime(2026, 3, 1, 9, tzinfo=UTC)]
