"""What large providers want of a client: relay, login, connections and limits, as they document them.

Providers change these without asking. So a preset says where its facts are from, and when they were read; what is given
beside it wins, and `outbox limit set` changes the limits later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from outbox.core.account import Mechanism, Tls
from outbox.core.limits import Limit, Limited

_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}", re.ASCII)


class Provider(StrEnum):
    GMAIL = "gmail"
    GMAIL_WORKSPACE = "gmail-workspace"
    MICROSOFT365 = "microsoft365"
    SES = "ses"


@dataclass(frozen=True, slots=True)
class Preset:
    """How to reach a provider, and what it allows one login.

    host          with {region} where the provider has many
    sources       the pages that say so; read in `read`, a month
    connections   at a time, by one runner; `together` by all of them, where the provider limits that
    messages      over one connection
    per_…         recipients in a span
    """

    host: str
    sources: tuple[str, ...]
    note: str
    port: int = 587
    tls: Tls = Tls.STARTTLS
    mechanism: Mechanism = Mechanism.AUTO
    connections: int = 3
    together: int | None = None
    messages: int = 100
    per_minute: int | None = None
    per_day: int | None = None
    read: str = "2026-11"

    def relay_host(self, region: str = "") -> str:
        """Raises ValueError with a sentence when a region is missing, is none, or is not wanted."""
        if "{region}" not in self.host:
            if region:
                raise ValueError("this provider has no regions")
            return self.host
        if not _REGION.fullmatch(region):
            raise ValueError(
                f"{region!r} is not a region such as eu-central-1"
                if region
                else "it needs a region, such as eu-central-1"
            )
        return self.host.format(region=region)

    def limit(self, account: str) -> Limit:
        """The limits of an account there."""
        scope = Limited.ACCOUNT
        return Limit(scope, account, self.together, per_minute=self.per_minute, per_day=self.per_day)


PRESETS: dict[Provider, Preset] = {
    Provider.GMAIL: Preset(
        "smtp.gmail.com",
        ("https://support.google.com/mail/answer/22839",),
        "A Google Account lets a program in with an app password (for which 2-Step Verification must be on) or"
        " OAuth, and sends to 500 recipients a day.",
        per_day=500,
    ),
    Provider.GMAIL_WORKSPACE: Preset(
        "smtp.gmail.com",
        ("https://support.google.com/a/answer/166852",),
        "A Workspace user sends 2,000 messages in any 24 hours (a trial 500), to 100 recipients each at most over SMTP;"
        " recipients are counted here, so the limit is kept whatever Google counts.",
        per_day=2000,
    ),
    Provider.MICROSOFT365: Preset(
        "smtp.office365.com",
        (
            "https://learn.microsoft.com/en-us/exchange/troubleshoot/send-emails/smtp-submission-improvements",
            "https://learn.microsoft.com/en-us/exchange/client-developer/legacy-protocols/"
            "how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth",
        ),
        "A mailbox has 3 connections, 30 messages a minute and 10,000 recipients a day. Exchange Online ends SMTP AUTH"
        " with passwords, so the login is OAuth.",
        mechanism=Mechanism.XOAUTH2,
        together=3,
        per_minute=30,
        per_day=10_000,
    ),
    Provider.SES: Preset(
        "email-smtp.{region}.amazonaws.com",
        (
            "https://docs.aws.amazon.com/ses/latest/dg/smtp-connect.html",
            "https://docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html",
        ),
        "Amazon publishes no fixed quota outside the sandbox (200 a day, 1 a second, to verified addresses). 14 a"
        " second and 50,000 a day are what new accounts have often been given: set what your console says.",
        connections=10,
        per_minute=14 * 60,
        per_day=50_000,
    ),
}
