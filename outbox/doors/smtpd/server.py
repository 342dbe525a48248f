"""The listener: addresses, TLS, and who may log in."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiosmtpd.smtp import AuthResult, LoginPassword

from outbox.core.account import is_loopback
from outbox.core.secret import Secret
from outbox.core.user import is_password
from outbox.doors.smtpd.counter import Counter
from outbox.doors.smtpd.dialogue import Dialogue
from outbox.doors.smtpd.handler import Handler
from outbox.errors import ConfigError, DatabaseError

log = logging.getLogger("outbox.smtpd")

TRIES = 3
"""Logins after which a connection is closed."""

GRACE = 15.0
"""Seconds that mails under way have when the server is stopped."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where and how. `without_login` is for loopback addresses only."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    without_login: bool = False

    def __post_init__(self) -> None:
        if self.without_login and not is_loopback(self.host):
            raise ConfigError(f"{self.host} is not a loopback address: who may send there has to log in")
        if self.tls is None and not is_loopback(self.host):
            raise ConfigError(f"passwords would cross the network in clear to {self.host}", hint="give --tls-cert")


class Submission:
    """The server."""

    def __init__(self, url: str, listen: Listen) -> None:
        self._listen = listen
        self._counter = Counter(url, "smtp")
        self._handler = Handler(self._counter)
        self._open: set[Dialogue] = set()
        self._checking = asyncio.Semaphore(2)  # of passwords, 16 MiB each
        self._name = socket.gethostname()
        quiet()

    async def run(self, stop: asyncio.Event, started: Callable[[int], None] = lambda port: None) -> None:
        """Until `stop`; a mail that is being taken is taken. `started` is called with the port when it listens. Raises
        OSError when it cannot.
        """
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._dialogue, self._listen.host, self._listen.port)
        try:
            started(server.sockets[0].getsockname()[1])
            await stop.wait()
        finally:
            server.close()
            await self._farewell()
            await self._counter.close()

    async def _farewell(self) -> None:
        for each in list(self._open):
            each.end()
        ending = [each.task for each in self._open if each.task is not None]
        if ending:
            await asyncio.wait(ending, timeout=GRACE)

    def _dialogue(self) -> Dialogue:
        is_secured = self._listen.tls is not None and not is_loopback(self._listen.host)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that passwords are said in clear: on loopback only, see `Listen`
            return Dialogue(
                self._handler,
                self._open,
                self._authenticate,
                hostname=self._name,
                loop=asyncio.get_running_loop(),
                tls_context=self._listen.tls,
                require_starttls=is_secured,
                auth_required=not self._listen.without_login,
                auth_require_tls=is_secured,
                command_call_limit={"AUTH": TRIES, "*": 10_000},
            )

    async def _authenticate(self, login: LoginPassword, session: Any) -> AuthResult:
        name = login.login.decode("utf-8", "replace").replace("\0", "")
        try:
            user = await self._counter.user(name)
        except DatabaseError as error:
            log.error("%s", error)
            return AuthResult(success=False, handled=False, message="454 4.7.0 Logins cannot be checked now")
        # Of a name that nobody has, as long an answer.
        stored = user.password_hash if user is not None else _NOBODY
        password = Secret(login.password.decode("utf-8", "surrogateescape"))
        async with self._checking:
            is_right = await asyncio.to_thread(is_password, password, stored)
        if is_right and user is not None:
            return AuthResult(success=True, auth_data=name)
        log.warning("a login as %r from %s was refused", name[:100], session.peer)
        return AuthResult(success=False, handled=False)


_NOBODY = f"scrypt$16384$8$1${'00' * 16}${'00' * 64}"


def quiet() -> None:
    """aiosmtpd tells its log what is said, line by line, and warns of its own arguments."""
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)


def tls_context(certificate: str, key: str | None) -> ssl.SSLContext:
    """Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot load the certificate {certificate}: {error}") from None
    return context
