"""Words that are stored, said in JSON or asked for on the command line, and the numbers that are documented."""

from __future__ import annotations

from enum import StrEnum

import pytest

from outbox.core import account, dkim, header, lifecycle, limits, notice, outcome, pickup, presets, settlement, staging
from outbox.core.fate import Fate
from outbox.core.lifecycle import ALLOWED_FROM, BECOMES, DEAD, FINAL, State, Verb
from outbox.core.presets import PRESETS, Provider
from outbox.store.events import Channel, Kind
from outbox.store.statistics import By

WORDS: list[tuple[type[StrEnum], str]] = [
    (account.Tls, "implicit starttls opportunistic none"),
    (account.Mechanism, "auto plain login cram-md5 scram-sha-256 xoauth2 oauthbearer"),
    (dkim.Algorithm, "rsa-sha256 ed25519-sha256"),
    (Fate, "pending accepted deferred bounced doubt"),
    (lifecycle.State, "queued sending sent failed expired held cancelled"),
    (lifecycle.Verb, "retry hold release cancel resolve-sent resolve-resend"),
    (limits.Limited, "account sender domain"),
    (limits.Span, "minute hour day"),
    (notice.Action, "failed delayed"),
    (
        outcome.Stage,
        "render policy local dns connect banner ehlo starttls tls auth mail rcpt data body dot rset quit",
    ),
    (outcome.Verdict, "accept defer bounce doubt"),
    (outcome.Scope, "relay account sender message recipient"),
    (pickup.Mode, "pickup replay mqd"),
    (pickup.Archive, "on-outcome on-ingest"),
    (pickup.Result, "sent partial bad"),
    (presets.Provider, "gmail gmail-workspace microsoft365 ses"),
    (settlement.Result, "accepted deferred bounced doubt lost relinquished paused"),
    (staging.Mode, "live redirect allowlist off"),
    (Kind, "accepted delayed bounced expired doubt paused"),
    (Channel, "webhook notices"),
    (By, "sender code day"),
]


@pytest.mark.parametrize(("kind", "words"), WORDS, ids=[kind.__qualname__ for kind, _ in WORDS])
def test_the_words_of_a_kind_stay(kind: type[StrEnum], words: str) -> None:
    assert [str(each) for each in kind] == words.split()


def test_what_an_operator_may_do_to_what_and_what_it_becomes() -> None:
    waiting, held = {State.QUEUED}, {State.HELD}
    dead = {State.FAILED, State.EXPIRED}
    assert {verb: (set(ALLOWED_FROM[verb]), BECOMES[verb]) for verb in Verb} == {
        Verb.RETRY: (waiting | held | dead, State.QUEUED),
        Verb.HOLD: (waiting, State.HELD),
        Verb.RELEASE: (held, State.QUEUED),
        Verb.CANCEL: (waiting | held, State.CANCELLED),
        Verb.RESOLVE_SENT: (held, State.SENT),
        Verb.RESOLVE_RESEND: (held, State.QUEUED),
    }
    assert set(DEAD) == dead
    assert set(FINAL) == dead | {State.SENT, State.CANCELLED}


def test_which_fields_of_a_header_are_ours() -> None:
    assert sorted(header.RESERVED_HEADERS) == [
        *("bcc", "cc", "date", "dkim-signature", "from", "message-id", "received", "reply-to", "return-path"),
        *("sender", "subject", "to", "x-receiver", "x-sender"),
    ]
    assert header.RESERVED_PREFIXES == ("mime-", "content-", "resent-")
    assert (header.MAX_FIELDS, header.MAX_NAME, header.MAX_VALUE) == (100, 76, 65536)


def test_what_is_known_of_providers() -> None:
    """host, port, tls, mechanism, connections by one runner and by all, messages over one; a minute, a day."""
    said = {
        provider: (
            *(each.host, each.port, str(each.tls), str(each.mechanism)),
            *(each.connections, each.together, each.messages, each.per_minute, each.per_day),
        )
        for provider, each in PRESETS.items()
    }
    assert said == {
        Provider.GMAIL: ("smtp.gmail.com", 587, "starttls", "auto", 3, None, 100, None, 500),
        Provider.GMAIL_WORKSPACE: ("smtp.gmail.com", 587, "starttls", "auto", 3, None, 100, None, 2000),
        Provider.MICROSOFT365: ("smtp.office365.com", 587, "starttls", "xoauth2", 3, 3, 100, 30, 10000),
        Provider.SES: ("email-smtp.{region}.amazonaws.com", 587, "starttls", "auto", 10, None, 100, 840, 50000),
    }
    assert PRESETS[Provider.SES].limit("x").connections is None
    assert PRESETS[Provider.MICROSOFT365].limit("x").connections == 3
