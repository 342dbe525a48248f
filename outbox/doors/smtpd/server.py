"""The listener: addresses, TLS, and who may log in."""

from __future__ import annotations

import asyncio
import logging
import ssl
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from outbox.core.account import is_loopback
from outbox.core.secret import Secret
from outbox.core.user import User, is_password
from outbox.doors.smtpd.counter import Counter
from outbox.doors.smtpd.handler import Handler
from outbox.errors import ConfigError, DatabaseError
from outbox.mail import MAX_CONTENT

log = logging.getLogger("outbox.smtpd")

USERS_AGAIN = 5.0
"""Seconds after which the users are read again."""

TRIES = 3
"""Failed logins after which a connection is closed."""


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
    """The server. `started` is called with the port when it listens."""

    def __init__(self, url: str, listen: Listen) -> None:
        self._listen = listen
        self._counter = Counter(url, "smtp")
        self._handler = Handler(self._counter)
        self._users: dict[str, User] = {}
        logging.getLogger("mail.log").setLevel(logging.ERROR)  # aiosmtpd's, about its own deprecations

    async def run(self, stop: asyncio.Event, started: Callable[[int], None] = lambda port: None) -> None:
        """Until `stop`. Raises DatabaseError when it cannot begin, OSError when it cannot listen."""
        self._users = await self._counter.users()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._protocol, self._listen.host, self._listen.port)
        reading = asyncio.ensure_future(self._read_users())
        try:
            started(server.sockets[0].getsockname()[1])
            await stop.wait()
        finally:
            reading.cancel()
            server.close()
            await self._counter.close()

    def _protocol(self) -> SMTP:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that passwords are said in clear: on loopback only, see `Listen`
            return self._made()

    def _made(self) -> SMTP:
        secured = self._listen.tls is not None
        return SMTP(
            self._handler,
            data_size_limit=MAX_CONTENT,
            enable_SMTPUTF8=True,
            ident="Outbox",
            tls_context=self._listen.tls,
            require_starttls=secured and not is_loopback(self._listen.host),
            auth_required=not self._listen.without_login,
            auth_require_tls=secured and not is_loopback(self._listen.host),
            authenticator=self._authenticate,
            command_call_limit={"AUTH": TRIES, "*": 10_000},
        )

    def _authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        refused = AuthResult(success=False, handled=False)
        if mechanism not in ("PLAIN", "LOGIN") or not isinstance(data, LoginPassword):
            return refused
        name = data.login.decode("utf-8", "replace")
        user = self._users.get(name)
        # Of a name that nobody has, as long an answer.
        stored = user.password_hash if user is not None else _NOBODY
        password = Secret(data.password.decode("utf-8", "surrogateescape"))
        if is_password(password, stored) and user is not None:
            return AuthResult(success=True, auth_data=user)
        log.warning("a login as %r from %s was refused", name, session.peer)
        return refused

    async def _read_users(self) -> None:
        while True:
            await asyncio.sleep(USERS_AGAIN)
            try:
                self._users = await self._counter.users()
            except DatabaseError as error:
                log.error("the users cannot be read: %s", error)


_NOBODY = f"scrypt$16384$8$1${'00' * 16}${'00' * 64}"


def tls_context(certificate: str, key: str | None) -> ssl.SSLContext:
    """Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot load the certificate {certificate}: {error}") from None
    return context
