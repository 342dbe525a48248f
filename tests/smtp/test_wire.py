"""A connection over a transport in memory: every order of what a network does, without a network."""

from __future__ import annotations

import asyncio
import socket
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from outbox.core.outcome import Report, Stage
from outbox.core.render import Rendered
from outbox.core.secret import Secret
from outbox.smtp.connection import CHUNK, Connection
from outbox.smtp.relay import Deadlines, Relay
from tests.smtp.sending import HELLO, TO_ANN, Mark, deadlines, run
from tests.smtp.test_sasl import SERVER_FIRST

PLACE = Relay("relay.example", 25, "none", helo="client.example")
THREE = Rendered(b"x" * (3 * CHUNK - 2) + b"\r\n", False, False)


class Wire(asyncio.Transport):
    """Keeps what is written. `abort` ends it, as it does a socket: in the next turn of the loop."""

    def __init__(self, connection: Connection, peer: object = ("127.0.0.1", 25)) -> None:
        super().__init__({"peername": peer})
        self.connection, self.written, self.limits = connection, list[bytes](), dict[str, int]()
        self.closed = False

    def write(self, octets: Any) -> None:
        assert not self.closed
        self.written.append(bytes(octets))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = {"high": high or 0, "low": low or 0}

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def hear(self, *lines: bytes) -> None:
        self.connection.data_received(b"".join(line + b"\r\n" for line in lines))


def plugged(limits: Deadlines | None = None, relay: Relay = PLACE, peer: object = ("127.0.0.1", 25)) -> Wire:
    wire = Wire(Connection(relay, limits or deadlines()), peer)
    wire.connection.connection_made(wire)
    return wire


async def opened(limits: Deadlines | None = None) -> Wire:
    """After the EHLO of a relay that offers PIPELINING."""
    wire = plugged(limits)
    opening = asyncio.ensure_future(wire.connection._carry_on())
    wire.hear(b"220 hello")
    wire.hear(b"250-relay.example", b"250 PIPELINING")
    assert await opening is None
    wire.written.clear()
    return wire


async def settled() -> None:
    """Everything that is ready has run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def until_body(wire: Wire, message: Rendered, mark: Callable[[], Awaitable[bool]]) -> asyncio.Task[Report]:
    delivery = asyncio.ensure_future(wire.connection.deliver(TO_ANN, message, mark))
    await settled()
    assert wire.written.pop().startswith(b"MAIL FROM:<shop@example.com>\r\nRCPT TO:<ann@example.net>\r\nDATA\r\n")
    wire.hear(b"250 ok", b"250 ok", b"354 go on")
    return delivery


def test_a_chunk_is_64_kib() -> None:
    assert CHUNK == 65536


def test_who_is_at_the_other_end_is_known_before_anything_is_said() -> None:
    async def story() -> None:
        wire = plugged()
        assert (wire.limits, wire.written) == ({"high": 1, "low": 0}, [])
        assert wire.connection.relay_name == "relay.example[127.0.0.1]:25"
        assert wire.connection.session.loopback
        elsewhere = plugged(peer=("192.0.2.1", 25)).connection
        assert not elsewhere.session.loopback
        assert elsewhere.relay_name == "relay.example[192.0.2.1]:25"
        assert plugged(peer=None).connection.relay_name == "relay.example[]:25"

    run(story())


def test_what_was_never_connected_can_be_given_up() -> None:
    async def story() -> None:
        connection = Connection(PLACE, deadlines())
        assert connection.usable
        connection.abort()
        assert not connection.usable

    run(story())


def test_a_long_body_is_written_chunk_by_chunk_as_the_network_takes_it() -> None:
    async def story() -> None:
        wire, mark = await opened(), Mark()
        delivery = await until_body(wire, THREE, mark)
        wire.connection.pause_writing()
        await settled()
        assert ([len(each) for each in wire.written], mark.asked) == ([CHUNK], 0)
        wire.connection.resume_writing()
        wire.connection.pause_writing()
        await settled()
        assert ([len(each) for each in wire.written], mark.asked) == ([CHUNK] * 2, 0)
        wire.connection.resume_writing()
        wire.connection.pause_writing()
        await settled()
        assert ([len(each) for each in wire.written], mark.asked) == ([CHUNK] * 3, 1)
        wire.connection.resume_writing()
        await settled()
        assert b"".join(wire.written) == THREE.data + b".\r\n"
        assert [len(each) for each in wire.written] == [CHUNK] * 3 + [3]
        wire.hear(b"250 queued")
        report = await delivery
        assert (report.stage, report.dotted, report.reply and report.reply.code) == (Stage.DOT, True, 250)
        assert (wire.connection.delivered, wire.connection.usable) == (1, True)

    run(story())


def test_the_dot_waits_until_the_network_has_taken_the_last_chunk() -> None:
    async def story() -> None:
        wire, mark = await opened(), Mark()
        delivery = await until_body(wire, Rendered(THREE.data[2 * CHUNK :], False, False), mark)
        wire.connection.pause_writing()
        await settled()
        assert mark.asked == 1
        wire.connection.resume_writing()
        await settled()
        assert wire.written[-1] == b".\r\n"
        wire.hear(b"250 queued")
        await delivery

    run(story())


class Later:
    """A mark that is given when the test says so."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> bool:
        return await self.answer


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (False, "the dot mark was refused"),
        (1, "the dot mark was refused"),
        (RuntimeError("disk\nfull"), "the dot mark failed: disk full"),
    ],
)
def test_without_its_mark_nothing_ends_the_message(answer: Any, fault: str) -> None:
    async def story() -> None:
        for message in (HELLO, THREE):
            wire, mark = await opened(), Later()
            delivery = await until_body(wire, message, mark)
            await settled()
            if isinstance(answer, Exception):
                mark.answer.set_exception(answer)
            else:
                mark.answer.set_result(answer)
            report = await delivery
            assert (report.fault, report.fenced, report.dotted) == (fault, True, False)
            assert b".\r\n" not in wire.written
            assert wire.closed
            assert not wire.connection.usable

    run(story())


def test_what_the_relay_says_while_the_mark_is_committed_is_heard_and_nothing_ends_the_message() -> None:
    async def story() -> None:
        for message in (HELLO, THREE):
            wire, mark = await opened(), Later()
            delivery = await until_body(wire, message, mark)
            await settled()
            wire.connection.data_received(b"451 4.3.0 ")  # it has begun
            mark.answer.set_result(True)
            await settled()
            assert not delivery.done()
            wire.connection.data_received(b"full\r\n")
            report = await delivery
            assert (report.stage, report.dotted, report.reply and report.reply.code) == (Stage.BODY, False, 451)
            assert b".\r\n" not in wire.written

    run(story())


def test_the_relay_that_is_gone_while_the_mark_is_committed_gets_no_dot() -> None:
    async def story() -> None:
        wire, mark = await opened(), Later()
        delivery = await until_body(wire, THREE, mark)
        await settled()
        wire.connection.eof_received()
        mark.answer.set_result(True)
        report = await delivery
        assert (report.fault, report.dotted) == ("the relay closed the connection", False)
        assert wire.written[-1] != b".\r\n"

    run(story())


def test_cancelled_before_its_banner_it_is_given_up() -> None:
    async def story() -> None:
        wire = plugged()
        opening = asyncio.ensure_future(wire.connection._carry_on())
        await settled()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert wire.closed
        assert not wire.connection.usable

    run(story())


def test_a_relay_that_goes_while_a_key_is_worked_out_is_told_as_gone() -> None:
    async def story() -> Report | None:
        nonce = SERVER_FIRST[2:22]
        relay = replace(PLACE, username="user", password=Secret("pencil"), nonce=lambda: nonce)
        wire = plugged(relay=relay)
        opening = asyncio.ensure_future(wire.connection._carry_on())
        wire.hear(b"220 hello")
        wire.hear(b"250-relay.example", b"250 AUTH SCRAM-SHA-256")
        wire.hear(b"334 " + b64encode(SERVER_FIRST.encode()))
        loop: Any = asyncio.get_running_loop()
        work = loop.run_in_executor

        def gone(*arguments: Any) -> Any:
            wire.connection.eof_received()
            return work(*arguments)

        loop.run_in_executor = gone
        report = await opening
        loop.run_in_executor = work
        assert wire.closed
        return report

    report = run(story())
    assert report is not None
    assert (report.stage, report.fault) == (Stage.AUTH, "the relay closed the connection")


@pytest.mark.parametrize("gone", [True, False])
def test_a_handshake_that_ends_with_the_connection_is_no_session(gone: bool) -> None:
    async def story() -> Report | None:
        wire = plugged(relay=Relay("relay.example.", 465, "implicit"))
        asked: list[dict[str, Any]] = []

        async def handshake(*arguments: Any, **options: Any) -> None:
            asked.append(options)
            if gone:
                wire.connection.eof_received()

        loop: Any = asyncio.get_running_loop()
        secure, loop.start_tls = loop.start_tls, handshake
        report = await wire.connection._carry_on()
        loop.start_tls = secure
        assert asked == [{"server_hostname": "relay.example", "ssl_handshake_timeout": 20.0}]
        assert wire.closed
        return report

    report = run(story())
    assert report is not None
    assert (report.stage, report.fault) == (Stage.TLS, "the relay closed the connection")


def test_each_answer_has_a_deadline_of_its_own_from_when_it_was_asked_for() -> None:
    """One timer is moved only when it must ring earlier; when it rings too early, it is set anew."""

    async def story() -> None:
        loop: Any = asyncio.get_running_loop()
        now = [loop.time()]
        clock, loop.time = loop.time, lambda: now[0]
        wire = plugged(Deadlines(banner=10.0, ehlo=30.0, mail=5.0))
        opening = asyncio.ensure_future(wire.connection._carry_on())
        await settled()
        timer = wire.connection._timer
        assert timer is not None
        assert timer.when() == now[0] + 10
        now[0] += 9
        wire.hear(b"220 hello")  # EHLO has 30 s from now, so the timer stays where it is
        assert wire.connection._timer is timer
        now[0] += 1
        await settled()  # it rings
        again = wire.connection._timer
        assert again is not None
        assert again.when() == now[0] + 29
        wire.hear(b"250 relay.example")
        assert await opening is None
        delivery = asyncio.ensure_future(wire.connection.deliver(TO_ANN, HELLO, Mark()))
        await settled()
        sooner = wire.connection._timer
        assert sooner is not None
        assert (sooner.when(), again.cancelled()) == (now[0] + 5, True)
        now[0] += 5
        report = await delivery
        assert (report.stage, report.fault) == (Stage.MAIL, "no answer to MAIL within 5 s")
        left: object = wire.connection._timer
        assert left is None
        loop.time = clock

    run(story())


def test_a_connection_that_breaks_says_who_broke_it() -> None:
    async def story() -> list[str]:
        faults = []
        for how in (None, ConnectionResetError("reset by peer")):
            wire = await opened()
            delivery = asyncio.ensure_future(wire.connection.deliver(TO_ANN, HELLO, Mark()))
            await settled()
            wire.connection.connection_lost(how)
            faults.append((await delivery).fault)
            wire.closed = True
        return faults

    assert run(story()) == ["the relay closed the connection", "the connection broke: reset by peer"]


def test_who_speaks_unasked_is_not_spoken_to_again() -> None:
    async def story() -> None:
        wire = await opened()
        before = wire.connection.usable
        wire.hear(b"250 what else?")
        assert (before, wire.connection.usable, wire.closed) == (True, False, True)
        report = await wire.connection.deliver(TO_ANN, HELLO, Mark())
        assert (report.stage, report.stale) == (Stage.EHLO, False)
        assert report.fault == "the relay closed the connection, or spoke unasked"
        await settled()
        await wire.connection.close()

    run(story())


def test_what_a_relay_said_before_the_line_broke_is_why() -> None:
    async def story() -> Report:
        ours, theirs = socket.socketpair()
        theirs.sendall(b"552 5.3.4 too big\r\n")
        wire, mark = await opened(), Later()
        wire._extra["socket"] = ours  # type: ignore[attr-defined]
        delivery = await until_body(wire, THREE, mark)
        wire.connection.pause_writing()
        await settled()
        wire.connection.connection_lost(ConnectionResetError("reset by peer"))
        wire.closed = True
        ours.close()
        theirs.close()
        return await delivery

    report = run(story())
    assert (report.stage, report.reply and report.reply.code, report.dotted) == (Stage.BODY, 552, False)


def test_a_network_that_takes_everything_again_is_no_news_between_two_messages() -> None:
    async def story() -> None:
        wire = await opened()
        wire.connection.pause_writing()
        wire.connection.resume_writing()
        await settled()
        assert (wire.written, wire.connection.usable) == ([], True)

    run(story())


def test_a_last_chunk_of_one_octet_is_written_too() -> None:
    async def scenario() -> None:
        wire = await opened()
        content = b"x" * (CHUNK - 1) + b"\r\n"

        async def granted() -> bool:
            return True

        delivering = asyncio.ensure_future(
            wire.connection.deliver(TO_ANN, Rendered(content, smtputf8=False, eight_bit=False), granted)
        )
        await asyncio.sleep(0)
        wire.hear(b"250 ok", b"250 ok", b"354 go on")
        for _ in range(10):
            await asyncio.sleep(0)
        wire.hear(b"250 taken")
        assert (await delivering).stage is Stage.DOT
        assert b"".join(wire.written).endswith(content + b".\r\n")

    run(scenario())
