"""Which of a relay's addresses are tried, in what order, and what is said when none answers."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from outbox.core.networks import Networks
from outbox.core.outcome import Report, Stage
from outbox.smtp import dial
from outbox.smtp.dial import MAX_ADDRESSES, tls_fault, unread
from outbox.smtp.relay import Relay
from tests import relay as scripted
from tests.smtp.sending import run

V4, V6 = socket.AF_INET, socket.AF_INET6


def named(*hosts: str) -> list[Any]:
    """What the system's resolver answers."""
    return [
        (V6, socket.SOCK_STREAM, 6, "", (host, 25, 0, 0))
        if ":" in host
        else (V4, socket.SOCK_STREAM, 6, "", (host, 25))
        for host in hosts
    ]


def resolved(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> list[str]:
    """The addresses that would be tried."""

    async def story() -> list[str]:
        async def answer(host: str, port: int, **options: Any) -> list[Any]:
            assert (host, port, options) == ("mail.example", 25, {"type": socket.SOCK_STREAM})
            return named(*hosts)

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
        return [str(address[0]) for _, address in await dial._resolve("mail.example", 25)]

    return run(story())


def test_the_families_take_turns_in_the_systems_order(monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolved(monkeypatch, "2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "2001:db8::1")
    assert found == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3"]


def test_no_more_than_eight_addresses_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = [f"192.0.2.{number}" for number in range(1, 20)]
    assert resolved(monkeypatch, *hosts) == hosts[:8]
    assert MAX_ADDRESSES == 8


def dialled(
    monkeypatch: pytest.MonkeyPatch, hosts: Sequence[str], port: int, seconds: float = 20, **settings: Any
) -> socket.socket | Report:
    async def story() -> socket.socket | Report:
        async def answer(*_: object, **__: object) -> list[Any]:
            return [(family, kind, 6, "", (each[0], port, *each[2:])) for family, kind, _, _, each in named(*hosts)]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
        return await dial.dial(Relay("mail.example", port, "none", **settings), seconds)

    return run(story())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_an_address_that_refuses_hands_over_to_the_next_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "HEAD_START", 3600.0)
    with socket.create_server(("127.0.0.2", 0)) as server:
        found = dialled(monkeypatch, ["127.0.0.3", "127.0.0.2"], server.getsockname()[1])
        assert isinstance(found, socket.socket)
        with found:
            assert found.getpeername()[0] == "127.0.0.2"
            assert not found.getblocking()
            assert found.proto == socket.IPPROTO_TCP  # else asyncio leaves Nagle on


def test_an_address_that_is_silent_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
        silent = socket.socket()
        silent.bind(("127.0.0.3", port))
        silent.listen(0)
        full = [socket.socket() for _ in range(4)]  # whoever comes after them is not answered
        for each in full:
            each.setblocking(False)
            each.connect_ex(("127.0.0.3", port))
        found = dialled(monkeypatch, ["127.0.0.3", "127.0.0.2"], port)
        for each in (silent, *full):
            each.close()
        assert isinstance(found, socket.socket)
        with found:
            assert found.getpeername()[0] == "127.0.0.2"


def test_what_none_of_them_answers_is_said_once_for_each_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    report = dialled(monkeypatch, ["127.0.0.1", "127.0.0.2"], port)
    assert isinstance(report, Report)
    assert report.stage is Stage.CONNECT
    assert report.fault == f"cannot connect to mail.example port {port}: connection refused"


def test_different_reasons_are_all_said(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    answers = {"127.0.0.1": ConnectionRefusedError(), "127.0.0.2": OSError(errno.EHOSTUNREACH, "x")}

    async def refused(_: object, address: tuple[str, int]) -> socket.socket:
        raise answers[address[0]]

    monkeypatch.setattr(dial, "_connect", refused)
    report = dialled(monkeypatch, list(answers), port)
    assert isinstance(report, Report)
    assert report.fault.endswith(": connection refused; No route to host")


def test_only_what_is_allowed_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted.Relay() as place:
        found = dialled(monkeypatch, ["169.254.1.1", "127.0.0.1"], place.port)
        assert isinstance(found, socket.socket)
        found.close()
    report = dialled(monkeypatch, ["127.0.0.1"], 25, networks=Networks.parse(["public"]))
    assert isinstance(report, Report)
    assert report.stage is Stage.CONNECT
    assert report.fault.startswith("will not connect to mail.example is 127.0.0.1: ")


def test_a_name_that_is_not_found_and_one_that_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(answer: Any, seconds: float) -> Report:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
        report = await dial.dial(Relay("mail.example", 25, "none"), seconds)
        assert isinstance(report, Report)
        return report

    async def unknown(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def silent(*_: object, **__: object) -> list[Any]:
        await asyncio.sleep(3600)
        return []

    report = run(story(unknown, 20))
    assert (report.stage, report.fault) == (Stage.DNS, "cannot resolve mail.example: Name or service not known")
    report = run(story(silent, 0.05))
    assert (report.stage, report.fault) == (Stage.DNS, "no answer from mail.example port 25 within 0.05 s")


def test_a_handshake_that_failed_is_told_in_words() -> None:
    error = ssl.SSLCertVerificationError(1, "x")
    error.verify_code, error.verify_message = 10, "certificate has expired"
    assert tls_fault(error) == "the relay's certificate is not to be trusted: certificate has expired"
    for code, strict in ((79, False), (80, True), (93, True), (94, False)):
        error.verify_code = code
        assert ("RFC 5280" in tls_fault(error)) is strict
    for unreadable in ({"cadata": b"x"}, {"cafile": __file__}):
        with pytest.raises(ssl.SSLError) as failed:
            ssl.create_default_context(**unreadable)
        assert tls_fault(failed.value) == f"TLS failed: {failed.value.reason or failed.value}"
    assert failed.value.reason == "NO_CERTIFICATE_OR_CRL_FOUND"
    assert tls_fault(ConnectionResetError("gone")) == "TLS failed: gone"


def test_what_was_received_and_not_read_is_found_and_of_a_closed_socket_nothing() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"421 go away\r\n")
        transport: Any = SimpleNamespace(get_extra_info={"socket": ours}.get)
        assert unread(transport) == b"421 go away\r\n"
        assert unread(transport) == b""
        ours.close()
        assert unread(transport) == b""


def test_the_first_that_answers_wins_though_it_was_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is tried meanwhile, and refuses; a third that answers at the same moment is closed."""
    monkeypatch.setattr(dial, "HEAD_START", 0.01)
    ends = [socket.socketpair() for _ in range(2)]
    made = {"127.0.0.1": ends[0][0], "127.0.0.3": ends[1][0]}
    silence = asyncio.Event()

    async def connect(_: object, address: tuple[str, int]) -> socket.socket:
        if address[0] == "127.0.0.2":
            silence.set()
            raise ConnectionRefusedError
        await silence.wait()
        await asyncio.sleep(0.05)
        return made[address[0]]

    monkeypatch.setattr(dial, "_connect", connect)
    found = dialled(monkeypatch, ["127.0.0.1", "127.0.0.3", "127.0.0.2"], 25)
    assert found in made.values()
    (late,) = [each for each in made.values() if each is not found]
    assert late.fileno() == -1
    for each in (*made.values(), *(there for _, there in ends)):
        each.close()
