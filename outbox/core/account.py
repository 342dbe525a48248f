"""Accounts (a relay and a login), senders (addresses registered to an account), and when either may not send.

    a lane (bare address) ──Registry.resolve──► Route: exact address, else *@domain, else nothing
                                                  ├─ blocked(now): paused sender, domain, account; resting relay
                                                  └─ half_open(now): their pause is over, and one message may try them

An address that does not resolve is not ours to send from: its mail fails, so this is never an open relay.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from outbox.core.address import ascii_domain, wildcard
from outbox.core.address import fold as fold
from outbox.core.outcome import Scope
from outbox.core.pause import Probe, Subject

BY_OPERATOR = "operator: "
"""How the reason of a pause begins that a person asked for. No runner lifts, shortens or replaces such a pause."""

_RELAY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\s\[\]]+))(?::([0-9]{1,5}))?")
_LOCAL_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?", re.ASCII)

PROBING = "probing, one message at a time"
"""What is said of the half-open."""

BREAKER_THRESHOLD = 5
BREAKER_FIRST = timedelta(seconds=30)
BREAKER_CEILING = timedelta(minutes=15)


class Tls(StrEnum):
    """How the connection to the relay is encrypted. The certificate is always verified."""

    IMPLICIT = "implicit"
    STARTTLS = "starttls"
    OPPORTUNISTIC = "opportunistic"
    """STARTTLS where it is offered; and from then on always, so that nobody can take it away."""
    NONE = "none"


class Mechanism(StrEnum):
    """The SASL mechanism (RFC 4954). AUTO takes PLAIN where it is offered, else LOGIN; never a second one after a
    no.
    """

    AUTO = "auto"
    PLAIN = "plain"
    LOGIN = "login"
    CRAM_MD5 = "cram-md5"
    SCRAM_SHA_256 = "scram-sha-256"
    XOAUTH2 = "xoauth2"
    OAUTHBEARER = "oauthbearer"


_PORTS = {Tls.IMPLICIT: 465, Tls.STARTTLS: 587, Tls.OPPORTUNISTIC: 25, Tls.NONE: 25}


@dataclass(frozen=True, slots=True)
class Account:
    """One row of `outbox_account`. `secret` is the sealed password (None: no login); only `outbox.vault` opens it.

    max_connections   at the same time, by one runner
    max_messages      over one connection
    paused            `pause_reason` is not empty; `paused_until` None: until somebody resumes it
    probes            how many pauses by runners there were in a row; somebody probes until `probe_until`
    brake             the refusal that has braked it; `brake_messages`: the ids of those it had failed before that
    breaker_…         consecutive failures to reach the relay, and until when it is left alone
    """

    name: str
    relay_host: str
    relay_port: int
    tls: Tls
    mechanism: Mechanism = Mechanism.AUTO
    username: str = ""
    secret: str | None = field(default=None, repr=False)
    key_id: str = ""
    credential_version: int = 1
    ca_file: str = ""
    tls_pins: str = ""
    starttls_seen_at: datetime | None = None
    max_connections: int = 3
    max_messages: int = 100
    paused_until: datetime | None = None
    pause_reason: str = ""
    probes: int = 0
    probe_until: datetime | None = None
    brake: str = ""
    brake_messages: str = ""
    breaker_failures: int = 0
    breaker_until: datetime | None = None
    breaker_reason: str = ""
    created_at: datetime | None = None

    @property
    def relay(self) -> str:
        """``host:port``, or ``[host]:port`` for an IPv6 address."""
        host = f"[{self.relay_host}]" if ":" in self.relay_host else self.relay_host
        return f"{host}:{self.relay_port}"

    def is_paused(self, now: datetime) -> bool:
        return _paused(self.pause_reason, self.paused_until, now)

    def is_closed(self, now: datetime) -> bool:
        """Nothing of this account may be sent now, not even to try it."""
        return self.is_paused(now) or (self.breaker_until is not None and now < self.breaker_until)

    def half_open(self, now: datetime) -> tuple[Subject, ...]:
        """What of it one message at a time may try now: its relay, itself."""
        if self.breaker_until is None and not self.pause_reason:
            return ()
        relay = self.breaker_failures >= BREAKER_THRESHOLD and _over(self.breaker_until, now)
        account = is_half_open(self.pause_reason, self.paused_until, now)
        of_relay = (Subject(Scope.RELAY, self.relay_host, self.relay_port),) if relay else ()
        return (*of_relay, Subject(Scope.ACCOUNT, self.name)) if account else of_relay

    @property
    def failed_by_brake(self) -> tuple[int, ...]:
        """The messages that failed before the brake."""
        return _ids(self.brake_messages)

    def blocked(self, now: datetime) -> str:
        """Why the mail of this account waits now, in words; empty if it does not."""
        if self.is_paused(now):
            return f"account {self.name} is {_pause(self.pause_reason, self.paused_until)}"
        if self.breaker_until is not None and now < self.breaker_until:
            return f"relay {self.relay} is left alone{_until(self.breaker_until)}: {self.breaker_reason}"
        for each in self.half_open(now):
            if each.scope is Scope.RELAY:
                return f"relay {self.relay} is {PROBING}: {self.breaker_reason}"
            return f"account {self.name} is {PROBING}: {self.pause_reason}"
        return ""


@dataclass(frozen=True, slots=True)
class Sender:
    """One row of `outbox_sender`: an address, folded (see `fold`), or ``*@domain``, registered to an account."""

    address: str
    account: str
    display_name: str = ""
    return_path: str = ""
    paused_until: datetime | None = None
    pause_reason: str = ""
    probes: int = 0
    probe_until: datetime | None = None
    brake: str = ""
    brake_messages: str = ""
    created_at: datetime | None = None

    def is_paused(self, now: datetime) -> bool:
        return _paused(self.pause_reason, self.paused_until, now)

    is_closed = is_paused
    """Nothing from this address may be sent now, not even to try it."""

    def half_open(self, now: datetime) -> tuple[Subject, ...]:
        """Itself, where one message at a time may try it now."""
        over = is_half_open(self.pause_reason, self.paused_until, now)
        return (Subject(Scope.SENDER, self.address),) if over else ()

    @property
    def failed_by_brake(self) -> tuple[int, ...]:
        """The messages that failed before the brake."""
        return _ids(self.brake_messages)

    def blocked(self, now: datetime) -> str:
        """Why the mail from this address waits now, in words; empty if it does not."""
        if self.is_paused(now):
            return f"sender {self.address} is {_pause(self.pause_reason, self.paused_until)}"
        if self.half_open(now):
            return f"sender {self.address} is {PROBING}: {self.pause_reason}"
        return ""


@dataclass(frozen=True, slots=True)
class Route:
    """Through which account a lane's mail leaves. `domain` is the registration of the whole domain with the same
    account, where there is one beside the address's own: pausing it pauses all of its addresses.
    """

    account: Account
    sender: Sender
    domain: Sender | None = None
    unhindered: bool = field(init=False, repr=False, compare=False)
    """Nothing of it is paused, probed or left alone, at any time: as almost always."""

    def __post_init__(self) -> None:
        rows = [each for each in (self.account, self.sender, self.domain) if each is not None]
        hindered = any(each.pause_reason for each in rows) or self.account.breaker_until is not None
        object.__setattr__(self, "unhindered", not hindered)

    def blocked(self, now: datetime) -> str:
        """Why this lane's mail waits now, in words: sender, domain and account paused or probing, relay left alone."""
        rows = [each for each in (self.sender, self.domain, self.account) if each is not None]
        closed = [each for each in rows if each.is_closed(now)]
        return next(filter(None, (each.blocked(now) for each in closed + rows)), "")

    def is_closed(self, now: datetime) -> bool:
        """Nothing of this lane may be sent now, not even to try."""
        if self.unhindered:
            return False
        of_domain = self.domain is not None and self.domain.is_closed(now)
        return of_domain or self.sender.is_closed(now) or self.account.is_closed(now)

    def half_open(self, now: datetime) -> tuple[Subject, ...]:
        """What a message of this lane would try now; empty where nothing is in doubt. The relay comes first."""
        if self.unhindered:
            return ()
        of_domain = self.domain.half_open(now) if self.domain is not None else ()
        return self.account.half_open(now) + self.sender.half_open(now) + of_domain

    def is_probed(self, now: datetime) -> bool:
        """Somebody is trying it now."""
        rows = (self.account, self.sender, self.domain)
        return any(each is not None and each.probe_until is not None and now < each.probe_until for each in rows)

    def admits(self, probe: Probe | None, now: datetime) -> bool:
        """Whether a message may go now that was claimed as this probe, or as none."""
        if self.unhindered:
            return True
        if self.is_closed(now):
            return False
        subjects = self.half_open(now)
        return not subjects or (probe is not None and probe.covers(subjects))

    @property
    def brakes(self) -> tuple[str, str]:
        """The refusals that have braked the account and the sender; empty where none has."""
        return self.account.brake, self.sender.brake or (self.domain.brake if self.domain is not None else "")


class Registry:
    """All accounts and senders as they were at one moment. Immutable, so every address is resolved once; the runner
    takes a new one when they change.
    """

    __slots__ = ("_routes", "accounts", "senders")

    def __init__(self, accounts: Iterable[Account] = (), senders: Iterable[Sender] = ()) -> None:
        self.accounts = {account.name: account for account in accounts}
        self.senders = {sender.address: sender for sender in senders}
        self._routes: dict[str, Route | None] = {}

    def same_as(self, other: Registry) -> bool:
        return self.accounts == other.accounts and self.senders == other.senders

    def resolve(self, email: str) -> Route | None:
        """The route of an address: registered exactly, or through ``*@domain``; None when it is not registered."""
        try:
            return self._routes[email]  # several times a message, on the hot path
        except KeyError:
            route = self._routes[email] = self._find(email)
            return route

    def _find(self, email: str) -> Route | None:
        address = fold(email)
        if address.rpartition("@")[0] in ("", "*"):
            return None
        whole = self.senders.get(wildcard(address))
        sender = self.senders.get(address, whole)
        account = self.accounts.get(sender.account) if sender is not None else None
        if sender is None or account is None:
            return None
        beside = whole if whole is not None and whole is not sender and whole.account == sender.account else None
        return Route(account, sender, beside)

    def allows(self, account: str, address: str) -> bool:
        """Whether `address` is registered to `account`: may it stand in From, Sender or the return path there?"""
        route = self.resolve(address)
        return route is not None and route.account.name == account


def tripped(failures: int, now: datetime) -> tuple[int, datetime | None]:
    """The breaker after one more failure on top of `failures` in a row: the new count, and until when the relay is left
    alone. The fifth costs 30 s, every further one twice as much, 15 minutes at most; before that, nothing.
    """
    count = failures + 1
    if count < BREAKER_THRESHOLD:
        return count, None
    doublings = min(count - BREAKER_THRESHOLD, 16)
    return count, now + min(BREAKER_FIRST * 2**doublings, BREAKER_CEILING)


def parse_relay(text: str, tls: Tls) -> tuple[str, int]:
    """``smtp.example.com:587``, ``[::1]:25``, or a host alone, whose port then is the usual one: 465 for implicit TLS,
    587 for STARTTLS, 25 without TLS. Raises ValueError with a sentence.
    """
    match = _RELAY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not HOST:PORT; an IPv6 address is written [::1]:25")
    literal, name, digits = match.groups()
    port = int(digits) if digits else _PORTS[tls]
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} is not between 1 and 65535")
    if literal is not None:
        return str(ipaddress.IPv6Address(literal)), port
    # Names that only a local resolver knows may have an underscore (containers do); everything else is a domain name.
    return (name if _LOCAL_NAME.fullmatch(name) else ascii_domain(name)).lower(), port


def is_loopback(host: str) -> bool:
    """Whether a connection to `host` cannot leave this machine: ``localhost``, 127.0.0.0/8, ::1."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def may_log_in(tls: Tls, host: str) -> bool:
    """Credentials go over verified TLS, or never leave the machine."""
    return tls is not Tls.NONE or is_loopback(host)


def _paused(reason: str, until: datetime | None, now: datetime) -> bool:
    return bool(reason) and (until is None or now < until)


def _over(until: datetime | None, now: datetime) -> bool:
    return until is not None and until <= now


def is_half_open(reason: str | None, until: datetime | None, now: datetime) -> bool:
    """Whether this is a runner's pause that is over. A person's, when it is over, is no more."""
    return bool(reason) and not str(reason).startswith(BY_OPERATOR) and _over(until, now)


def _ids(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


def _pause(reason: str, until: datetime | None) -> str:
    """``paused until …: auth: 535 no``; ``paused by operator: relay moves``, or only by whom, where nobody said why."""
    why = reason.removeprefix(BY_OPERATOR)
    if why == reason:
        return f"paused{_until(until)}: {reason}"
    return f"paused by operator{_until(until)}" + (f": {why}" if why not in ("", "paused") else "")


def _until(moment: datetime | None) -> str:
    return f" until {moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if moment is not None else ""
