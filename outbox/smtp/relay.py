"""Where a relay is, how to connect to it, and how long to wait for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from outbox.clock import Clock
from outbox.core.account import Account, Mechanism, Tls
from outbox.core.networks import ANYWHERE, Networks
from outbox.core.outcome import Stage
from outbox.core.secret import Secret

TLS_MODES = tuple(Tls)
MECHANISMS = tuple(Mechanism)

_NAME = re.compile(r"[!-~]+")
_UNSPEAKABLE = re.compile("[\0\ud800-\udfff]")
_PIN = re.compile(r"[0-9A-Fa-f]{64}")


@dataclass(frozen=True, slots=True)
class Relay:
    """Where and how to connect, as one account says.

    host, port    a name or an address
    tls           ``implicit`` (from the first octet, port 465), ``starttls`` (required), ``opportunistic`` (STARTTLS
                  where it is offered) or ``none``
    helo          our name in EHLO: a configured FQDN or address literal, never the machine's guess
    ca_file       PEM file of the only authorities to trust; empty: the system's
    tls_pins      SHA-256 of certificates (DER), in hex. Where there are any, the relay's must be one of them, and
                  neither who signed it nor whose name it has is asked
    starttls_seen it has offered STARTTLS before: then ``opportunistic`` requires it, as it does with `tls_pins`
    mechanism     one of `outbox.core.account.Mechanism`; see `outbox.smtp.sasl` for what ``auto`` takes
    username      empty: no AUTH
    password      for OAuth, the access token
    max_messages  on one connection, before it is replaced
    networks      where it may be
    nonce         chance for SCRAM: printable ASCII without a comma, never twice the same
    """

    host: str
    port: int
    tls: str
    helo: str = "localhost"
    ca_file: str = ""
    mechanism: str = "auto"
    username: str = ""
    password: Secret = field(default_factory=Secret)
    max_messages: int = 100
    tls_pins: tuple[str, ...] = ()
    starttls_seen: bool = False
    networks: Networks = ANYWHERE
    nonce: Callable[[], str] = field(default=Clock().token, repr=False, compare=False)

    @classmethod
    def of(cls, account: Account, *, helo: str, password: Secret, networks: Networks = ANYWHERE) -> Relay:
        """As the account says; `password` is its own, opened, or its access token."""
        return cls(
            host=account.relay_host,
            port=account.relay_port,
            tls=account.tls,
            helo=helo,
            ca_file=account.ca_file,
            mechanism=account.mechanism,
            username=account.username,
            password=password,
            max_messages=account.max_messages,
            tls_pins=tuple(account.tls_pins.split()),
            starttls_seen=account.starttls_seen_at is not None,
            networks=networks,
        )

    def __hash__(self) -> int:
        return hash((self.host, self.port, self.username))  # asked for twice a mail

    @property
    def requires_starttls(self) -> bool:
        known = self.starttls_seen or bool(self.tls_pins)
        return self.tls == Tls.STARTTLS or (self.tls == Tls.OPPORTUNISTIC and known)

    def flaw(self) -> str:
        """What makes these settings unusable, in words, or ``""``. Found before any connection is made."""
        if self.tls not in TLS_MODES:
            return f"TLS mode {self.tls!r} is not one of {', '.join(TLS_MODES)}"
        if self.mechanism not in MECHANISMS:
            return f"mechanism {self.mechanism!r} is not one of {', '.join(MECHANISMS)}"
        if not 0 < self.port < 65536:
            return f"port {self.port} is not between 1 and 65535"
        for pin in self.tls_pins:
            if not _PIN.fullmatch(pin):
                return f"TLS pin {pin!r} is not the SHA-256 of a certificate, 64 hex digits"
        if self.tls_pins and self.tls == Tls.NONE:
            return "a certificate is pinned, and without TLS the relay shows none"
        if not _NAME.fullmatch(self.helo):
            return f"EHLO name {self.helo!r} is not a word of ASCII"
        if _UNSPEAKABLE.search(self.username) or _UNSPEAKABLE.search(self.password.reveal()):
            return "the user name or password contains NUL or a broken character"
        return _host_flaw(self.host) or self._address_flaw()

    def _address_flaw(self) -> str:
        """Of a host that is an address; a name is judged when it is resolved."""
        try:
            ip_address(self.host.partition("%")[0])
        except ValueError:
            return ""
        refusal = self.networks.refusal(self.host)
        return refusal and f"host {self.host}: {refusal}"


def _host_flaw(host: str) -> str:
    try:
        ascii_name = host.encode("idna").decode()
    except UnicodeError:
        ascii_name = ""
    return "" if _NAME.fullmatch(ascii_name) and not ascii_name.startswith(".") else f"host {host!r} is not a host name"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long to wait for the answer of each stage, in seconds, in total: a relay that trickles gains nothing by it.

    RFC 5321 §4.5.3.2 with Postfix's and our own cuts. `connect` covers DNS too; `body` is for each 64 KiB; `dot` is the
    RFC's ten minutes, because a shorter wait makes duplicates.
    """

    connect: float = 30.0
    banner: float = 60.0
    ehlo: float = 60.0
    starttls: float = 30.0
    tls: float = 30.0
    auth: float = 60.0
    mail: float = 120.0
    rcpt: float = 120.0
    data: float = 120.0
    body: float = 180.0
    dot: float = 600.0
    rset: float = 10.0
    quit: float = 2.0

    def by_stage(self) -> dict[Stage, float]:
        return {
            Stage.BANNER: self.banner,
            Stage.EHLO: self.ehlo,
            Stage.STARTTLS: self.starttls,
            Stage.AUTH: self.auth,
            Stage.MAIL: self.mail,
            Stage.RCPT: self.rcpt,
            Stage.DATA: self.data,
            Stage.BODY: self.body,
            Stage.DOT: self.dot,
            Stage.RSET: self.rset,
            Stage.QUIT: self.quit,
        }
