"""Where a relay may be, however its address is spelt; and that what was judged is what is connected to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from outbox.core.networks import ANYWHERE, Networks
from outbox.core.outcome import Report, Stage
from outbox.smtp.dial import dial, settings_flaw
from outbox.smtp.relay import Relay
from tests.cli.conftest import sqlite_program as sqlite_program
from tests.cli.program import Program

HERE = "loopback"
OURS = "private"
WORLD = "public"

# Spelling, as an operator or a DNS record may have it → why it is refused, or what it counts as.
SPELLINGS: dict[str, str] = {
    # where clouds keep the secrets of their machines
    "169.254.169.254": "link-local",
    "169.254.43518": "link-local",  # inet_aton's short forms, decimal, octal and hexadecimal
    "169.16689662": "link-local",
    "2852039166": "link-local",
    "0xA9FEA9FE": "link-local",
    "0xa9.0xfe.0xa9.0xfe": "link-local",
    "0251.0376.0251.0376": "link-local",
    "0251.0xfe.43518": "link-local",
    "::ffff:169.254.169.254": "link-local",
    "::ffff:a9fe:a9fe": "link-local",
    "0:0:0:0:0:ffff:a9fe:a9fe": "link-local",
    "64:ff9b::169.254.169.254": "link-local",
    "64:ff9b:1::a9fe:a9fe": "link-local",
    "2002:a9fe:a9fe::1": "link-local",
    "fe80::1": "link-local",
    "fe80::1%1": "link-local",
    "febf::1": "link-local",
    "fd00:ec2::254": "secrets",
    "fd20:ce::254": "secrets",
    "100.100.100.200": "secrets",
    "168.63.129.16": "secrets",
    "::ffff:168.63.129.16": "secrets",
    # where nobody is
    "0.0.0.0": "unspecified",
    "0": "unspecified",
    "0x0": "unspecified",
    "0.1.2.3": "unspecified",
    "::": "unspecified",
    "::ffff:0.0.0.0": "unspecified",
    "::127.0.0.1": "reserved",
    "fec0::1": "reserved",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "0xffffffff": "reserved",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "ff02::1": "multicast",
    "::ffff:224.0.0.1": "multicast",
    # this machine
    "127.0.0.1": HERE,
    "127.1": HERE,
    "127.255.255.254": HERE,
    "2130706433": HERE,
    "0x7f000001": HERE,
    "017700000001": HERE,
    "::1": HERE,
    "0:0:0:0:0:0:0:1": HERE,
    "::ffff:127.0.0.1": HERE,
    "64:ff9b::127.0.0.1": HERE,
    # private networks
    "10.0.0.1": OURS,
    "167772161": OURS,
    "172.31.255.254": OURS,
    "192.168.0.25": OURS,
    "192.168.25": OURS,
    "100.64.0.1": OURS,
    "::ffff:192.168.0.25": OURS,
    "64:ff9b::10.0.0.1": OURS,
    "2002:a00:1::1": OURS,
    "fc00::1": OURS,
    "fd12:3456::25": OURS,
    # everybody's
    "8.8.8.8": WORLD,
    "134744072": WORLD,
    "172.32.0.1": WORLD,
    "100.128.0.1": WORLD,
    "2001:4860:4860::8888": WORLD,
    "64:ff9b::8.8.8.8": WORLD,
}


def resolved(spelling: str) -> str:
    """What the system makes of it, without any DNS."""
    found = socket.getaddrinfo(spelling, 25, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return str(found[0][4][0])


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_address_is_judged_by_where_it_leads(spelling: str) -> None:
    address, nature = resolved(spelling), SPELLINGS[spelling]
    only = {word: Networks.parse([word]).refusal(address) for word in (HERE, OURS, WORLD)}
    if nature in only:
        assert ANYWHERE.refusal(address) == ""
        assert {word for word, refusal in only.items() if not refusal} == {nature}
    else:
        assert nature in ANYWHERE.refusal(address)
        assert all(nature in refusal for refusal in only.values()), "and no setting changes that"
        assert nature in Networks.parse(["0.0.0.0/0", "::/0"]).refusal(address)


@pytest.mark.parametrize("spelling", [each for each, nature in SPELLINGS.items() if nature not in (HERE, OURS, WORLD)])
def test_nothing_is_sent_to_it(spelling: str) -> None:
    report = asyncio.run(dial(Relay(spelling, 25, "none"), 5))
    assert isinstance(report, Report)
    assert report.stage is Stage.CONNECT
    assert report.fault.startswith("will not connect to ")
    assert SPELLINGS[spelling] in report.fault


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


@pytest.mark.parametrize("spelling", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost"])
def test_a_relay_on_this_machine_is_reached_unless_that_is_refused(spelling: str, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    connected = asyncio.run(dial(Relay(spelling, port, "none"), 5))
    assert isinstance(connected, socket.socket)
    connected.close()
    refused = asyncio.run(dial(Relay(spelling, port, "none", networks=Networks.parse(["public", "10.0.0.0/8"])), 5))
    assert isinstance(refused, Report)
    assert "it is in none of the networks of relay_networks" in refused.fault


class _Rebinding(asyncio.SelectorEventLoop):
    """A name that leads somewhere else whenever it is asked for."""

    asked = 0

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        self.asked += 1
        good = [] if self.asked > 1 else [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port)), *good]


def test_a_name_is_resolved_once_and_only_what_was_judged_is_connected_to(listener: socket.socket) -> None:
    """The first answer mixes a bad address with a good one, the second would be bad alone."""
    loop = _Rebinding()
    try:
        relay = Relay("relay.example", listener.getsockname()[1], "none")
        connected = loop.run_until_complete(dial(relay, 5))
        assert isinstance(connected, socket.socket)
        assert connected.getpeername()[0] == "127.0.0.1"
        connected.close()
        assert loop.asked == 1
        refused = loop.run_until_complete(dial(relay, 5))
        assert isinstance(refused, Report)
        assert "will not connect to relay.example is 169.254.169.254: it is link-local" in refused.fault
    finally:
        loop.close()


@pytest.mark.parametrize(
    ("items", "words"),
    [(["intern"], "'intern' is not a network as 10.1.0.0/16"), (["10.0.0.1/8"], "'10.0.0.1/8' is not a network")],
)
def test_a_network_that_is_none_is_said(items: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Networks.parse(items)


def test_an_account_whose_host_can_never_be_is_told_before_anything_is_tried() -> None:
    assert settings_flaw(Relay("169.254.169.254", 25, "none")).startswith("host 169.254.169.254: it is link-local")
    assert settings_flaw(Relay("fe80::1%eth0", 25, "none")).startswith("host fe80::1%eth0: it is link-local")
    assert settings_flaw(Relay("10.0.0.1", 25, "none")) == ""
    assert settings_flaw(Relay("10.0.0.1", 25, "none", networks=Networks.parse(["public"]))).startswith("host 10.0.0.1")


def test_doctor_and_account_test_heed_the_setting(sqlite_program: Program, listener: socket.socket) -> None:
    program = sqlite_program.init()
    program.run("account", "add", "main", "--relay", f"127.0.0.1:{listener.getsockname()[1]}", "--tls", "none")
    assert "relay_networks" not in program.run("doctor").stdout
    config = program.home / "outbox.toml"
    config.write_text('relay_networks = ["public"]\n' + config.read_text(encoding="utf-8"), encoding="utf-8")
    assert "it is in none of the networks of relay_networks" in program.run("doctor", code=1).stdout
    assert "it is in none of the networks" in program.run("account", "test", "main", code=7).output


def test_words_and_networks_count_in_any_order() -> None:
    either = [Networks.parse(items) for items in (["private", "192.0.2.0/24"], ["192.0.2.0/24", "private"])]
    assert either[0] == either[1]
    assert (either[0].refusal("192.0.2.7"), either[0].refusal("10.0.0.1")) == ("", "")
    assert either[0].refusal("198.51.100.1")
