"""What SMTP answers mean: one row a case, so that a change of policy is a change of this table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.judge import classify, is_too_many
from outbox.core.outcome import Outcome, Scope, Stage, Verdict
from outbox.core.reply import Reply

A, D, B, X = Verdict.ACCEPT, Verdict.DEFER, Verdict.BOUNCE, Verdict.DOUBT
RELAY, ACCOUNT, SENDER, MESSAGE, RECIPIENT = Scope.RELAY, Scope.ACCOUNT, Scope.SENDER, Scope.MESSAGE, Scope.RECIPIENT

TABLE = [
    # stage, reply, verdict, scope
    (Stage.DNS, None, D, RELAY),
    (Stage.CONNECT, None, D, RELAY),
    (Stage.BANNER, None, D, RELAY),
    (Stage.BANNER, "421 4.3.2 shutting down", D, RELAY),
    (Stage.BANNER, "554 5.7.1 no service", D, RELAY),
    (Stage.EHLO, "502 what", D, RELAY),
    (Stage.STARTTLS, "454 4.7.0 TLS not available", D, RELAY),
    (Stage.STARTTLS, "501 no", D, RELAY),
    (Stage.TLS, None, D, RELAY),
    (Stage.AUTH, "535 5.7.8 bad credentials", B, ACCOUNT),
    (Stage.AUTH, "534 5.7.9 application-specific password required", B, ACCOUNT),
    (Stage.AUTH, "538 5.7.11 encryption required", B, ACCOUNT),
    (Stage.AUTH, "530 5.7.0 must issue STARTTLS", B, ACCOUNT),
    (Stage.AUTH, "550 5.7.30 Basic authentication is not supported for Client Submission", B, ACCOUNT),
    (Stage.AUTH, "504 5.5.4 mechanism", B, ACCOUNT),
    (Stage.AUTH, "454 4.7.0 Too many login attempts", D, ACCOUNT),
    (Stage.AUTH, "432 4.3.2 concurrent connections", D, ACCOUNT),
    (Stage.AUTH, "421 4.7.0 try later", D, ACCOUNT),
    (Stage.AUTH, None, D, RELAY),
    (Stage.MAIL, "530 5.7.57 Client not authenticated to send mail", B, ACCOUNT),
    (Stage.MAIL, "553 5.7.1 not owned by user", B, SENDER),
    (Stage.MAIL, "550 5.7.1 not authorised", B, SENDER),
    (Stage.MAIL, "550 5.7.60 client does not have permissions to send as this sender", B, SENDER),
    (Stage.MAIL, "550 5.1.8 sender denied", B, SENDER),
    (Stage.MAIL, "552 5.3.4 message size exceeds limit", B, MESSAGE),
    (Stage.MAIL, "452 4.3.1 insufficient system storage", D, RELAY),
    (Stage.MAIL, "421 4.3.2 closing", D, RELAY),
    (Stage.MAIL, "451 4.3.0 local error", D, MESSAGE),
    (Stage.MAIL, "550 5.6.0 no", B, MESSAGE),
    (Stage.MAIL, None, D, MESSAGE),
    (Stage.RCPT, "250 2.1.5 ok", A, RECIPIENT),
    (Stage.RCPT, "251 will forward", A, RECIPIENT),
    (Stage.RCPT, "450 4.2.0 greylisted", D, RECIPIENT),
    (Stage.RCPT, "452 4.2.2 over quota", D, RECIPIENT),
    (Stage.RCPT, "550 5.1.1 no such user", B, RECIPIENT),
    (Stage.RCPT, "550 5.7.1 not here", B, RECIPIENT),
    (Stage.RCPT, "554 5.7.1 <ann@example.net>: Relay access denied", B, ACCOUNT),
    (Stage.RCPT, "550 5.7.1 Relaying denied", B, ACCOUNT),
    (Stage.RCPT, "554 5.7.1 Client host [192.0.2.1] blocked using zen.example", B, ACCOUNT),
    (Stage.RCPT, "550 5.7.1 Authentication required", B, ACCOUNT),
    (Stage.RCPT, "552 5.2.2 Quota exceeded (mailbox for user is full)", B, RECIPIENT),
    (Stage.RCPT, "452 4.2.2 rate limit of this mailbox", D, RECIPIENT),
    (Stage.RCPT, "550 5.7.1 sender not authorized to send to this group", B, RECIPIENT),
    (Stage.RCPT, "553 5.7.1 <a@b>: Sender address rejected: not owned by user ann", B, SENDER),
    (Stage.RCPT, "550 5.4.5 Daily user sending limit exceeded", D, ACCOUNT),
    (Stage.RCPT, "421 4.4.5 too many connections", D, RELAY),
    (Stage.RCPT, "503 5.5.1 bad sequence", D, RECIPIENT),
    (Stage.DATA, "451 4.3.0 later", D, MESSAGE),
    (Stage.DATA, "554 5.5.1 no valid recipients", B, MESSAGE),
    (Stage.DATA, "250 2.0.0 ok", D, MESSAGE),
    (Stage.BODY, None, D, MESSAGE),
    (Stage.BODY, "552 5.3.4 too big", B, MESSAGE),
    (Stage.DOT, "250 2.0.0 queued as 4X", A, MESSAGE),
    (Stage.DOT, "451 4.7.1 try again", D, MESSAGE),
    (Stage.DOT, "554 5.7.1 spam", B, MESSAGE),
    (Stage.DOT, "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException", B, SENDER),
    (Stage.DOT, "554 Message rejected: Email address is not verified.", B, SENDER),
    (Stage.DOT, "454 Throttling failure: Maximum sending rate exceeded.", D, ACCOUNT),
    (Stage.DOT, "421 4.3.0 closing", D, RELAY),
    (Stage.RENDER, "554 5.6.0 cannot be composed", B, MESSAGE),
    (Stage.POLICY, "554 5.7.1 not registered", B, MESSAGE),
    (Stage.LOCAL, "554 5.7.8 the password does not open", B, ACCOUNT),
    (Stage.LOCAL, "451 4.3.0 internal error", D, MESSAGE),
]


def reply(text: str) -> Reply:
    """`text` as a relay writes it: code, enhanced status where there is one, words."""
    code, _, rest = text.partition(" ")
    status, _, words = rest.partition(" ")
    return Reply(int(code), status, words) if status.count(".") == 2 else Reply(int(code), "", rest)


@pytest.mark.parametrize(
    ("stage", "answer", "verdict", "scope"), TABLE, ids=[f"{stage} {answer}" for stage, answer, _, _ in TABLE]
)
def test_an_answer_has_a_verdict_and_a_reach(stage: Stage, answer: str | None, verdict: Verdict, scope: Scope) -> None:
    assert classify(stage, reply(answer) if answer else None, dotted=stage is Stage.DOT) == Outcome(verdict, scope)


def test_silence_after_the_dot_is_a_doubt() -> None:
    assert classify(Stage.DOT, None, dotted=True) == Outcome(X, MESSAGE)


def test_nonsense_after_the_dot_is_a_doubt() -> None:
    assert classify(Stage.DOT, Reply(354, "", "go on"), dotted=True) == Outcome(X, MESSAGE)


replies = st.builds(
    Reply,
    st.integers(200, 599),
    st.one_of(st.just(""), st.from_regex(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True)),
    st.text(max_size=40),
)


@given(st.sampled_from(Stage), st.none() | replies, st.booleans())
def test_every_answer_has_an_outcome(stage: Stage, answer: Reply | None, dotted: bool) -> None:
    outcome = classify(stage, answer, dotted=dotted)
    assert isinstance(outcome, Outcome)
    if outcome.verdict is A:
        assert answer is not None
        assert answer.positive
    if outcome.verdict is X:
        assert dotted


@given(replies)
def test_nothing_but_2xx_to_the_dot_is_taken_for_acceptance(answer: Reply) -> None:
    accepted = classify(Stage.DOT, answer, dotted=True).verdict is A
    assert accepted == (200 <= answer.code < 300)


@pytest.mark.parametrize(
    ("answer", "accepted_before", "expected"),
    [
        ("452 4.5.3 too many recipients", 100, True),
        ("452 too many recipients", 100, True),
        ("552 too many recipients", 1, True),
        ("552 5.5.3 too many recipients", 1, True),
        ("452 4.5.3 too many recipients", 0, False),
        ("452 4.2.2 over quota", 5, False),
        ("552 5.2.2 mailbox full", 5, False),
        ("450 4.2.0 greylisted", 5, False),
    ],
)
def test_too_many_recipients_is_no_fault_but_of_the_first_one(
    answer: str, accepted_before: int, expected: bool
) -> None:
    assert is_too_many(reply(answer), accepted_before=accepted_before) is expected
