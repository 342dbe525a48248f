"""The table of replies, row by row: what is documented is what it says, and each word of it decides something."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from outbox.core import replies
from outbox.core.judge import judge
from outbox.core.meaning import LATER, NEVER, Meaning
from outbox.core.outcome import Scope, Stage, Verdict
from outbox.core.replies import CONSEQUENCES, MEANINGS
from outbox.core.reply import Reply
from tests.replies import page

PAGE = Path(__file__).parent.parent.parent / "docs" / "replies.md"

NAMES = """
    doubt unreachable cut-off
    not-sendable unsigned no-token sealed-secret our-own-trouble
    no-service no-tls no-session too-many-logins login-later wrong-password another-password login-unprotected
    login-method login-refused
    closing accepted nonsense so-far-good no-dot goodbye
    greylisted mailbox-later no-mailbox
    not-logged-in login-not-taken not-admitted account-blocked daily-limit own-mailbox-full too-many-connections
    throttled
    not-our-sender sender-refused sender-unauthorised sender-not-verified
    no-room too-many-recipients greylisted-perhaps message-greylisted too-big recipient-misunderstood misunderstood
    recipient-later recipient-refused later refused
"""
"""In the order in which they are asked. `rule test --json` and logs have them, so they stay what they are."""


def test_the_table_is_what_is_documented() -> None:
    assert page() == PAGE.read_text(encoding="utf-8")


def test_the_names_of_the_rows_and_their_order_stay() -> None:
    assert [each.name for each in MEANINGS] == NAMES.split()


def test_every_consequence_of_a_row_has_its_words() -> None:
    assert {(each.verdict, each.scope) for each in MEANINGS} <= CONSEQUENCES.keys()
    assert CONSEQUENCES[Verdict.DEFER, Scope.SENDER] == "the sender address is paused for a while; its mail waits"
    assert CONSEQUENCES[Verdict.BOUNCE, Scope.RELAY] == CONSEQUENCES[Verdict.DEFER, Scope.RELAY]


def forms(word: str) -> Iterator[str]:
    """``relay[ing] …denied`` with and without what may be missing, with nothing and with a word between."""
    parts = re.split(r"(\[[^]]*\]|…)", word)
    choices = [("", each[1:-1]) if each[:1] == "[" else ("", " xyz ") if each == "…" else (each,) for each in parts]
    yield from map("".join, itertools.product(*choices))


def answers(row: Meaning) -> Iterator[tuple[str, str]]:
    """Status and text of everything that the row lists; all of its codes say the same."""
    for status in row.statuses:
        yield status[:1] + status[1:].replace("x", "29"), "no"
    for word in row.words:
        for form in forms(word):
            yield "", f"it says: {form.upper()}!"


LISTED = [each for each in MEANINGS if each.statuses or each.words]


@pytest.mark.parametrize("row", LISTED, ids=lambda row: row.name)
def test_each_status_and_each_word_of_a_row_decides(row: Meaning) -> None:
    """At each stage and for each code, unless an earlier row has taken it: and that it takes for the same reason."""
    place = MEANINGS.index(row)
    for status, text in answers(row):
        decided = set()
        for stage, code in itertools.product(row.stages, row.codes):
            said = status.replace("x", str(code // 100))
            if said and said[0] != str(code // 100):
                continue  # the code decides
            by = judge(stage, Reply(code, said, text), dotted=bool(row.dotted)).by
            assert isinstance(by, Meaning)
            assert MEANINGS.index(by) <= place, (status, text, stage, code, by.name)
            decided.add(by.name)
        assert row.name in decided, (status, text)


@pytest.mark.parametrize("row", LISTED, ids=lambda row: row.name)
def test_what_a_row_does_not_list_it_leaves_to_others(row: Meaning) -> None:
    for stage, code in itertools.product(row.stages, row.codes):
        for status in ("", f"{code // 100}.9.9", *(each.replace("x", str(code // 100)) for each in row.unless)):
            assert judge(stage, Reply(code, status, "nothing of all that"), dotted=bool(row.dotted)).by is not row


def test_no_row_is_asked_beyond_its_stages_and_codes() -> None:
    for row in MEANINGS:
        for stage in frozenset(Stage) - row.stages:
            for code in (0, 250, 354, 421, 450, 451, 452, 454, 530, 535, 550, 552, 553, 554):
                for status, text in (
                    ((row.statuses[:1] or ("",))[0].replace("x", str(code // 100)), row.example),
                    ("", ""),
                ):
                    answer = Reply(code, status, text) if code else None
                    assert judge(stage, answer, dotted=bool(row.dotted)).by is not row


def test_sixty_characters_between_two_words_are_the_most() -> None:
    def by(count: int) -> object:
        return judge(Stage.RCPT, Reply(550, "", f"daily{'x' * count}limit")).by

    assert isinstance(near := by(60), Meaning)
    assert near.name == "daily-limit"
    assert isinstance(far := by(61), Meaning)
    assert far.name == "recipient-refused"


def test_a_word_begins_where_a_word_begins() -> None:
    by = judge(Stage.RCPT, Reply(550, "", "resend as you like, and unthrottled")).by
    assert isinstance(by, Meaning)
    assert by.name == "recipient-refused"


@pytest.mark.parametrize(
    ("status", "row"),
    [
        ("5.7.30", "login-not-taken"),
        ("5.7.300", "recipient-refused"),
        ("5.7.3", "recipient-refused"),
        ("5.71.1", "recipient-refused"),
        ("5.1.7", "recipient-refused"),
        ("5.1.8", "not-our-sender"),
        ("5.1.77", "no-mailbox"),
        ("5.2.0", "no-mailbox"),
        ("5.11.0", "recipient-refused"),
    ],
)
def test_a_status_is_meant_as_a_whole(status: str, row: str) -> None:
    by = judge(Stage.RCPT, Reply(550, status, "no")).by
    assert isinstance(by, Meaning)
    assert by.name == row


def test_delays_are_what_is_said_of_them() -> None:
    delays = {each.name: each.delay for each in MEANINGS if each.delay}
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    assert delays == {
        "too-many-logins": 15 * minute,
        "greylisted": 5 * minute,
        "daily-limit": hour,
        "own-mailbox-full": hour,
        "greylisted-perhaps": 5 * minute,
        "message-greylisted": 5 * minute,
    }
    assert {each.outcome.delay for each in MEANINGS if each.name not in delays} == {timedelta(0)}


def test_what_is_not_understood_is_one_of_four_codes() -> None:
    assert sorted(replies.MISUNDERSTOOD) == [500, 502, 503, 504]
    for code in (500, 501, 502, 503, 504, 505):
        by = judge(Stage.RCPT, Reply(code)).by
        assert isinstance(by, Meaning)
        assert by.name == ("recipient-misunderstood" if code not in (501, 505) else "recipient-refused")
    assert {len(LATER), len(NEVER)} == {100}
