"""Nodemailer's smtp-server, in Node.js: a third line reader that owes nothing to Postfix or Python."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.authority import Authority
from tests.peers.mails import Delivery
from tests.peers.programs import PEERS, program
from tests.running import Program

SCRIPT = Path(__file__).with_name("smtp_server.js")


class SmtpServer:
    """See the script for whom it refuses."""

    def __init__(self, running: Program) -> None:
        self._running = running
        self.port = int(json.loads(running.says(r'\{"port":\d+\}')[0])["port"])

    @property
    def kept(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self._running.lines) if line.startswith('{"sender"')]

    @property
    def deliveries(self) -> list[Delivery]:
        return [Delivery(each["sender"], tuple(each["recipients"]), b64decode(each["content"])) for each in self.kept]


@pytest.fixture(scope="package")
def smtp_server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmtpServer]:
    node = program("node")
    modules = PEERS / "node_modules"
    if not (modules / "smtp-server").is_dir():
        pytest.skip("A REAL PEER IS NOT TESTED: NODEMAILER'S SMTP-SERVER IS NOT INSTALLED (run tests/peers/install)")
    folder = tmp_path_factory.mktemp("smtp-server")
    (folder / "relay.pem").write_bytes(authority.key_and_chain)
    with Program([node, str(SCRIPT), str(modules), str(folder / "relay.pem")], folder) as running:
        yield SmtpServer(running)
        running.stop()
        running.wait()
