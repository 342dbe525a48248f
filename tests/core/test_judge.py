"""What SMTP answers mean: one row a case, so that a change of policy is a change of this table."""

from __future__ import annotations

import timeit
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.judge import classify, hinted, is_too_many, judge
from outbox.core.meaning import Meaning
from outbox.core.outcome import Outcome, Scope, Stage, Verdict
from outbox.core.replies import MEANINGS
from outbox.core.reply import Reply
from outbox.core.rules import Rule

A, D, B, X = Verdict.ACCEPT, Verdict.DEFER, Verdict.BOUNCE, Verdict.DOUBT
RELAY, ACCOUNT, SENDER, MESSAGE, RECIPIENT = Scope.RELAY, Scope.ACCOUNT, Scope.SENDER, Scope.MESSAGE, Scope.RECIPIENT
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
NOTHING = timedelta(0)
BEFORE_MAIL = {Stage.DNS, Stage.CONNECT, Stage.BANNER, Stage.EHLO, Stage.STARTTLS, Stage.TLS}

TABLE = [
    # stage, reply, verdict, scope, and a minimal delay where there is one
    # -- the relay
    (Stage.DNS, None, D, RELAY),
    (Stage.CONNECT, None, D, RELAY),
    (Stage.BANNER, None, D, RELAY),
    (Stage.BANNER, "421 4.3.2 shutting down", D, RELAY),
    (Stage.BANNER, "450 4.3.2 busy", D, RELAY),
    (Stage.BANNER, "554 5.7.1 no service", D, RELAY),
    (Stage.BANNER, "521 does not accept mail", D, RELAY),
    (Stage.EHLO, None, D, RELAY),
    (Stage.EHLO, "500 what", D, RELAY),
    (Stage.EHLO, "502 what", D, RELAY),
    (Stage.EHLO, "504 what", D, RELAY),
    (Stage.STARTTLS, None, D, RELAY),
    (Stage.STARTTLS, "454 4.7.0 TLS not available", D, RELAY),
    (Stage.STARTTLS, "501 no", D, RELAY),
    (Stage.TLS, None, D, RELAY),
    (Stage.AUTH, None, D, RELAY),
    (Stage.MAIL, "452 4.3.1 insufficient system storage", D, RELAY),
    (Stage.MAIL, "421 4.3.2 closing", D, RELAY),
    (Stage.RCPT, "421 4.4.5 too many connections", D, RELAY),
    (Stage.DATA, "421 4.3.2 closing", D, RELAY),
    (Stage.BODY, "421 4.3.2 closing", D, RELAY),
    (Stage.DOT, "421 4.3.0 closing", D, RELAY),
    # -- the account: not let in
    (Stage.AUTH, "535 5.7.8 bad credentials", B, ACCOUNT),
    (Stage.AUTH, "535 5.7.3 Authentication unsuccessful", B, ACCOUNT),
    (Stage.AUTH, "535 5.7.139 Authentication unsuccessful, basic authentication is disabled", B, ACCOUNT),
    (Stage.AUTH, "535 Authentication failed, try again in 5 minutes", B, ACCOUNT),
    (Stage.AUTH, "534 5.7.9 application-specific password required", B, ACCOUNT),
    (Stage.AUTH, "538 5.7.11 encryption required", B, ACCOUNT),
    (Stage.AUTH, "530 5.7.0 must issue STARTTLS", B, ACCOUNT),
    (Stage.AUTH, "550 5.7.30 Basic authentication is not supported for Client Submission", B, ACCOUNT),
    (Stage.AUTH, "504 5.5.4 mechanism", B, ACCOUNT),
    (Stage.AUTH, "504 mechanism", B, ACCOUNT),
    (Stage.MAIL, "530 5.7.57 Client not authenticated to send mail", B, ACCOUNT),
    (Stage.MAIL, "530 5.7.0 Authentication Required", B, ACCOUNT),
    (Stage.MAIL, "550 5.7.1 Authentication required", B, ACCOUNT),
    (Stage.RCPT, "554 5.7.1 <ann@example.net>: Relay access denied", B, ACCOUNT),
    (Stage.RCPT, "550 5.7.1 Relaying denied", B, ACCOUNT),
    (Stage.RCPT, "550 relay not permitted", B, ACCOUNT),
    (Stage.RCPT, "550 5.7.1 Unable to relay", B, ACCOUNT),
    (Stage.RCPT, "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", B, ACCOUNT),
    (Stage.RCPT, "554 5.7.1 Client host [192.0.2.1] blocked using zen.example", B, ACCOUNT),
    (Stage.RCPT, "550 5.7.1 Authentication required", B, ACCOUNT),
    (Stage.DOT, "550 5.7.30 Basic authentication is not supported for Client Submission", B, ACCOUNT),
    (Stage.DOT, "550 5.7.501 Access denied, spam abuse detected", B, ACCOUNT),
    # -- the account: too much
    (Stage.AUTH, "454 4.7.0 Too many login attempts", D, ACCOUNT, 15 * MINUTE),
    (Stage.AUTH, "454 4.7.0 Temporary authentication failure", D, ACCOUNT),
    (Stage.AUTH, "432 4.3.2 concurrent connections", D, ACCOUNT),
    (Stage.AUTH, "432 4.7.12 A password transition is needed", D, ACCOUNT),
    (Stage.AUTH, "421 4.7.0 try later", D, ACCOUNT),
    (Stage.MAIL, "432 4.3.2 Concurrent connections limit exceeded", D, ACCOUNT),
    (Stage.RCPT, "550 5.4.5 Daily user sending limit exceeded", D, ACCOUNT, HOUR),
    (Stage.DOT, "550 5.4.5 Daily SMTP relay limit exceeded for user", D, ACCOUNT, HOUR),
    (Stage.DOT, "550 5.7.233 tenant external recipient rate limit", D, ACCOUNT, HOUR),
    (Stage.DOT, "454 Throttling failure: Maximum sending rate exceeded.", D, ACCOUNT),
    (Stage.MAIL, "454 Throttling failure: Daily message quota exceeded.", D, ACCOUNT, HOUR),
    (Stage.DOT, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed", D, ACCOUNT, HOUR),
    (Stage.DOT, "554 5.2.0 recipient rate limit exceeded", D, ACCOUNT, HOUR),
    (Stage.DOT, "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException", D, ACCOUNT, HOUR),
    (Stage.DOT, "554 5.2.2 mailbox full", D, ACCOUNT, HOUR),
    (Stage.RCPT, "450 4.7.1 rate limit exceeded", D, ACCOUNT),
    (Stage.RCPT, "550 Connection frequency limited", D, ACCOUNT),
    # -- the sender address
    (Stage.MAIL, "553 5.7.1 not owned by user", B, SENDER),
    (Stage.MAIL, "553 not yours", B, SENDER),
    (Stage.MAIL, "550 5.7.1 not authorised", B, SENDER),
    (Stage.MAIL, "550 5.7.60 client does not have permissions to send as this sender", B, SENDER),
    (Stage.MAIL, "550 5.1.8 sender denied", B, SENDER),
    (Stage.MAIL, "554 Message rejected: Email address is not verified.", B, SENDER),
    (Stage.RCPT, "553 5.7.1 <a@b>: Sender address rejected: not owned by user ann", B, SENDER),
    (Stage.RCPT, "550 5.1.8 Access denied, bad outbound sender", B, SENDER),
    (Stage.DOT, "550 5.1.8 Access denied, bad outbound sender", B, SENDER),
    (Stage.DOT, "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException", B, SENDER),
    (Stage.DOT, "554 Message rejected: Email address is not verified.", B, SENDER),
    (Stage.DOT, "550 5.7.60 not permitted to send as this sender", B, SENDER),
    # -- the message
    (Stage.MAIL, "552 5.3.4 message size exceeds limit", B, MESSAGE),
    (Stage.MAIL, "552 5.2.3 message too long", B, MESSAGE),
    (Stage.MAIL, "451 4.3.0 local error", D, MESSAGE),
    (Stage.MAIL, "503 5.5.1 nested MAIL", D, MESSAGE),
    (Stage.MAIL, "550 5.6.0 no", B, MESSAGE),
    (Stage.MAIL, "555 parameter", B, MESSAGE),
    (Stage.MAIL, None, D, MESSAGE),
    (Stage.RCPT, None, D, MESSAGE),
    (Stage.DATA, None, D, MESSAGE),
    (Stage.DATA, "451 4.3.0 later", D, MESSAGE),
    (Stage.DATA, "554 5.5.1 no valid recipients", B, MESSAGE),
    (Stage.DATA, "250 2.0.0 ok", D, MESSAGE),
    (Stage.BODY, None, D, MESSAGE),
    (Stage.BODY, "552 5.3.4 too big", B, MESSAGE),
    (Stage.DOT, "250 2.0.0 queued as 4X", A, MESSAGE),
    (Stage.DOT, "250 5.0.0 queued, says the code", A, MESSAGE),
    (Stage.DOT, "451 4.7.1 try again", D, MESSAGE),
    (Stage.DOT, "451 4.7.1 Greylisting in action", D, MESSAGE, 5 * MINUTE),
    (Stage.DOT, "552 5.2.2 mailbox full", B, MESSAGE),
    (Stage.DOT, "554 5.7.1 spam", B, MESSAGE),
    (Stage.DOT, "500 what", D, MESSAGE),
    # -- a doubt
    (Stage.DOT, None, X, MESSAGE),
    (Stage.DOT, "354 go on", X, MESSAGE),
    # -- the recipient
    (Stage.RCPT, "250 2.1.5 ok", D, RECIPIENT),
    (Stage.RCPT, "251 will forward", D, RECIPIENT),
    (Stage.RCPT, "450 4.2.0 greylisted", D, RECIPIENT, 5 * MINUTE),
    (Stage.RCPT, "450 4.7.1 Greylisted for 20 minutes", D, RECIPIENT, 20 * MINUTE + timedelta(seconds=10)),
    (Stage.RCPT, "450 4.7.1 come back", D, RECIPIENT, 5 * MINUTE),
    (Stage.RCPT, "451 4.7.1 come back", D, RECIPIENT, 5 * MINUTE),
    (Stage.RCPT, "451 You are on a graylist", D, RECIPIENT, 5 * MINUTE),
    (Stage.RCPT, "450 4.1.1 unverified", D, RECIPIENT),
    (Stage.RCPT, "451 4.3.0 later", D, RECIPIENT),
    (Stage.RCPT, "452 4.2.2 over quota", D, RECIPIENT),
    (Stage.RCPT, "452 4.2.2 rate limit of this mailbox", D, RECIPIENT),
    (Stage.RCPT, "452 4.5.3 too many recipients", D, RECIPIENT),
    (Stage.RCPT, "503 5.5.1 bad sequence", D, RECIPIENT),
    (Stage.RCPT, "550 5.1.1 no such user", B, RECIPIENT),
    (Stage.RCPT, "550 no such user", B, RECIPIENT),
    (Stage.RCPT, "551 not local", B, RECIPIENT),
    (Stage.RCPT, "553 5.1.3 syntax", B, RECIPIENT),
    (Stage.RCPT, "556 5.1.10 null MX", B, RECIPIENT),
    (Stage.RCPT, "550 5.7.1 not here", B, RECIPIENT),
    (Stage.RCPT, "550 4.1.1 says one thing and means another", B, RECIPIENT),
    (Stage.RCPT, "450 5.1.1 says one thing and means another", D, RECIPIENT),
    (Stage.RCPT, "552 5.2.2 Quota exceeded (mailbox for user is full)", B, RECIPIENT),
    (Stage.RCPT, "550 5.7.1 sender not authorized to send to this group", B, RECIPIENT),
    # -- ourselves
    (Stage.RENDER, "554 5.6.0 cannot be composed", B, MESSAGE),
    (Stage.POLICY, "554 5.7.1 not registered", B, MESSAGE),
    (Stage.LOCAL, "554 5.7.8 the password does not open", B, ACCOUNT),
    (Stage.LOCAL, "554 5.7.5 the DKIM key does not open", B, SENDER),
    (Stage.LOCAL, "454 4.7.0 the token endpoint does not answer", D, ACCOUNT),
    (Stage.LOCAL, "451 4.3.0 internal error", D, MESSAGE),
    # -- what changes nothing
    (Stage.RSET, "503 what", D, MESSAGE),
    (Stage.QUIT, "500 what", D, MESSAGE),
    (Stage.QUIT, None, D, MESSAGE),
]


def reply(text: str) -> Reply:
    """`text` as a relay writes it: code, enhanced status where there is one, words."""
    code, _, rest = text.partition(" ")
    status, _, words = rest.partition(" ")
    return Reply(int(code), status, words) if status.count(".") == 2 else Reply(int(code), "", rest)


@pytest.mark.parametrize(
    ("stage", "answer", "verdict", "scope", "delay"),
    [(*row, NOTHING)[:5] for row in TABLE],
    ids=[f"{row[3]} {row[2]}: {row[0]} {row[1]}" for row in TABLE],
)
def test_an_answer_has_a_verdict_and_a_reach(
    stage: Stage, answer: str | None, verdict: Verdict, scope: Scope, delay: timedelta
) -> None:
    outcome = classify(stage, reply(answer) if answer else None, dotted=stage is Stage.DOT)
    assert outcome == Outcome(verdict, scope, delay)


@pytest.mark.parametrize("meaning", MEANINGS, ids=lambda meaning: meaning.name)
def test_every_row_of_the_table_decides_its_own_example(meaning: Meaning) -> None:
    answer = reply(meaning.example) if meaning.example else None
    decided = [judge(stage, answer, dotted=bool(meaning.dotted)) for stage in meaning.stages]
    assert {each.outcome for each in decided if each.by is meaning} == {meaning.outcome}


def test_a_later_verdict_is_never_made_final_by_the_table() -> None:
    final = [each for each in MEANINGS if each.verdict is B and any(code < 500 for code in each.codes)]
    assert [each.name for each in final] == ["not-sendable"]  # there the relay was not asked
    assert len({each.name for each in MEANINGS}) == len(MEANINGS)


def test_an_accepted_mail_costs_no_search() -> None:
    accepted, rounds = reply("250 2.0.0 Ok: queued as 4XyZ"), 10_000
    seconds = min(timeit.repeat(lambda: classify(Stage.DOT, accepted, dotted=True), number=rounds, repeat=5))
    assert seconds / rounds < 2e-6  # 0.2 µs here; one search in a text costs more than the bound


# ---- properties


replies = st.builds(
    Reply,
    st.integers(200, 599) | st.sampled_from([0, 100, 199, 600, 999]),
    st.just("")
    | st.from_regex(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True)
    | st.sampled_from([status.replace("x", "5") for each in MEANINGS for status in each.statuses]),
    st.text(max_size=40)
    | st.sampled_from([each.example for each in MEANINGS])
    | st.from_regex(r"(try again|greylisted) (in|for) [0-9]{1,7} ?(s|min|hours|days)", fullmatch=True),
)
rules = st.lists(
    st.builds(
        Rule,
        st.integers(1, 9),
        st.just("*"),
        st.sampled_from(["4", "5", ".", "greylist", r"^5\d\d 5\.7"]),
        st.sampled_from([D, B]),
        st.sampled_from(Scope),
        st.sampled_from([NOTHING, HOUR]),
    ),
    max_size=3,
).map(tuple)


@given(st.sampled_from(Stage), st.none() | replies, st.booleans(), rules)
def test_every_answer_has_an_outcome(stage: Stage, answer: Reply | None, dotted: bool, rules: tuple[Rule, ...]) -> None:
    outcome = classify(stage, answer, dotted=dotted, rules=rules)
    assert outcome == judge(stage, answer, dotted=dotted, rules=rules).outcome
    if outcome.verdict is A:
        assert answer is not None
        assert (stage, dotted, answer.positive) == (Stage.DOT, True, True)
    if outcome.verdict is X:
        assert dotted
    if outcome.verdict is B:
        assert answer is not None
        assert answer.code >= 400 or stage in (Stage.RENDER, Stage.POLICY)
    if stage in BEFORE_MAIL | {Stage.AUTH} and outcome.verdict is not X:
        assert outcome.scope in (RELAY, ACCOUNT)
    longest = timedelta(hours=24 if outcome.scope is ACCOUNT else 4)
    assert NOTHING <= outcome.delay <= longest


@given(replies)
def test_nothing_but_2xx_to_the_dot_is_taken_for_acceptance(answer: Reply) -> None:
    accepted = classify(Stage.DOT, answer, dotted=True).verdict is A
    assert accepted == (200 <= answer.code < 300)


@given(st.sampled_from(Stage), replies, st.booleans())
def test_a_4yz_is_never_final_and_only_a_refusal_is(stage: Stage, answer: Reply, dotted: bool) -> None:
    verdict = classify(stage, answer, dotted=dotted).verdict
    if 200 <= answer.code < 500 and stage not in (Stage.RENDER, Stage.POLICY):
        assert verdict is not B


@given(
    st.integers(400, 599).filter(lambda code: code != 421),
    st.sampled_from([1, 2]),
    st.integers(0, 30).filter(lambda detail: detail not in (7, 8)),
    st.sampled_from([each.example for each in MEANINGS] + [each for row in MEANINGS for each in row.words]),
)
def test_what_is_said_of_a_mailbox_reaches_no_further(code: int, subject: int, detail: int, words: str) -> None:
    outcome = classify(Stage.RCPT, Reply(code, f"{code // 100}.{subject}.{detail}", words))
    assert outcome.scope is RECIPIENT


@given(st.integers(400, 599), st.sampled_from([each.example for each in MEANINGS]), st.sampled_from(Stage))
def test_a_status_of_another_class_than_the_code_is_none(code: int, words: str, stage: Stage) -> None:
    other = {4: "5.7.57", 5: "4.7.12"}[code // 100]
    assert classify(stage, Reply(code, other, words)) == classify(stage, Reply(code, "", words))


# ---- when to come back


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("try again in 300 seconds", timedelta(seconds=300)),
        ("Please try again in 5 minutes.", 5 * MINUTE),
        ("Please retry in 1 hour", HOUR),
        ("retry after 60s", MINUTE),
        ("Retry-After: 90 sec", timedelta(seconds=90)),
        ("Greylisted for 5 minutes", 5 * MINUTE),
        ("Greylisting in action, please come back in 00:05:00", 5 * MINUTE),
        ("come back in 01:02:03", HOUR + 2 * MINUTE + timedelta(seconds=3)),
        ("wait at least 2 hrs before sending", 2 * HOUR),
        ("try again in 1 day", timedelta(days=1)),
        ("TRY AGAIN IN 10 MIN", 10 * MINUTE),
        ("try again later", NOTHING),
        ("mailbox has had 300 messages in 5 minutes", NOTHING),
        ("try again later, limit is 5 messages", NOTHING),
        ("try again in 300", NOTHING),
        ("", NOTHING),
        ("x" * 2000 + " try again in 300 seconds", NOTHING),
    ],
)
def test_a_relay_that_says_when_is_understood(text: str, expected: timedelta) -> None:
    assert hinted(text) == expected


def test_a_hint_is_honoured_within_bounds_and_only_where_it_is_tried_again() -> None:
    def delay(stage: Stage, answer: str) -> timedelta:
        return classify(stage, reply(answer)).delay

    margin = timedelta(seconds=10)
    assert delay(Stage.RCPT, "451 4.3.0 try again in 600 seconds") == timedelta(seconds=600) + margin
    assert delay(Stage.RCPT, "451 4.3.0 try again in 9 days") == timedelta(hours=4)
    assert delay(Stage.RCPT, "450 4.7.1 greylisted, try again in 1 minute") == 5 * MINUTE
    assert delay(Stage.BANNER, "421 4.3.2 too busy, try again in 30 minutes") == 30 * MINUTE + margin
    assert delay(Stage.MAIL, "454 Throttling failure, retry in 5 hours") == 5 * HOUR + margin
    assert delay(Stage.MAIL, "454 Throttling failure, retry in 3 days") == timedelta(hours=24)
    assert delay(Stage.DOT, "550 5.7.1 spam, do not try again in 5 minutes") == NOTHING


# ---- too many recipients


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
