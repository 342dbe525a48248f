"""Settings of what is told to whom: where mail really goes, what is recorded as an event, who hears of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from outbox.config.units import Duration, Words, words
from outbox.core.account import is_loopback
from outbox.core.address import parse_address
from outbox.core.staging import Mode, Staging

EVENT_KINDS = ("accepted", "delayed", "bounced", "expired", "doubt", "paused")


def _kinds(value: str) -> str:
    unknown = [each for each in words(value) if each not in EVENT_KINDS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(EVENT_KINDS)}")
    return value


def _address(value: str) -> str:
    return parse_address(value).email if value else ""


Kinds = Annotated[Words, AfterValidator(_kinds)]
Email = Annotated[str, AfterValidator(_address)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeliverConfig(Section):
    """Where mail really goes: a copied production database must not mail customers."""

    mode: Mode = Field(
        default=Mode.LIVE,
        description="live; redirect: everything to redirect_to; allowlist: only to those in allow; off: nothing",
    )
    redirect_to: Email = Field(default="", description="the address that gets everything in mode redirect")
    allow: Words = Field(
        default="", description="whom mode allowlist lets through: addresses, and *@example.com for a whole domain"
    )

    def staging(self) -> Staging:
        """The same, as `core` knows it. Raises ValueError with a sentence."""
        return Staging(self.mode, self.redirect_to, words(self.allow))

    @model_validator(mode="after")
    def _complete(self) -> Self:
        self.staging()
        return self


class EventsConfig(Section):
    """What is recorded in `outbox_event` for the application."""

    record: Kinds = Field(default=", ".join(EVENT_KINDS), description="the kinds of events that are recorded")
    delayed_after: Duration = Field(
        default=timedelta(hours=4),
        ge=timedelta(seconds=1),
        le=timedelta(days=30),
        description="a message that is still deferred at this age is said to be delayed, once",
    )
    keep: Duration = Field(
        default=timedelta(days=30),
        ge=timedelta(minutes=1),
        le=timedelta(days=3650),
        description="events are deleted after this time",
    )


class WebhookConfig(Section):
    """Events are posted to the application over HTTP (extra `webhook`)."""

    url: str = Field(default="", description="where to post them; empty: nowhere", repr=False)
    secret_file: Annotated[Path | None, BeforeValidator(lambda value: value or None)] = Field(
        default=None, description="file with the secret that signs them; mode 0600"
    )
    kinds: Kinds = Field(default=", ".join(EVENT_KINDS), description="the kinds of events that are posted")

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if not self.url:
            return self
        parts = urlsplit(self.url)
        secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
        if not secure or not parts.hostname:
            raise ValueError("url must begin with https://; http:// only for this machine")
        if self.secret_file is None:
            raise ValueError("url needs secret_file: what is not signed cannot be trusted")
        return self


class NoticesConfig(Section):
    """Mail to the return path when a message fails or is delayed (RFC 3464)."""

    failure: bool = Field(default=False, description="tell the return path of a message that failed or expired")
    delay: bool = Field(default=False, description="tell the return path of a message that is delayed")
    sender: Email = Field(default="", description="in whose name; a registered sender, such as postmaster@example.com")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.failure or self.delay) and not self.sender:
            raise ValueError("notices need a sender")
        return self
