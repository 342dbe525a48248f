"""A person's consent, given on another device: the device authorization grant (RFC 8628).

begun = await begin(setup)          # show begun.url and begun.code to the person
granted = await finish(setup, begun, clock, sleep)   # until he has agreed, refused, or let the time run out
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from outbox.clock import Clock
from outbox.core.secret import Secret
from outbox.oauth.answer import Granted, GrantError
from outbox.oauth.granted import ask, load
from outbox.oauth.setup import Setup, check_url

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
INTERVAL = 5.0
"""Seconds between two questions when the endpoint names none, and by which each ``slow_down`` makes them longer."""
LONGEST_INTERVAL = 60.0
PATIENCE = 900.0
"""Seconds that a code is good for when the endpoint does not say, and at most."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A login that waits for a person: he opens `url` and enters `code`, within `seconds`."""

    url: str
    code: str
    seconds: float
    interval: float
    device_code: Secret = field(repr=False)
    complete_url: str = ""
    """The URL with the code in it already, where the endpoint makes one."""


async def begin(setup: Setup) -> Begun:
    """Ask for a code. Raises OAuthError."""
    load()
    from outbox.oauth import endpoint

    begun = _read(await endpoint.ask_device(setup), urlsplit(setup.device_url).netloc)
    if isinstance(begun, GrantError):
        raise begun
    return begun


async def finish(
    setup: Setup,
    begun: Begun,
    clock: Clock,
    sleep: Callable[[float], Awaitable[object]],
    pending: Callable[[float], object] = lambda seconds: None,
) -> Granted:
    """Ask until the person has decided; `pending` is told each time how many seconds are left. Raises OAuthError when
    he refuses, or is too late.
    """
    interval = begun.interval
    until = clock.monotonic() + begun.seconds
    while (left := until - clock.monotonic()) > 0:
        await sleep(min(interval, left))
        try:
            return await ask(setup, GRANT_TYPE, device_code=begun.device_code)
        except GrantError as error:
            interval = next_interval(error, interval)
        pending(max(0.0, until - clock.monotonic()))
    raise GrantError("nobody has entered the code in time", permanent=True)


def next_interval(error: GrantError, interval: float) -> float:
    """How long to wait before asking again (RFC 8628 §3.5). Raises the error when there is nothing to wait for."""
    if error.code == "authorization_pending":
        return interval
    if error.code == "slow_down":
        return min(interval + INTERVAL, LONGEST_INTERVAL)
    if error.permanent:
        raise error
    return min(interval * 2, LONGEST_INTERVAL)  # the endpoint, or the way to it, is in trouble


def _read(answer: dict[str, Any], host: str) -> Begun | GrantError:
    device_code, user_code = answer.get("device_code"), answer.get("user_code")
    url = answer.get("verification_uri", answer.get("verification_url"))  # the latter is Google's
    if not (_is_text(device_code) and _is_text(user_code) and _is_url(url)):
        return GrantError(f"{host} answers without a code and a URL to enter it at", permanent=True)
    complete = answer.get("verification_uri_complete")
    return Begun(
        url,
        user_code,
        seconds=_bounded(answer.get("expires_in"), PATIENCE, PATIENCE),
        interval=_bounded(answer.get("interval"), INTERVAL, LONGEST_INTERVAL),
        device_code=Secret(device_code),
        complete_url=complete if _is_url(complete) else "",
    )


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= 4096 and value.isprintable()


def _is_url(value: object) -> TypeGuard[str]:
    try:
        check_url(value if _is_text(value) else "", "URL")
    except ValueError:
        return False
    return True


def _bounded(value: object, otherwise: float, most: float) -> float:
    """A number of seconds that somebody else has named, 1 … `most`."""
    try:
        number = float(value) if isinstance(value, (int, float, str)) else 0.0
    except (ValueError, OverflowError):
        number = 0.0
    return min(max(number, 1.0), most) if number > 0 else otherwise
