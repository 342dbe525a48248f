"""An access token, got as the setup of an account says."""

from __future__ import annotations

from typing import Any

from outbox.core.secret import Secret
from outbox.errors import OAuthError
from outbox.oauth import command
from outbox.oauth.answer import Granted, GrantError, read_grant
from outbox.oauth.setup import Grant, Setup

__all__ = ["GrantError", "Granted", "obtain"]


async def obtain(setup: Setup) -> Granted:
    """A new access token. Takes up to half a minute, and does not block the loop. Raises OAuthError: a GrantError for
    what the endpoint says.

    A refresh token that was replaced is in the result, and must be kept: the old one may be void from now on.
    """
    if setup.grant is Grant.COMMAND:
        return await command.run(setup.command)
    if setup.grant is Grant.CLIENT_CREDENTIALS:
        return await ask(setup, "client_credentials")
    if not setup.refresh_token:
        raise GrantError("nobody has consented yet", permanent=True, code="consent_required")
    return await ask(setup, "refresh_token", refresh_token=setup.refresh_token)


async def ask(setup: Setup, grant_type: str, **secrets: Secret) -> Granted:
    """Ask the token endpoint. `secrets` are fields of the form. Raises OAuthError."""
    load()
    from outbox.oauth import endpoint

    granted = _read(setup, await endpoint.ask_token(setup, grant_type, secrets))
    if isinstance(granted, GrantError):
        raise granted
    return granted


def _read(setup: Setup, answer: dict[str, Any]) -> Granted | GrantError:
    from urllib.parse import urlsplit

    return read_grant(answer, urlsplit(setup.token_url).netloc)


def load() -> None:
    """Raises OAuthError unless the libraries are there."""
    try:
        from outbox.oauth import endpoint
    except ImportError as error:
        raise OAuthError(
            f"OAuth needs a library that is not installed: {error.name}",
            permanent=True,
            hint="pip install 'mail-outbox[oauth2]'",
        ) from None
    assert endpoint is not None
