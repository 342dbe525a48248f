"""Another implementation's server understands us: aiosmtpd, in clear, with STARTTLS and AUTH, and with SMTPUTF8."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from outbox.core.outcome import Envelope, Stage
from outbox.core.render import Rendered
from outbox.core.secret import Secret
from outbox.smtp.connection import Relay
from tests.relay import server_context
from tests.smtp.sending import ANN, BOB, CYD, HELLO, SENDER, TO_ALL, Mark, connect, run, send

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports what Python has deprecated
    from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:aiosmtpd\..*")


class Inbox:
    """What aiosmtpd received; BOB is unknown to it."""

    def __init__(self) -> None:
        self.received: list[tuple[str, list[str], bytes, str]] = []

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address == BOB:
            return "550 5.1.1 unknown"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        login = session.auth_data.login.decode() if session.auth_data else ""
        self.received.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content, login))
        return "250 2.0.0 taken"


@asynccontextmanager
async def serving(inbox: Inbox, **options: Any) -> AsyncIterator[int]:
    """An aiosmtpd in this event loop; its port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(inbox, loop=loop, **options), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def test_messages_arrive_as_they_are() -> None:
    async def story() -> None:
        async with serving(inbox) as port:
            connection = await connect(Relay("127.0.0.1", port, "none"))
            for _ in range(3):
                report = await connection.deliver(TO_ALL, HELLO, Mark())
                assert str(report.reply) == "250 2.0.0 taken"
                assert [answer and answer.code for answer in report.recipients] == [250, 550, 250]
            await connection.close()

    inbox = Inbox()
    run(story())
    assert inbox.received == [(SENDER, [ANN, CYD], HELLO.data, "")] * 3


def test_international_mail_arrives() -> None:
    async def story() -> None:
        async with serving(inbox, enable_SMTPUTF8=True) as port:
            to = Envelope("jörg@example.com", ("änn@example.net",))
            assert (await send(Relay("127.0.0.1", port, "none"), to, message)).stage is Stage.DOT

    inbox = Inbox()
    message = Rendered("Subject: Grüße\r\n\r\nGrüße\r\n".encode(), True, True)
    run(story())
    assert inbox.received == [("jörg@example.com", ["änn@example.net"], message.data, "")]


@pytest.mark.parametrize("mechanism", ["plain", "login"])
def test_starttls_and_auth_work(mechanism: str, tmp_path: Path) -> None:
    def authenticator(server: Any, session: Any, envelope: Any, used: str, credentials: LoginPassword) -> AuthResult:
        right = credentials == LoginPassword(b"ann", "grün".encode())
        return AuthResult(success=right, handled=False, auth_data=credentials)

    def settings(port: int, password: str) -> Relay:
        secret, ca_file = Secret(password), str(tmp_path / "ca.pem")
        return Relay("localhost", port, "starttls", "client.example", ca_file, mechanism, "ann", secret)

    async def story() -> None:
        context = server_context(authority.issue_cert("localhost"))
        tls = {"tls_context": context, "require_starttls": True}
        async with serving(inbox, auth_required=True, authenticator=authenticator, **tls) as port:
            refused = await send(settings(port, "blau"))
            assert (refused.stage, refused.reply and refused.reply.code) == (Stage.AUTH, 535)
            report = await send(settings(port, "grün"))
            assert report.stage is Stage.DOT
            assert report.tls.startswith("TLSv1.")

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    inbox = Inbox()
    run(story())
    assert inbox.received == [(SENDER, [ANN], HELLO.data, "ann")]
