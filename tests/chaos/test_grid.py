"""Every cell of the grid, over real sockets: see `tests.chaos.grid`.

Besides what the cell expects, of every cell: nobody is called accepted without a 2xx to the dot that the relay's ledger
knows of; whatever the relay took is called accepted or a doubt; no attempt takes longer than its deadline and a second;
and a relay that never stops talking costs little memory.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import sys
import time
import tracemalloc
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from outbox.core.judge import classify
from outbox.core.lifecycle import State
from outbox.core.message import Recipient
from outbox.core.outcome import Report, Scope, Stage, Verdict
from outbox.core.reply import MAX_OCTETS, MalformedReply, ReplyParser
from outbox.core.settlement import Attempt, Claim, Fate, Policy, Settlement, Trial, decide, fates_of
from outbox.smtp.connection import Connection, Deadlines, Relay
from tests import relay as scripted
from tests.chaos.grid import (
    ACTIONS,
    AFTERWARDS,
    SEED,
    SIGNING,
    SLOW,
    STAGES,
    Expected,
    cells,
    deferred,
    expected,
    script,
)
from tests.relay import DROP, Flood, Plus, server_context
from tests.smtp.sending import ANN, BIG, BOB, HELLO, TO_ALL, Mark, account, deadlines, run, send

SHORT = 0.25
PASSWORD = "correct horse"
DEADLINE = {
    "connect": "tls",
    "ehlo-tls": "ehlo",
    "response": "auth",
    "rcpt-first": "rcpt",
    "rcpt-later": "rcpt",
    "idle": "mail",
}
"""Of the stage in `Deadlines`, where it is called otherwise."""
RECIPIENTS = tuple(Recipient(position, address, "to") for position, address in enumerate(TO_ALL.recipients, 1))
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Peer:
    """The certificate of every relay here, and who signed it."""

    context: ssl.SSLContext
    ca_file: str


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Peer:
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return Peer(server_context(authority.issue_cert("127.0.0.1")), str(path))


@dataclass(frozen=True)
class Story:
    """What came of a cell: the report of the message in question, how long the longest attempt took, in seconds, and
    what the relay's ledger says of each message it took.
    """

    report: Report
    seconds: float
    ledger: list[dict[str, object]]


async def attempt(settings: Relay, stage: str, limits: Deadlines) -> Report:
    """One message, or two where the cell is about what follows the first; a stale connection is replaced, as the runner
    does. The report of the last.
    """
    message = BIG if stage in ("data", "body") else HELLO
    connection = await Connection.open(settings, limits)
    if isinstance(connection, Report):
        return connection
    try:
        report = await connection.deliver(TO_ALL, message, Mark())
        if stage not in ("rset", "idle"):
            return report
        assert report.reply is not None
        assert (report.stage, report.reply.code) == (Stage.DOT, 451 if stage == "rset" else 250)
        if stage == "idle":
            await noticed(connection)
        report = await connection.deliver(TO_ALL, message, Mark())
    finally:
        await connection.close()
    return await send(settings, TO_ALL, message) if report.stale else report


async def noticed(connection: Connection) -> None:
    """Until what the relay does unasked has been noticed; a relay that does nothing is not waited for much longer."""
    for _ in range(100):
        if not connection.usable:
            return
        await asyncio.sleep(0.001)


def play(stage: str, action: str, pipelining: bool, peer: Peer, ledger: Path) -> Story:
    chance = random.Random(f"{SEED} {stage} {action} {pipelining}")
    extensions = tuple(each for each in scripted.EXTENSIONS if pipelining or each != "PIPELINING")
    tls = "implicit" if stage == "connect" else "starttls"
    ledger.unlink(missing_ok=True)
    impatient = {DEADLINE.get(stage, stage): SHORT} if action in SLOW and stage != "quit" else {}
    limits = deadlines(quit=SHORT, **impatient)
    with scripted.Relay(
        script(stage, action, chance),
        extensions=extensions,
        tls=tls,
        context=peer.context,
        credentials={"ann": PASSWORD},
        mechanisms=("LOGIN",),
        ledger=ledger,
        receive_buffer=4096 if stage == "body" else 0,
    ) as relay:
        settings = account(relay, tls=tls, ca_file=peer.ca_file, username="ann", password=PASSWORD)
        began = time.monotonic()
        report = run(attempt(settings, stage, limits))
        seconds = time.monotonic() - began
    taken = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    return Story(report, seconds, taken)


@pytest.mark.parametrize(
    ("stage", "action", "pipelining"),
    [pytest.param(*cell, id=f"{cell[0]}-{cell[1]}{'' if cell[2] else '-one-by-one'}") for cell in cells()],
)
def test_a_cell(stage: str, action: str, pipelining: bool, peer: Peer, tmp_path: Path) -> None:
    story = play(stage, action, pipelining, peer, tmp_path / "ledger")
    for _ in range(2):  # a machine that was busy with something else is not the client's fault
        if story.seconds > SHORT + 1:
            story = play(stage, action, pipelining, peer, tmp_path / "ledger")
    wanted = expected(stage, action, pipelining=pipelining)
    if wanted.or_else is not None and story.report.stage not in wanted.stages:
        wanted = wanted.or_else
    if stage == "idle":
        first = story.ledger.pop(0)
        assert first["recipients"] == list(TO_ALL.recipients)
    fates = check(story, wanted)
    keeps_the_promise(story, fates)
    assert story.seconds <= SHORT + 1
    assert PASSWORD not in f"{story.report}"


def check(story: Story, wanted: Expected) -> tuple[Fate, ...]:
    """The report is as the cell wants it. The fates of its recipients."""
    report = story.report
    outcome = classify(report.stage, report.reply, dotted=report.dotted)
    fates = fates_of(Trial(RECIPIENTS, report))
    seen = (outcome.verdict, outcome.scope, tuple(each.fate for each in fates))
    assert seen == (wanted.verdict, wanted.scope, wanted.fates), report
    assert report.stage in wanted.stages, report
    assert len(story.ledger) in wanted.copies
    settlement = decide(Attempt(Claim(1, 1, "shop@example.com"), fates), Policy(), NOW, 0.0)
    assert_settled(settlement, wanted)
    return tuple(each.fate for each in fates)


def assert_settled(settlement: Settlement, wanted: Expected) -> None:
    """The state that such fates lead to: a fault beyond the message costs it nothing, and is somebody else's pause."""
    left = any(fate in (Fate.DEFERRED, Fate.DOUBT) for fate in wanted.fates)
    state = State.QUEUED if left else State.FAILED if Fate.BOUNCED in wanted.fates else State.SENT
    beyond = wanted.scope in (Scope.RELAY, Scope.ACCOUNT)
    own_failure = Fate.DEFERRED in wanted.fates and not beyond
    assert (settlement.state, settlement.doubted) == (state, wanted.verdict is Verdict.DOUBT)
    assert (settlement.pause.scope if settlement.pause else None) == (wanted.scope if beyond else None)
    assert settlement.failures == int(own_failure)


def keeps_the_promise(story: Story, fates: tuple[Fate, ...]) -> None:
    """Accepted is a 2xx to the dot, and in the ledger; what is in the ledger is accepted, or announced as a doubt."""
    report, taken = story.report, [set(entry["recipients"]) for entry in story.ledger]  # type: ignore[call-overload]
    for recipient, fate in zip(TO_ALL.recipients, fates, strict=True):
        copies = sum(recipient in each for each in taken)
        if fate is Fate.ACCEPTED:
            assert report.dotted
            assert report.reply is not None
            assert (report.stage.value, report.reply.code // 100, copies) == ("dot", 2, 1)
        assert copies <= (fate in (Fate.ACCEPTED, Fate.DOUBT)), f"{recipient} has it, and is called {fate}"


def test_the_grid_is_as_large_as_it_says() -> None:
    assert len(STAGES) >= 14
    assert len(ACTIONS) >= 12
    assert len(list(cells())) >= 14 * 12
    assert len({(stage, action) for stage, action, _ in cells()}) == len(STAGES) * len(ACTIONS)
    for stage, action, pipelining in cells():
        assert expected(stage, action, pipelining=pipelining)
    assert {"auth", "response"} == set(SIGNING)
    assert {"rset", "quit", "idle"} == set(AFTERWARDS)


@pytest.mark.parametrize("answers", [True, False], ids=["refuses", "is silent"])
def test_a_port_that_takes_no_connection_is_the_relays_fault_in_time(answers: bool) -> None:
    """Nobody listens; or the kernel holds as many connections as it will, and says nothing to another."""
    if not answers and sys.platform != "linux":
        pytest.skip("other kernels hold more connections than they are asked to")
    with socket.socket() as port, ExitStack() as stack:
        port.bind(("127.0.0.1", 0))
        if not answers:
            port.listen(0)
            stack.enter_context(closing(socket.create_connection(port.getsockname(), 5)))
        settings = Relay("127.0.0.1", port.getsockname()[1], "starttls")
        began = time.monotonic()
        report = run(send(settings, TO_ALL, limits=deadlines(connect=SHORT)))
        seconds = time.monotonic() - began
    check(Story(report, seconds, []), deferred(Stage.CONNECT, Scope.RELAY))
    assert seconds <= SHORT + 1


MIB = 1024 * 1024


@pytest.mark.parametrize("octets", [b"250 " + b"x" * 60_000, b"250-again\r\n" * 6_000], ids=["a line", "lines"])
@pytest.mark.parametrize("stage", ["banner", "ehlo-tls", "mail", "dot"])
def test_a_reply_without_end_costs_little_memory(stage: str, octets: bytes, peer: Peer) -> None:
    """The relay has 64 MB to say. What is held of it is a reply of 64 KiB, and what asyncio reads at a time."""
    with scripted.Relay({stage: Flood(octets)}, tls="starttls", context=peer.context) as relay:
        settings = account(relay, tls="starttls", ca_file=peer.ca_file)
        tracemalloc.start()
        try:
            report = run(send(settings))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert "a reply of more than" in report.fault
    assert peak < 2 * MIB


@pytest.mark.parametrize("octets", [b"x" * 4096, b"again\r\n250-" * 30], ids=["a line", "lines"])
def test_the_parser_holds_no_more_than_a_reply(octets: bytes) -> None:
    assert fed_until_it_objects(b"250-", octets) <= MAX_OCTETS + 2 * len(octets)


def fed_until_it_objects(first: bytes, octets: bytes) -> int:
    parser, fed = ReplyParser(), 0
    parser.feed(first)
    with suppress(MalformedReply):
        while fed < 100 * MAX_OCTETS:
            parser.feed(octets)
            fed += len(octets)
            parser.take()
    return fed


@pytest.mark.parametrize("stage", ["mail", f"rcpt:{ANN}"])
def test_nobody_is_refused_by_a_reply_that_is_out_of_step(stage: str) -> None:
    """With one reply too many before it, Bob's refusal looks like Cyd's."""
    with scripted.Relay({stage: Plus("250 more"), f"rcpt:{BOB}": "550 5.1.1 no such user"}) as relay:
        report = run(send(account(relay), TO_ALL))
    assert [each.fate for each in fates_of(Trial(RECIPIENTS, report))] == [Fate.DEFERRED] * 3
    assert relay.messages == []


@pytest.mark.parametrize("script", [{"ehlo": Plus("250 more")}, {"ehlo": (None, DROP)}], ids=["talks", "closes"])
def test_a_relay_that_lets_us_in_and_is_of_no_use_is_not_tried_again_at_once(script: dict[str, Any]) -> None:
    """A stale report would send the runner back to it, for ever."""
    with scripted.Relay(script) as relay:
        report = run(send(account(relay), TO_ALL))
        if script["ehlo"] == Plus("250 more"):
            assert isinstance(run(Connection.open(account(relay), deadlines())), Report)
    assert (report.stale, report.reply, report.dotted) == (False, None, False)
    assert report.stage in (Stage.EHLO, Stage.MAIL)
