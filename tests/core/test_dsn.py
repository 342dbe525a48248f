"""What a mail may ask of notifications, and how a parameter says it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.dsn import NO_DSN, Dsn, xtext


@pytest.mark.parametrize(
    "dsn",
    [
        NO_DSN,
        Dsn("never"),
        Dsn("success"),
        Dsn("success,failure,delay"),
        Dsn("delay,success"),
        Dsn(ret="full"),
        Dsn(ret="hdrs"),
        Dsn(envid="order 7"),
        Dsn(envid="x" * 100),
    ],
)
def test_what_may_be_asked(dsn: Dsn) -> None:
    assert dsn.flaw() == ""
    assert bool(dsn) == (dsn != NO_DSN)


@pytest.mark.parametrize(
    ("dsn", "column"),
    [
        (Dsn("never,delay"), "dsn_notify"),
        (Dsn("success,success"), "dsn_notify"),
        (Dsn("SUCCESS"), "dsn_notify"),
        (Dsn("success, delay"), "dsn_notify"),
        (Dsn("success\r\nDATA"), "dsn_notify"),
        (Dsn(","), "dsn_notify"),
        (Dsn(ret="all"), "dsn_ret"),
        (Dsn(envid="x" * 101), "dsn_envid"),
        (Dsn(envid="a\nb"), "dsn_envid"),
        (Dsn(envid="é"), "dsn_envid"),
    ],
)
def test_what_may_not(dsn: Dsn, column: str) -> None:
    assert dsn.flaw().startswith(column)


@given(st.text(st.characters(max_codepoint=127)))
def test_xtext_is_one_word_that_says_the_same(text: str) -> None:
    said = xtext(text)
    assert re.fullmatch(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*", said)
    assert re.sub(r"\+([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), said) == text
