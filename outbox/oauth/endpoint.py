"""Requests to a token endpoint, over HTTPS. Imported when the first one is made: it needs the extra `oauth2`.

Authlib makes the requests (client authentication, the form of each grant), httpx2 carries them; what the answers mean
is for `answer.py`. No redirect is followed, for a secret is in every request. The answer is bounded in time and size.
Certificates are verified against the system's authorities. Proxies of the environment are used, but not to this
machine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx2
from authlib.integrations.httpx_client import AsyncOAuth2Client

from outbox.core.secret import Secret
from outbox.oauth.answer import GrantError, hide, read_object
from outbox.oauth.setup import ClientAuth, Setup, check_url

DEADLINE = 30.0
"""Seconds for a whole exchange."""
SILENCE = 15.0
"""Seconds without a byte."""
MAX_ANSWER = 256 * 1024
"""Bytes of an answer."""

logging.getLogger("httpx2").setLevel(logging.WARNING)  # at INFO it tells of every request

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/x-www-form-urlencoded",
}


async def ask_token(
    setup: Setup, grant_type: str, secrets: Mapping[str, Secret], *, deadline: float = DEADLINE
) -> dict[str, Any]:
    """Ask the token endpoint for a token. `secrets` are further fields of the form. Raises GrantError."""
    async with _client(setup, setup.token_url) as client:
        request = client.fetch_token(
            setup.token_url,
            grant_type=grant_type,
            headers=dict(_HEADERS),
            **{name: secret.reveal() for name, secret in {**_credentials(setup), **secrets}.items()},
        )
        return _content(await _exchange(request, setup.token_url, setup, deadline), setup, *secrets.values())


async def ask_device(setup: Setup, *, deadline: float = DEADLINE) -> dict[str, Any]:
    """Begin a login on another device (RFC 8628 §3.1). Raises GrantError."""
    fields = {"client_id": setup.client_id, **({"scope": setup.scope} if setup.scope else {})}
    async with _client(setup, setup.device_url) as client:
        request = client.post(setup.device_url, data=fields, auth=None, headers=dict(_HEADERS))
        return _content(await _exchange(request, setup.device_url, setup, deadline), setup)


def _credentials(setup: Setup) -> dict[str, Secret]:
    """Those of the client that go in the form."""
    if setup.client_secret and setup.client_auth is ClientAuth.BASIC:
        return {}
    secret = {"client_secret": setup.client_secret} if setup.client_secret else {}
    return {"client_id": Secret(setup.client_id), **secret}


def _in_form(client: object, method: str, url: str, headers: Any, body: Any) -> tuple[str, Any, Any]:
    """Authlib's way to authenticate when the credentials are in the form already: its own fails for other letters than
    ASCII.
    """
    return url, headers, body


class _Client(AsyncOAuth2Client):  # type: ignore[misc]  # Authlib has no types
    """Leaves it to us to read an answer: Authlib's own reading raises with the token at hand."""

    def parse_response_token(self, resp: httpx2.Response) -> httpx2.Response:
        return resp


def _client(setup: Setup, url: str) -> Any:
    check_url(url, "URL")  # here too, where it counts
    basic = bool(setup.client_secret) and setup.client_auth is ClientAuth.BASIC
    return _Client(
        # RFC 6749 §2.3.1 wants them encoded in the header, and Authlib leaves that to us.
        client_id=quote_plus(setup.client_id) if basic else setup.client_id,
        client_secret=quote_plus(setup.client_secret.reveal()) if basic else None,
        token_endpoint_auth_method="client_secret_basic" if basic else _in_form,
        scope=setup.scope or None,
        timeout=SILENCE,
        follow_redirects=False,
        trust_env=url.startswith("https://"),
        event_hooks={"response": [_bound]},
    )


async def _exchange(request: Any, url: str, setup: Setup, deadline: float) -> httpx2.Response | GrantError:
    """The answer, read whole; else what kept us from it."""
    host = urlsplit(url).netloc
    try:
        async with asyncio.timeout(deadline):
            answer: httpx2.Response = await request
            return answer
    except TimeoutError:
        return GrantError(f"no answer from {host} within {deadline:g} s", permanent=False)
    except httpx2.TimeoutException:
        return GrantError(f"no answer from {host} within {SILENCE:g} s", permanent=False)
    except _TooLargeError:
        return GrantError(f"the answer of {host} is larger than {MAX_ANSWER // 1024} KiB", permanent=False)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        words = hide(str(error), (setup.client_secret, setup.refresh_token)) or type(error).__name__
        return GrantError(f"cannot ask {host}: {words}", permanent=False)


def _content(answer: httpx2.Response | GrantError, setup: Setup, *others: Secret) -> dict[str, Any]:
    if isinstance(answer, GrantError):
        raise answer
    secrets = (setup.client_secret, setup.refresh_token, *others)
    read = read_object(answer.status_code, answer.content, answer.url.netloc.decode("ascii"), secrets)
    if isinstance(read, GrantError):
        del answer
        raise read
    return read


async def _bound(response: httpx2.Response) -> None:
    """See to it that no more is read of an answer than MAX_ANSWER."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise httpx2.DecodingError("the answer is compressed, and that was not asked for")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > MAX_ANSWER:
                raise _TooLargeError
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


class _TooLargeError(Exception):
    """More than MAX_ANSWER."""
