"""One connection's dialogue: aiosmtpd's, and what it lacks.

DSN                  RET and ENVID of MAIL, NOTIFY and ORCPT of RCPT (RFC 3461); ORCPT is taken and not passed on
ENHANCEDSTATUSCODES  in every reply (RFC 2034)
the end of input     ends the dialogue after what was sent before it, rather than in the middle
logins               checked beside the event loop: a password costs 40 ms
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from outbox.core.dsn import unxtext
from outbox.mail import MAX_CONTENT

log = logging.getLogger("outbox.smtpd")

MOST_CONNECTIONS = 50
"""At once. Each may have a mail of 25 MiB in memory."""

Authenticate = Callable[[LoginPassword, Any], Awaitable[AuthResult]]

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(=[^ =]+)?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_NOTIFY = re.compile(r"never|(?:success|failure|delay)(?:,(?:success|failure|delay)){0,2}")
_UNCODED = re.compile(r"([245]\d\d) (?![245]\.\d)")
_CODES = {
    "421": "4.3.2",
    "451": "4.3.0",
    "454": "4.7.0",
    "500": "5.5.2",
    "501": "5.5.4",
    "502": "5.5.1",
    "503": "5.5.1",
    "504": "5.5.4",
    "530": "5.7.0",
    "552": "5.3.4",
    "553": "5.1.3",
    "554": "5.7.0",
    "555": "5.5.4",
}


async def nobody(login: LoginPassword, session: Any) -> AuthResult:
    """Where there are no logins."""
    return AuthResult(success=False, handled=False)


class Dialogue(SMTP):
    """`others` are those that are open, this one among them while it is."""

    def __init__(self, handler: Any, others: set[Dialogue], check: Authenticate = nobody, **options: Any) -> None:
        super().__init__(handler, data_size_limit=MAX_CONTENT, enable_SMTPUTF8=True, ident="Outbox", **options)
        self.asked: dict[str, str] = {}
        self._others = others
        self._check = check
        self._has_codes = False
        self._ends = False
        self._is_in_data = False

    @property
    def task(self) -> asyncio.Task[None] | None:
        """Done when the dialogue is over."""
        return self._handler_coroutine

    def end(self) -> None:
        """Say goodbye; after the mail that is being taken, if there is one."""
        self._ends = True
        if not self._is_in_data and self.transport is not None:
            self._writer.write(b"421 4.3.2 This server is being stopped\r\n")
            self.transport.close()

    # -- its beginning and its end

    async def _handle_client(self) -> None:
        if len(self._others) >= MOST_CONNECTIONS:
            log.warning("%d connections are open: one more was turned away", len(self._others))
            await self.push("421 4.3.2 Too many connections; try again later")
            self._writer.close()
            return
        self._others.add(self)
        try:
            await super()._handle_client()
        finally:
            self._others.discard(self)

    def eof_received(self) -> bool | None:
        if self._tls_protocol is not None:  # there is no half of a TLS connection
            return super().eof_received()
        return asyncio.StreamReaderProtocol.eof_received(self)

    async def handle_exception(self, error: Exception) -> str:
        if isinstance(error, asyncio.IncompleteReadError):  # all that came before it has been answered
            self._writer.close()
            raise asyncio.CancelledError
        log.error("%s: %s", type(error).__name__, error)
        return "451 4.3.0 This cannot be done now; try again later"

    async def push(self, status: Any) -> None:
        if isinstance(status, str) and self._has_codes:
            status = _UNCODED.sub(lambda found: f"{found[1]} {_CODES.get(found[1], f'{found[1][0]}.0.0')} ", status, 1)
        if status:
            await super().push(status)

    # -- commands

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802 -- the names are aiosmtpd's
        self._has_codes = False
        await super().smtp_EHLO(hostname)
        self._has_codes = True
        self.command_size_limits.update(MAIL=1000, RCPT=1000)  # RFC 3461 §4: ENVID and ORCPT are long

    async def smtp_HELO(self, hostname: str) -> None:  # noqa: N802
        self._has_codes = False
        await super().smtp_HELO(hostname)

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        await self._asking(super().smtp_MAIL, arg, {"RET": _is_ret, "ENVID": _is_envid})

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        await self._asking(super().smtp_RCPT, arg, {"NOTIFY": _is_notify, "ORCPT": _is_orcpt})

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        self._is_in_data = True
        try:
            await super().smtp_DATA(arg)
        finally:
            self._is_in_data = False
        if self._ends:
            self.end()

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802
        mechanism, space, rest = (arg or "").partition(" ")
        await super().smtp_AUTH(mechanism.upper() + space + rest)  # RFC 4422 §3.1; aiosmtpd takes capitals only

    async def _asking(self, verb: Any, arg: str | None, known: dict[str, Callable[[str], bool]]) -> None:
        """Without the parameters of DSN, which aiosmtpd would refuse; the handler finds them in `asked`."""
        words = (arg or "").split(" ")
        self.asked = {}
        kept: list[str] = []
        while len(words) > 1 and _WORD.fullmatch(words[-1]):
            name, _, value = words[-1].partition("=")
            name = name.upper()
            if name not in known or not self.session or not self.session.extended_smtp:
                kept.insert(0, words[-1])
            elif name in self.asked or not known[name](value):
                await self.push(f"501 5.5.4 {name} is not written so")
                return
            else:
                self.asked[name] = value
            words.pop()
        await verb(" ".join([*words, *kept]) if arg else arg)

    # -- logins

    async def auth_PLAIN(self, _: Any, args: list[str]) -> AuthResult:  # noqa: N802
        return await self._verdict(await super().auth_PLAIN(_, args))

    async def auth_LOGIN(self, _: Any, args: list[str]) -> AuthResult:  # noqa: N802
        return await self._verdict(await super().auth_LOGIN(_, args))

    def _authenticate(self, mechanism: str, auth_data: Any) -> AuthResult:
        """Nothing is decided yet: this is called where nothing can be waited for."""
        return AuthResult(success=False, handled=True, auth_data=auth_data)

    async def _verdict(self, result: AuthResult) -> AuthResult:
        if isinstance(result.auth_data, LoginPassword):
            return await self._check(result.auth_data, self.session)
        return result


def _is_ret(value: str) -> bool:
    return value.lower() in ("full", "hdrs")


def _is_envid(value: str) -> bool:
    return bool(_XTEXT.fullmatch(value)) and len(unxtext(value)) <= 100 and unxtext(value).isprintable()


def _is_notify(value: str) -> bool:
    words = value.lower().split(",")
    return bool(_NOTIFY.fullmatch(value.lower())) and len(set(words)) == len(words)


def _is_orcpt(value: str) -> bool:
    kind, semicolon, address = value.partition(";")
    return bool(kind and semicolon) and bool(_XTEXT.fullmatch(address))
