"""How an account gets its access tokens: one record, sealed as a whole.

It is sealed whole because any part of it would do in the wrong hands: whoever could write the token endpoint into the
database would be sent the client secret, and whoever could write the command would have it run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from outbox.core.account import Mechanism, is_loopback
from outbox.core.secret import Secret

MECHANISMS = frozenset({Mechanism.XOAUTH2, Mechanism.OAUTHBEARER})
"""Those that log in with an access token."""


class Grant(StrEnum):
    """What an access token is given for."""

    CLIENT_CREDENTIALS = "client_credentials"
    """The client's own id and secret (RFC 6749 §4.4): no person takes part."""
    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - the name of a grant
    """A person's consent, given once (RFC 6749 §6)."""
    COMMAND = "command"
    """No grant of ours: a command prints a token."""


class ClientAuth(StrEnum):
    """Where the client secret goes in a request (RFC 6749 §2.3.1)."""

    POST = "post"
    BASIC = "basic"


NOTHING = Secret()


@dataclass(frozen=True, slots=True)
class Setup:
    """How an account gets its access tokens.

    token_url       where a token is asked for; device_url, where a login on another device begins (RFC 8628)
    client_secret   empty for a public client
    scope           what is asked for, separated by spaces; empty: whatever the endpoint gives
    refresh_token   for the grant of that name; empty until somebody has logged in
    command         program and arguments, run without a shell
    """

    grant: Grant
    token_url: str = ""
    device_url: str = ""
    client_id: str = ""
    client_secret: Secret = NOTHING
    client_auth: ClientAuth = ClientAuth.POST
    scope: str = ""
    refresh_token: Secret = NOTHING
    command: tuple[str, ...] = field(default=(), repr=False)

    def check(self) -> None:
        """Raises ValueError, with a sentence, when a token cannot be got like this."""
        if self.grant is Grant.COMMAND:
            if not self.command or not self.command[0]:
                raise ValueError("there is no command")
            if any("\0" in argument for argument in self.command):
                raise ValueError("a command has no NUL in it")
            return
        check_url(self.token_url, "token URL")
        if self.device_url:
            check_url(self.device_url, "device URL")
        if not self.client_id:
            raise ValueError("there is no client id")
        if self.grant is Grant.CLIENT_CREDENTIALS and not self.client_secret:
            raise ValueError("client credentials are an id and a secret, and there is no secret")

    @property
    def asked(self) -> tuple[str, str, str]:
        """Who asks, and whom: what a client secret was given for."""
        return self.client_id, self.token_url, self.device_url

    def renewed(self, refresh_token: Secret) -> Setup:
        """The same with the refresh token that replaces its own."""
        return replace(self, refresh_token=refresh_token)

    def pack(self) -> Secret:
        """All of it, as the text to seal."""
        content = {
            "grant": str(self.grant),
            "token_url": self.token_url,
            "device_url": self.device_url,
            "client_id": self.client_id,
            "client_secret": self.client_secret.reveal(),
            "client_auth": str(self.client_auth),
            "scope": self.scope,
            "refresh_token": self.refresh_token.reveal(),
            "command": list(self.command),
        }
        return Secret(json.dumps({name: value for name, value in content.items() if value}))

    @classmethod
    def unpack(cls, packed: Secret) -> Setup:
        """What `pack` made. Raises ValueError when it is something else; it does not show it."""
        read = _read(packed)
        if read is None:
            raise ValueError("the OAuth setup was stored by a newer version of this program")
        return read


def _read(packed: Secret) -> Setup | None:
    """Nothing is raised from here, so that no traceback can carry the text."""
    try:
        content: dict[str, Any] = json.loads(packed.reveal())
        return Setup(
            Grant(content.pop("grant")),
            client_secret=Secret(content.pop("client_secret", "")),
            client_auth=ClientAuth(content.pop("client_auth", ClientAuth.POST)),
            refresh_token=Secret(content.pop("refresh_token", "")),
            command=tuple(content.pop("command", ())),
            **content,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def check_url(url: str, name: str) -> None:
    """Raises ValueError unless secrets may be sent to this URL: https, or http that does not leave this machine."""
    if not url:
        raise ValueError(f"there is no {name}")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"the {name} has letters that no URL has")
    try:
        parts = urlsplit(url)
        host = "" if parts.port == 0 else parts.hostname or ""
    except ValueError:
        raise ValueError(f"the {name} is not a URL: its host or port is none") from None
    if not host or parts.username is not None or parts.fragment:
        raise ValueError(f"the {name} is not a URL such as https://login.example.com/token")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError(f"the {name} must begin with https://, for secrets are sent there")


# ---- presets


@dataclass(frozen=True, slots=True)
class Provider:
    """The endpoints and scopes of a well-known one. ``{tenant}`` stands for the customer's directory.

    device_url  empty: gives no access to mail for a code that is entered on another device
    """

    token_url: str
    device_url: str
    scope: str
    app_scope: str = ""
    """For client credentials; empty: there are none."""


PROVIDERS: Mapping[str, Provider] = {
    "microsoft365": Provider(
        "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
        "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode",
        "https://outlook.office.com/SMTP.Send offline_access",
        "https://outlook.office365.com/.default",
    ),
    "google": Provider(
        "https://oauth2.googleapis.com/token",
        "",
        "https://mail.google.com/",
    ),
}

_TENANT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", re.ASCII)


def preset(name: str, grant: Grant, tenant: str = "") -> Setup:
    """A provider's endpoints and scope for this grant. Raises ValueError with a sentence."""
    provider = PROVIDERS.get(name)
    if provider is None:
        raise ValueError(f"{name!r} is not one of {', '.join(PROVIDERS)}")
    if tenant and not _TENANT.fullmatch(tenant):
        raise ValueError(f"{tenant!r} is not a tenant: that is an id or a domain")
    app_only = grant is Grant.CLIENT_CREDENTIALS
    if app_only and not provider.app_scope:
        raise ValueError(f"{name} gives no access to mail for client credentials; use a refresh token or a command")
    if "{tenant}" in provider.token_url and not tenant:
        if app_only:
            raise ValueError(f"{name} needs the tenant (directory id) for client credentials")
        tenant = "organizations"
    return Setup(
        grant,
        provider.token_url.format(tenant=tenant),
        "" if app_only else provider.device_url.format(tenant=tenant),
        scope=provider.app_scope if app_only else provider.scope,
    )
