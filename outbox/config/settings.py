"""Every setting: its unit, default, bounds and meaning, as the fields of one frozen `Config`. `outbox.config` reads
it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from outbox.config.feedback import DeliverConfig, EventsConfig, NoticesConfig, Section, WebhookConfig
from outbox.config.units import Duration, Size, Words, checked_uuid, words
from outbox.core.address import ascii_domain
from outbox.core.networks import Networks
from outbox.core.policy import Policy


def _default_helo() -> str:
    """The host's own name where it is a public-looking one, else an address literal (RFC 5321 §4.1.3). No name is
    looked up: that can hang for half a minute, and ``localhost`` is what many relays refuse.
    """
    name = socket.gethostname()
    local = name.lower().rpartition(".")[2] in ("local", "localdomain", "localhost", "lan", "internal", "arpa")
    try:
        return "[127.0.0.1]" if local or "." not in name else ascii_domain(name)
    except ValueError:
        return "[127.0.0.1]"


def _checked_networks(value: str) -> str:
    Networks.parse(words(value))
    return value


_NONE, _DAY = timedelta(0), timedelta(days=1)


class RetryConfig(Section):
    """When a deferred message is tried again, and when we give up."""

    floor: Duration = Field(
        default=timedelta(minutes=1),
        ge=timedelta(milliseconds=1),
        le=_DAY,
        description="shortest wait before the next attempt; later waits double",
    )
    ceiling: Duration = Field(
        default=timedelta(hours=4),
        ge=timedelta(milliseconds=1),
        le=7 * _DAY,
        description="longest wait between two attempts",
    )
    max_age: Duration = Field(
        default=timedelta(days=2),
        ge=timedelta(seconds=1),
        le=90 * _DAY,
        description="a message that is still deferred at this age expires",
    )
    max_doubts: int = Field(
        default=3,
        ge=0,
        le=100,
        description="a message that the relay may already have accepted this many times is held",
    )
    doubt_delay: Duration = Field(
        default=timedelta(minutes=15),
        ge=_NONE,
        le=_DAY,
        description="wait after a relay fell silent at the end of a message",
    )
    brake_after: int = Field(
        default=3,
        ge=0,
        le=1000,
        description="so many messages in a row that are refused alike pause their account instead of failing; 0: never",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.ceiling < self.floor:
            raise ValueError("ceiling is shorter than floor")
        return self

    def policy(self) -> Policy:
        """The same, as `outbox.core.settlement.decide` takes it."""
        return Policy(
            self.floor, self.ceiling, self.max_age, self.max_doubts, self.doubt_delay, brake_after=self.brake_after
        )


class RunConfig(Section):
    """How a runner behaves."""

    grace: Duration = Field(
        default=timedelta(seconds=30),
        ge=_NONE,
        le=_DAY,
        description="at a stop, what is past DATA may take this long to finish",
    )
    poll: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(milliseconds=50),
        le=_DAY,
        description="look for due mail at least this often, whether or not the database has told of any",
    )
    lease: Duration = Field(
        default=timedelta(seconds=60),
        ge=timedelta(seconds=1),
        le=_DAY,
        description="a runner that has not renewed its lease for this long is taken for dead",
    )
    renew: Duration = Field(
        default=timedelta(seconds=15),
        ge=timedelta(milliseconds=100),
        le=_DAY,
        description="how often the lease is renewed",
    )
    recipients_per_transaction: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="a message for more recipients is handed over in parts (RFC 5321 §4.5.3.1.8)",
    )
    byte_budget: Size = Field(
        default=64 * 2**20, ge=2**20, le=2**40, description="how much claimed mail a runner holds in memory at a time"
    )
    event_loop: Literal["asyncio", "uvloop"] = Field(
        default="asyncio",
        description="what waits for sockets and clocks: uvloop, of the extra of that name, may take less CPU",
    )

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        if self.renew * 2 > self.lease:
            raise ValueError("renew is more than half of lease: one late renewal would cost the runner its lease")
        return self


class SendmailConfig(Section):
    """The command `outbox-sendmail`."""

    domain: str = Field(
        default="", description="what is put behind names without a domain (root); empty: this host's name"
    )
    spool: str = Field(default="", description="a pickup folder that keeps its mail while the database is away")


class Config(BaseModel):
    """Everything that can be configured. `load` makes one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: str = Field(
        default="", repr=False, description="URL of the database: sqlite:///outbox.db, postgresql://user@host/database"
    )
    database_uuid: Annotated[str, AfterValidator(checked_uuid)] = Field(
        default="", description="the database must carry this id, so that a copy of it does not send its mail again"
    )
    key_file: Path | None = Field(
        default=None, description="file with the keys that open the passwords of accounts; mode 0600"
    )
    helo: Annotated[str, AfterValidator(ascii_domain)] = Field(
        default_factory=_default_helo, description="how we introduce ourselves to relays (EHLO)"
    )
    relay_networks: Annotated[Words, AfterValidator(_checked_networks)] = Field(
        default="",
        description="where relays may be: networks as 10.1.0.0/16, public, private, loopback; empty: all of these",
    )
    retry: RetryConfig = RetryConfig()
    run: RunConfig = RunConfig()
    deliver: DeliverConfig = DeliverConfig()
    events: EventsConfig = EventsConfig()
    webhook: WebhookConfig = WebhookConfig()
    notices: NoticesConfig = NoticesConfig()
    sendmail: SendmailConfig = SendmailConfig()

    _file: Path | None = None
    _origins: dict[str, str] = {}

    def networks(self) -> Networks:
        """Where relays may be."""
        return Networks.parse(words(self.relay_networks))

    @property
    def file(self) -> Path | None:
        """The file that was read; None when there was none."""
        return self._file

    def origin(self, key: str) -> str:
        """Where the value of ``"database"`` or ``"retry.floor"`` came from, for people."""
        return self._origins.get(key, "default")


SECTIONS: dict[str, type[Section]] = {
    "retry": RetryConfig,
    "run": RunConfig,
    "deliver": DeliverConfig,
    "events": EventsConfig,
    "webhook": WebhookConfig,
    "notices": NoticesConfig,
    "sendmail": SendmailConfig,
}


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting as ``("retry.floor", its FieldInfo)``, in the order of the classes."""
    for name, field in Config.model_fields.items():
        if name in SECTIONS:
            yield from ((f"{name}.{inner}", each) for inner, each in SECTIONS[name].model_fields.items())
        else:
            yield name, field
