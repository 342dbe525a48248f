"""The asyncio side: reuse, back-pressure, the dot mark while the body is going out, cancellation, and closing."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from outbox.core.outcome import Report, Stage
from outbox.core.render import Rendered
from outbox.smtp.connection import CHUNK, Connection, Relay
from outbox.smtp.transaction import WITH_DOT
from tests import relay as scripted
from tests.relay import DROP, HANG, RST, Drip, Session
from tests.smtp.sending import BIG, HELLO, LONG, TO_ALL, TO_ANN, Mark, account, connect, deadlines, run, send


async def gone(connection: Connection) -> None:
    """Until it is noticed that the connection is of no more use."""
    for _ in range(10_000):
        if not connection.usable:
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


def test_one_connection_carries_many_messages_and_says_no_rset_between_them() -> None:
    async def story(relay: scripted.Relay) -> Connection:
        connection = await connect(account(relay))
        for _ in range(3):
            report = await connection.deliver(TO_ANN, HELLO, Mark())
            assert str(report.reply).startswith("250 2.0.0 Ok: queued as")
        await connection.close()
        return connection

    with scripted.Relay() as relay:
        connection = run(story(relay))
    assert [message.content for message in relay.messages] == [HELLO.data] * 3
    assert len(relay.sessions) == 1
    assert "RSET" not in relay.commands
    assert relay.commands[-1] == "QUIT"
    assert connection.delivered == 3
    assert not connection.usable
    assert connection.idle_since > connection.opened_at


@pytest.mark.parametrize(
    "script", [{"mail": ["451 later"]}, {"rcpt": ["550 no"]}, {"data": ["451 later"]}, {"dot": ["554 no"]}]
)
def test_after_a_failure_rset_comes_before_the_next_message(script: dict[str, list[str]]) -> None:
    async def story(relay: scripted.Relay) -> None:
        connection = await connect(account(relay))
        first = await connection.deliver(TO_ANN, HELLO, Mark())
        assert first.reply is not None
        assert not first.reply.positive
        second = await connection.deliver(TO_ANN, HELLO, Mark())
        assert second.reply is not None
        assert second.reply.positive
        await connection.close()

    with scripted.Relay(script) as relay:
        run(story(relay))
    assert len(relay.sessions) == 1
    assert relay.commands.count("RSET") == 1
    assert len(relay.messages) == 1


def test_the_mark_is_asked_for_when_a_chunk_is_left_and_the_dot_waits_for_it() -> None:
    """While the mark is being committed the relay has everything but the last chunk, and never the dot."""
    seen: list[bool] = []

    async def story(relay: scripted.Relay) -> Report:
        async def meanwhile() -> None:
            seen.append("." in relay.commands)
            for _ in range(200):  # the relay's thread gets all the time it needs to read what was written
                await asyncio.sleep(0.001)
            seen.append("." in relay.commands)

        return await send(account(relay), TO_ANN, BIG, mark=Mark(meanwhile=meanwhile))

    with scripted.Relay() as relay:
        report = run(story(relay))
        assert report.reply is not None
        assert relay.messages[0].content == BIG.data
    assert seen == [False, False]


def test_a_message_of_one_chunk_is_written_while_the_mark_is_committed() -> None:
    arrived = threading.Event()

    def body(session: Session, line: str) -> None:
        arrived.set()

    async def story(relay: scripted.Relay) -> Report:
        async def meanwhile() -> None:
            assert await asyncio.get_running_loop().run_in_executor(None, arrived.wait, 10)

        return await send(account(relay), TO_ANN, LONG, mark=Mark(meanwhile=meanwhile))

    with scripted.Relay({"body": body}) as relay:
        report = run(story(relay))
    assert (report.stage, WITH_DOT < len(LONG.data) <= CHUNK, len(relay.messages)) == (Stage.DOT, True, 1)


def test_a_small_message_is_not_begun_before_its_mark_is_committed() -> None:
    seen: list[bool] = []

    def body(session: Session, line: str) -> None:
        seen.append(True)

    async def story(relay: scripted.Relay) -> Report:
        async def meanwhile() -> None:
            for _ in range(100):  # the relay's thread gets all the time it needs to read what was written
                await asyncio.sleep(0.001)
            seen.append(False)

        return await send(account(relay), mark=Mark(meanwhile=meanwhile))

    with scripted.Relay({"body": body}) as relay:
        report = run(story(relay))
    assert (report.stage, len(HELLO.data) <= WITH_DOT, len(relay.messages)) == (Stage.DOT, True, 1)
    assert seen == [False, True]


@pytest.mark.parametrize("message", [HELLO, LONG], ids=["small", "long"])
@pytest.mark.parametrize("act", [DROP, RST, "552 5.3.4 too big"])
def test_a_relay_that_gives_up_while_the_mark_is_committed_gets_no_dot(act: object, message: Rendered) -> None:
    async def story(relay: scripted.Relay) -> Report:
        async def meanwhile() -> None:
            assert await asyncio.get_running_loop().run_in_executor(None, given_up.wait, 10)
            await asyncio.sleep(0.05)

        return await send(account(relay), TO_ANN, message, mark=Mark(meanwhile=meanwhile))

    given_up = threading.Event()

    def body(session: Session, line: str) -> object:
        given_up.set()
        return act

    def data(session: Session, line: str) -> object:
        session.send("354 go on")
        given_up.set()
        return act

    with scripted.Relay({"body": body} if message is LONG else {"data": data}) as relay:
        report = run(story(relay))
    assert (report.stage, report.dotted, report.fenced) == (Stage.BODY, False, False)
    assert "." not in relay.commands
    assert bool(report.reply) == isinstance(act, str)


def test_the_deadline_of_a_stage_is_total_however_the_relay_trickles() -> None:
    async def story(relay: scripted.Relay) -> float:
        started = asyncio.get_running_loop().time()
        report = await send(account(relay), limits=deadlines(mail=0.3))
        assert report.fault == "no answer to MAIL within 0.3 s"
        return asyncio.get_running_loop().time() - started

    with scripted.Relay({"mail": Drip("250-" + "x" * 2000, 0.01)}) as relay:
        assert run(story(relay)) < 5


def test_each_reply_has_its_own_deadline() -> None:
    """Three answers of 0.4 s are 1.2 s together, and each is within its one second."""

    def slowly(session: Session, line: str) -> None:
        session.relay.closing.wait(0.4)

    with scripted.Relay({"rcpt": slowly}) as relay:
        report = run(send(account(relay), TO_ALL, limits=deadlines(rcpt=1.0)))
    assert report.stage is Stage.DOT


@pytest.mark.parametrize("stage", ["mail", "body", "dot"])
def test_cancelled_it_closes_at_once_and_writes_no_dot_of_its_own(stage: str) -> None:
    async def story(relay: scripted.Relay) -> None:
        connection = await connect(account(relay))
        delivery = asyncio.ensure_future(connection.deliver(TO_ANN, BIG, Mark()))
        await asyncio.get_running_loop().run_in_executor(None, reached.wait, 10)
        delivery.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivery
        assert not connection.usable
        await connection.close()

    reached = threading.Event()

    def wait(session: Session, line: str) -> object:
        reached.set()
        return HANG

    with scripted.Relay({stage: wait}) as relay:
        run(story(relay))
        relay.release()
    assert ("." in relay.commands) == (stage == "dot")
    assert "QUIT" not in relay.commands


def test_an_idle_connection_that_the_relay_closes_is_noticed() -> None:
    async def story(relay: scripted.Relay) -> None:
        connection = await connect(account(relay))
        await connection.deliver(TO_ANN, HELLO, Mark())
        relay.sessions[0].hang_up()
        await gone(connection)
        report = await connection.deliver(TO_ANN, HELLO, Mark())
        assert (report.stale, report.stage) == (True, Stage.MAIL)
        assert not await connection.reset()
        await connection.close()
        await connection.close()

    with scripted.Relay() as relay:
        run(story(relay))
    assert len(relay.messages) == 1


def test_421_on_an_idle_connection_is_noticed() -> None:
    async def story(relay: scripted.Relay) -> None:
        connection = await connect(account(relay))
        relay.sessions[0].send("421 4.4.2 idle for too long")
        await gone(connection)
        await connection.close()

    with scripted.Relay() as relay:
        run(story(relay))
    assert "QUIT" not in relay.commands


def test_quit_is_not_waited_for_longer_than_its_deadline() -> None:
    async def story(relay: scripted.Relay) -> float:
        connection = await connect(account(relay), deadlines(quit=0.2))
        await connection.deliver(TO_ANN, HELLO, Mark())
        started = asyncio.get_running_loop().time()
        await connection.close()
        return asyncio.get_running_loop().time() - started

    with scripted.Relay({"quit": HANG}) as relay:
        assert 0.1 < run(story(relay)) < 5


def test_settings_that_cannot_work_are_a_report_before_anything_is_tried() -> None:
    for settings, words in [
        (Relay("", 25, "none"), "host ''"),
        (Relay("mail example", 25, "none"), "host 'mail example'"),
        (Relay("x" * 64 + ".example", 25, "none"), "is not a host name"),
        (Relay("mail.example", 0, "none"), "port 0"),
        (Relay("mail.example", 25, "maybe"), "TLS mode 'maybe'"),
        (Relay("mail.example", 25, "none", mechanism="ntlm"), "mechanism 'ntlm'"),
        (Relay("mail.example", 25, "implicit", tls_pins=("ab:cd",)), "TLS pin 'ab:cd'"),
        (Relay("mail.example", 25, "none", helo="two words"), "EHLO name"),
        (Relay("mail.example", 25, "none", helo="a\r\nb"), "EHLO name"),
        (Relay("mail.example", 25, "none", username="a\0b"), "NUL"),
        (Relay("mail.example", 25, "implicit", ca_file="no/such/file.pem"), "CA file no/such/file.pem: No such file"),
        (Relay("mail.example", 25, "starttls", ca_file=__file__), "CA file"),
    ]:
        report = run(send(settings))
        assert (report.stage, report.reply and report.reply.status) == (Stage.LOCAL, "5.3.5")
        assert words in str(report.reply)


def test_an_unknown_host_is_a_report_of_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def story() -> Report:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
        return await send(Relay("no-such-host.invalid", 25, "none"))

    report = run(story())
    assert report == Report(Stage.DNS, fault="cannot resolve no-such-host.invalid: Name or service not known")


def test_a_name_server_that_is_silent_is_a_report_of_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    async def story() -> Report:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", silent)
        return await send(Relay("mail.example", 25, "none"), limits=deadlines(connect=0.05))

    report = run(story())
    assert report == Report(Stage.DNS, fault="no answer from mail.example port 25 within 0.05 s")


def test_every_address_of_a_host_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first refuses, the second says nothing, the third is the relay."""

    async def story(relay: scripted.Relay, silent: int) -> Report:
        async def three(host: str, port: int, **_: object) -> list[object]:
            places = [("127.0.0.1", refusing.port), ("127.0.0.1", silent), ("127.0.0.1", relay.port)]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", three)
        return await send(account(relay, host="mail.example"))

    with scripted.Relay() as refusing:
        pass
    with socket.socket() as full, socket.socket() as first, scripted.Relay() as relay:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())
        report = run(story(relay, full.getsockname()[1]))
    assert report.stage is Stage.DOT
    assert report.relay == f"mail.example[127.0.0.1]:{relay.port}"
