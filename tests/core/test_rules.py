"""Operators' rules: which they are, what they decide, and what they must never touch."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.judge import classify, judge
from outbox.core.outcome import Outcome, Scope, Stage, Verdict
from outbox.core.reply import MAX_TEXT, Reply
from outbox.core.rules import Rule, for_relay, ways

A, D, B, X = Verdict.ACCEPT, Verdict.DEFER, Verdict.BOUNCE, Verdict.DOUBT
SPAM = Reply(550, "5.7.1", "Connection frequency limited by policy")


def rule(
    pattern: str,
    verdict: Verdict = D,
    scope: Scope = Scope.MESSAGE,
    *,
    id: int = 1,
    relay: str = "*",
    minutes: int = 0,
) -> Rule:
    return Rule(id, relay, pattern, verdict, scope, timedelta(minutes=minutes))


# ---- which fit


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("frequency LIMITED", True),
        (r"^550 5\.7\.1 conn", True),
        (r"policy$", True),
        (r"^550 connection", False),
        ("^connection", False),
        ("421|550", True),
    ],
)
def test_a_pattern_is_searched_in_code_status_and_text(pattern: str, fits: bool) -> None:
    assert rule(pattern).fits(SPAM) is fits


def test_only_the_beginning_of_a_reply_is_searched() -> None:
    assert rule("END").fits(Reply(550, "", "x" * (MAX_TEXT - len("550 END")) + "END"))
    assert not rule("END").fits(Reply(550, "", "x" * MAX_TEXT + "END"))


def test_rules_are_about_the_relays_that_they_name() -> None:
    everybody, example, one = (
        rule(".", relay=each, id=number) for number, each in enumerate(("*", "*.Example.com", "mx?.example.net"))
    )
    rules = (everybody, example, one)
    assert for_relay(rules, "smtp.example.com") == (everybody, example)
    assert for_relay(rules, "SMTP.EXAMPLE.COM") == (everybody, example)
    assert for_relay(rules, "mx1.example.net") == (everybody, one)
    assert for_relay(rules, "mx12.example.net") == (everybody,)


# ---- what they decide


def test_the_first_rule_that_fits_decides_instead_of_the_table() -> None:
    rules = (rule("nothing", id=3), rule("frequency", D, Scope.ACCOUNT, id=5, minutes=10), rule("limited", B, id=7))
    found = judge(Stage.RCPT, SPAM, rules=rules)
    assert found.outcome == Outcome(D, Scope.ACCOUNT, timedelta(minutes=10), 5)
    assert found.by == rules[1]
    assert classify(Stage.RCPT, SPAM, rules=rules[:1]) == classify(Stage.RCPT, SPAM)


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.BODY, Stage.DOT])
def test_a_rule_may_reach_anywhere_once_a_mail_was_named(stage: Stage) -> None:
    for scope in Scope:
        for code in (450, 550, 421):
            outcome = classify(stage, Reply(code), dotted=stage is Stage.DOT, rules=(rule(".", B, scope, id=9),))
            assert outcome == Outcome(B, scope, rule=9)


@pytest.mark.parametrize("stage", [Stage.BANNER, Stage.EHLO, Stage.STARTTLS, Stage.AUTH])
def test_before_mail_no_rule_can_fail_a_message(stage: Stage) -> None:
    narrow = tuple(rule(".", B, each) for each in (Scope.SENDER, Scope.MESSAGE, Scope.RECIPIENT))
    for code in (421, 454, 535, 554):
        assert classify(stage, Reply(code), rules=narrow) == classify(stage, Reply(code))
        wide = classify(stage, Reply(code), rules=(*narrow, rule(".", D, Scope.ACCOUNT, id=2)))
        assert wide == Outcome(D, Scope.ACCOUNT, rule=2)


def test_a_longer_hint_of_the_relay_counts_where_a_rule_defers() -> None:
    later = Reply(550, "", "come back in 30 minutes")
    assert classify(Stage.RCPT, later, rules=(rule(".", minutes=5),)).delay == timedelta(minutes=30, seconds=10)
    assert classify(Stage.RCPT, later, rules=(rule(".", minutes=60),)).delay == timedelta(minutes=60)
    assert classify(Stage.RCPT, later, rules=(rule(".", B),)).delay == timedelta(0)


@given(
    st.sampled_from(Stage),
    st.none() | st.builds(Reply, st.integers(200, 599), st.just(""), st.text(max_size=20)),
    st.booleans(),
    st.sampled_from([D, B]),
    st.sampled_from(Scope),
)
def test_a_rule_touches_refusals_only(
    stage: Stage, answer: Reply | None, dotted: bool, verdict: Verdict, scope: Scope
) -> None:
    without = classify(stage, answer, dotted=dotted)
    outcome = classify(stage, answer, dotted=dotted, rules=(Rule(1, "*", "^", verdict, scope),))
    if answer is None or answer.code < 400 or stage in (Stage.RENDER, Stage.POLICY, Stage.LOCAL):
        assert outcome == without
    assert (outcome.verdict is A) == (without.verdict is A)
    assert (outcome.verdict is X) == (without.verdict is X)


# ---- which are refused


@pytest.mark.parametrize("verdict", [A, X])
def test_a_rule_says_defer_or_bounce(verdict: Verdict) -> None:
    with pytest.raises(ValueError, match="defer or bounce"):
        rule(".", verdict)


@pytest.mark.parametrize("pattern", ["(", "[", "*a", "(?P<x", "a{99999999999999999999}", "", "x" * 501])
def test_what_is_no_pattern_is_refused_in_words(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"not a regular expression|1 to 500 characters"):
        rule(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a*)*b",
        "(a|a)*b",
        "(?:foo.*bar)*",
        "((a+)b)+",
        "([^)]+)+",
        "([]a]+)+",
        "(?P<x>a+)+",
        "(a?){30}",
        "(x{2,}){2,}",
        "(.*a){20}",
        "a?" * 30,
        "(a|b|ab)" * 12,
        ".*.*.*x",
        ".{0,500}.{0,500}.{0,500}x",
    ],
)
def test_a_pattern_that_could_be_searched_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="searched for ever"):
        rule(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["(?#()(a*)*b", "(?#[)(a*)*]b", "(?x)(a # )\n*)*b", "(?ix)(a # )\n*)*b", "(?x:(a # )\n*)*b)", "(?#fine)a"],
)
def test_a_comment_that_could_hide_what_repeats_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"a comment or the flag x|searched for ever"):
        rule(pattern)


@pytest.mark.parametrize("pattern", ["(?P<x>a)", "(?i)x", r"\(?#", "[(?#]", "(?i:x)", "(x)", "(?:x)", "(?=x)"])
def test_what_only_looks_like_a_comment_is_welcome(pattern: str) -> None:
    assert rule(pattern).pattern == pattern


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("spam", 1),
        ("spam|blocked|listed", 3),
        (r"^5\d\d 5\.7\.(1|26)", 2),
        (r"\(a+\)", 64),
        ("[(+)*]{3}", 1),
        (r"(\d{1,3}\.){3}", 27),
        ("a.*b.*c", 64 * 64),
        ("(ab)+", 64),
        ("(?i:ab)?c", 2),
        ("x{,}", 64),
        ("x{2,4}?", 3),
        ("{", 1),
    ],
)
def test_ordinary_patterns_are_welcome(pattern: str, expected: int) -> None:
    assert ways(pattern) == expected
    assert rule(pattern).pattern == pattern


@pytest.mark.parametrize("pattern", [".*.*c", r"\w+\w+c", "a?" * 14 + "c", "(a|a)" + "(a|a)" * 12 + "c"])
def test_the_slowest_that_are_taken_take_seconds_at_most(pattern: str) -> None:
    slowest = rule(pattern)
    begun = time.monotonic()
    assert not slowest.fits(Reply(550, "", "a" * MAX_TEXT))
    assert time.monotonic() - begun < 10  # 0.5 s here


@pytest.mark.parametrize("pattern", ["[[a]", "[1||x]", "[a&&b]"])
def test_what_python_may_read_otherwise_one_day_is_read_as_today(pattern: str) -> None:
    assert rule(pattern).pattern == pattern


@given(st.text("ab().*+?{}1,2|[]\\^$", max_size=12))
def test_every_pattern_is_taken_or_refused(pattern: str) -> None:
    try:
        taken = rule(pattern)
    except ValueError:
        return
    taken.fits(SPAM)
