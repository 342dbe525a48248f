"""The chaos grid: at every stage of a session, everything a relay can do wrong, and what must come of it.

A cell is a stage and an action. `script` says how the scripted relay does it; `expected` says what the report, the
verdict, its reach and the fate of each recipient must be. The expectations are a table of rules, the first that fits,
and before them the exceptions, one by one. They are written from SMTP.md §2.2, and ask nothing of the code under test.

A session goes over STARTTLS and AUTH LOGIN, to three recipients; `connect` is before the handshake of implicit TLS. At
`rset`, `quit` and `idle` a message has been settled before, and another follows.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from outbox.core.outcome import Scope, Stage, Verdict
from outbox.core.settlement import Fate
from tests.relay import DROP, HANG, RST, Accept, Drip, Flood, Plus
from tests.smtp.sending import ANN, BOB

SEED = os.environ.get("OUTBOX_CHAOS_SEED", "20260728")
PROMPT = "334 VXNlcm5hbWU6"

OPENING = {
    "connect": Stage.TLS,
    "banner": Stage.BANNER,
    "ehlo": Stage.EHLO,
    "starttls": Stage.STARTTLS,
    "tls": Stage.TLS,
    "ehlo-tls": Stage.EHLO,
}
SIGNING = {"auth": Stage.AUTH, "response": Stage.AUTH}
SENDING = {
    "mail": Stage.MAIL,
    "rcpt-first": Stage.RCPT,
    "rcpt-later": Stage.RCPT,
    "data": Stage.DATA,
    "body": Stage.BODY,
}
AFTERWARDS = ("rset", "quit", "idle")
STAGES = (*OPENING, *SIGNING, *SENDING, "dot", *AFTERWARDS)

LIES = {
    "connect": "250 hello",
    "banner": "250 hello",
    "ehlo": "354 go on",
    "starttls": "250 ok",
    "tls": "250 ok",
    "ehlo-tls": "354 go on",
    "auth": "250 come in",
    "response": "250 come in",
    "data": "250 ok",
    "body": "250 enough",
}
"""A reply that is well-formed, positive, and not the one that is due. Elsewhere: 354."""

SILENT = ("drip", "drop", "rst", "hang", "wide", "endless", "class", "garbage", "codes", "half")
"""Actions that are no reply, whatever is said."""

SLOW = ("drip", "hang")
"""Those of them that only a deadline ends."""

REFUSALS = {"421": "421 4.3.2 closing", "451": "451 4.3.0 later", "554": "554 5.6.0 no"}
ACTIONS = (*SILENT, "lie", "early", "vanish", *REFUSALS)


def script(stage: str, action: str, chance: random.Random) -> dict[str, Any]:
    """The relay's script for this cell."""
    answer = _answer(stage, action, chance)
    if stage == "dot":
        taken = action in SILENT[:4] or action == "vanish" or chance.random() < 0.5
        certain = action in REFUSALS or action == "early"
        return {"dot": Accept(answer) if taken and not certain else answer}
    if stage == "rset":
        return {"dot": ["451 4.3.0 later", None], "rset": [answer]}
    if stage == "idle":
        return {"dot": [answer, None]}
    if stage == "rcpt-first":
        return {f"rcpt:{ANN}": answer}
    if stage == "rcpt-later":
        return {f"rcpt:{BOB}": answer}
    if stage in ("ehlo", "banner"):
        return {stage: [answer]}
    return {stage: answer}


def _answer(stage: str, action: str, chance: random.Random) -> Any:
    simple = _wrong(stage, action, chance)
    if stage == "idle":  # the message before it was taken, and this is said unasked
        return Plus(simple) if isinstance(simple, str) else (None, simple)
    if stage == "connect":  # and an honest handshake after it
        return (simple + "\r\n" if isinstance(simple, str) else simple, None)
    return simple


def _wrong(stage: str, action: str, chance: random.Random) -> Any:
    ready: dict[str, Callable[[], Any]] = {
        "drip": lambda: Drip("250-" + "x" * 2000, chance.uniform(0.01, 0.03)),
        "drop": lambda: DROP,
        "rst": lambda: RST,
        "hang": lambda: HANG,
        "wide": lambda: Flood(b"250 " + b"x" * chance.randrange(30_000, 70_000)),
        "endless": lambda: Flood(b"250-again\r\n" * chance.randrange(3_000, 7_000)),
        "class": lambda: chance.choice(["150 wait", "650 what", "99 red", "2500 ok", "OK"]),
        "garbage": lambda: b"\0" + chance.randbytes(chance.randrange(1, 300)) + b"\r\n",
        "codes": lambda: "250-one\r\n251 or another",
        "half": lambda: (chance.choice([b"2", b"25", b"250", b"250 o", b"250-x\r\n250"]), DROP),
        "lie": lambda: LIES.get(stage, "354 go on"),
        "early": lambda: _early(stage),
        "vanish": lambda: _vanish(stage),
    }
    return ready[action]() if action in ready else REFUSALS[action]


def _early(stage: str) -> Any:
    """The honest reply, and one that nobody has asked for, in one segment."""
    if stage in ("connect", "tls", "body", "idle"):
        return "250 already"
    explicit = {"auth": f"{PROMPT}\r\n235 come in", "response": "235 come in\r\n250 more"}
    return explicit.get(stage, Plus("250 more"))


def _vanish(stage: str) -> Any:
    """The honest reply, and then the line is dead."""
    explicit = {"auth": (PROMPT, DROP), "response": ("235 come in", DROP)}
    silent = ("connect", "tls", "body", "dot")
    return DROP if stage in silent else explicit.get(stage, (None, DROP))


# ---------------------------------------------------------------- what must come of it

THREE = 3


@dataclass(frozen=True)
class Expected:
    """`stages`: where the report may end, nearly always one. `fates` of the three recipients. `copies`: how many
    messages the relay may have taken when all is over. `or_else`: where it ends elsewhere, by a race that nobody can
    decide.
    """

    stages: frozenset[Stage]
    verdict: Verdict
    scope: Scope
    fates: tuple[Fate, ...]
    copies: frozenset[int]
    or_else: Expected | None = None


def _all(
    stage: Stage, verdict: Verdict, scope: Scope, fate: Fate, copies: tuple[int, ...] = (0,), *also: Stage
) -> Expected:
    return Expected(frozenset({stage, *also}), verdict, scope, (fate,) * THREE, frozenset(copies))


def deferred(stage: Stage, scope: Scope, *also: Stage) -> Expected:
    return _all(stage, Verdict.DEFER, scope, Fate.DEFERRED, (0,), *also)


ACCEPTED = _all(Stage.DOT, Verdict.ACCEPT, Scope.MESSAGE, Fate.ACCEPTED, (1,))
NOT_LOGGED_IN = _all(Stage.MAIL, Verdict.BOUNCE, Scope.ACCOUNT, Fate.DEFERRED)
RELAY, ACCOUNT, MESSAGE = Scope.RELAY, Scope.ACCOUNT, Scope.MESSAGE

EXCEPTIONS = {
    # A reset may overtake what was said before it.
    ("connect", "rst"): deferred(Stage.TLS, RELAY, Stage.CONNECT),
    ("banner", "rst"): deferred(Stage.BANNER, RELAY, Stage.CONNECT),
    ("tls", "rst"): deferred(Stage.TLS, RELAY, Stage.STARTTLS),
    # An extra reply is noticed, or a dead line met, when the next thing is said.
    ("banner", "early"): deferred(Stage.EHLO, RELAY),
    ("banner", "vanish"): deferred(Stage.EHLO, RELAY),
    ("ehlo", "early"): deferred(Stage.STARTTLS, RELAY),
    ("ehlo", "vanish"): deferred(Stage.STARTTLS, RELAY),
    ("starttls", "early"): deferred(Stage.TLS, RELAY),
    ("starttls", "vanish"): deferred(Stage.TLS, RELAY),
    ("ehlo-tls", "early"): deferred(Stage.AUTH, RELAY),
    ("ehlo-tls", "vanish"): deferred(Stage.AUTH, RELAY),
    ("response", "vanish"): replace(deferred(Stage.AUTH, RELAY), or_else=deferred(Stage.MAIL, MESSAGE)),
    ("mail", "vanish"): deferred(Stage.RCPT, MESSAGE),
    ("data", "early"): deferred(Stage.BODY, MESSAGE),
    ("data", "vanish"): deferred(Stage.BODY, MESSAGE),
    # It says that we are in, and does not know us when we send.
    ("auth", "lie"): NOT_LOGGED_IN,
    ("response", "lie"): NOT_LOGGED_IN,
}

ONE_BY_ONE = {
    ("mail", "early"): deferred(Stage.RCPT, MESSAGE),
}
PIPELINED = {
    # Everything is one reply out of step, and DATA is answered by what a recipient was.
    ("mail", "early"): deferred(Stage.DATA, MESSAGE),
    ("rcpt-first", "early"): deferred(Stage.DATA, MESSAGE),
    ("rcpt-later", "early"): deferred(Stage.DATA, MESSAGE),
}

Place = tuple[str, ...]
RULES: list[tuple[Place, Place, Callable[[str, str], Expected]]] = [
    (tuple(OPENING), ACTIONS, lambda stage, _: deferred(OPENING[stage], RELAY)),
    (tuple(SIGNING), (*SILENT, "early", "vanish"), lambda stage, _: deferred(Stage.AUTH, RELAY)),
    (tuple(SIGNING), ("421", "451"), lambda stage, _: deferred(Stage.AUTH, ACCOUNT)),
    (tuple(SIGNING), ("554",), lambda *_: _all(Stage.AUTH, Verdict.BOUNCE, ACCOUNT, Fate.DEFERRED)),
    ((*SENDING,), ("421",), lambda stage, _: deferred(SENDING[stage], RELAY)),
    (("rcpt-first", "rcpt-later"), ("451", "554"), lambda stage, action: _partly(stage, action)),
    (tuple(SENDING), ("554",), lambda stage, _: _all(SENDING[stage], Verdict.BOUNCE, MESSAGE, Fate.BOUNCED)),
    (tuple(SENDING), ACTIONS, lambda stage, _: deferred(SENDING[stage], MESSAGE)),
    (("dot",), ("421",), lambda *_: deferred(Stage.DOT, RELAY)),
    (("dot",), ("451",), lambda *_: deferred(Stage.DOT, MESSAGE)),
    (("dot",), ("554",), lambda *_: _all(Stage.DOT, Verdict.BOUNCE, MESSAGE, Fate.BOUNCED)),
    (("dot",), ("early",), lambda *_: ACCEPTED),
    (("dot",), ACTIONS, lambda *_: _all(Stage.DOT, Verdict.DOUBT, MESSAGE, Fate.DOUBT, (0, 1))),
    (AFTERWARDS, ACTIONS, lambda *_: ACCEPTED),
]


def _partly(stage: str, action: str) -> Expected:
    """One is refused, for itself alone, and the others get the message."""
    fates = [Fate.ACCEPTED] * THREE
    fates[0 if stage == "rcpt-first" else 1] = Fate.BOUNCED if action == "554" else Fate.DEFERRED
    return Expected(frozenset({Stage.DOT}), Verdict.ACCEPT, MESSAGE, tuple(fates), frozenset({1}))


def expected(stage: str, action: str, *, pipelining: bool) -> Expected:
    for exceptions in (EXCEPTIONS, PIPELINED if pipelining else ONE_BY_ONE):
        if (stage, action) in exceptions:
            return exceptions[stage, action]
    return next(rule(stage, action) for stages, actions, rule in RULES if stage in stages and action in actions)


def cells() -> Iterator[tuple[str, str, bool]]:
    """Stage, action, and whether PIPELINING is offered, which matters from MAIL on."""
    for stage in STAGES:
        for action in ACTIONS:
            yield stage, action, True
            if stage in SENDING:
                yield stage, action, False
