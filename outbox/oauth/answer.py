"""What a token endpoint's answers mean (RFC 6749 §5, RFC 8628 §3.5).

Pure. Nothing is raised while the plain text is at hand, so that no traceback can carry a token: a fault is returned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, quote_plus

from outbox.core.secret import Secret
from outbox.errors import OAuthError

UNSAID_LIFE = timedelta(minutes=5)
"""How long a token is taken to live when nobody says so (RFC 6749 §5.1 only recommends that they do)."""
LONGEST_LIFE = timedelta(days=1)
"""A token that is said to live longer is renewed after a day all the same."""
SHORTEST_LIFE = timedelta(seconds=30)
"""A token that is said to live shorter is tried so long all the same: otherwise every mail would ask for one."""

MAX_TOKEN = 16 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)  # what RFC 6749 §A.12 allows, and a SASL message can carry; no space

PASSING = frozenset({"temporarily_unavailable", "server_error", "slow_down", "authorization_pending"})
_PASSING_STATUS = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Granted:
    """An access token. `life` from when it was given; `refresh_token` replaces the one it was got with, if not None."""

    access_token: Secret
    life: timedelta
    refresh_token: Secret | None = None


class GrantError(OAuthError):
    """The endpoint's own word: `code` as in RFC 6749 §5.2 or RFC 8628 §3.5; empty for an answer that is none."""

    def __init__(self, message: str, *, permanent: bool, code: str = "", hint: str = "") -> None:
        super().__init__(message, permanent=permanent, hint=hint)
        self.code = code


def read_object(status: int, body: bytes, host: str, secrets: Iterable[Secret] = ()) -> dict[str, Any] | GrantError:
    """The JSON object of a 2xx answer; else what is wrong. `secrets` are ours, and do not come up in words."""
    content = _parse(body)
    code = content.get("error") if isinstance(content, dict) else None
    if isinstance(code, str) and code:
        return _refusal(status, code, content, host, secrets)
    if 300 <= status < 400:
        return GrantError(f"{host} answers with a redirect ({status}), which is not followed", permanent=False)
    if status != HTTPStatus.OK and status != HTTPStatus.CREATED:
        passing = status >= 500 or status in _PASSING_STATUS
        return GrantError(f"{host} answers {status}{_phrase(status)}", permanent=not passing)
    if not isinstance(content, dict):
        return GrantError(f"{host} answers with something that is no JSON object", permanent=False)
    return content


def read_grant(answer: dict[str, Any], host: str) -> Granted | GrantError:
    """The access token in an answer."""
    kind = answer.get("token_type")
    if kind is not None and str(kind).lower() != "bearer":
        return GrantError(f"{host} gives a token of type {_words(str(kind))!r}, not a bearer token", permanent=True)
    token = answer.get("access_token")
    if not isinstance(token, str) or not token:
        return GrantError(f"{host} answers without an access token", permanent=False)
    if not is_token(token):
        return GrantError(f"{host} gives a token with letters that no token has, or a huge one", permanent=True)
    new = answer.get("refresh_token")
    renewed = Secret(new) if isinstance(new, str) and new else None
    return Granted(Secret(token), life_of(answer.get("expires_in")), renewed)


def is_token(text: str) -> bool:
    """Whether it may go into a login: printable ASCII, without a space, of a bounded size."""
    return len(text) <= MAX_TOKEN and _TOKEN.fullmatch(text) is not None


def life_of(seconds: object) -> timedelta:
    """From ``expires_in``: seconds, also written as text. What is no positive number counts as not said."""
    try:
        number = float(seconds) if isinstance(seconds, (int, float, str)) and not isinstance(seconds, bool) else 0.0
    except (ValueError, OverflowError):
        number = 0.0
    if not number > 0:  # also for NaN
        return UNSAID_LIFE
    return max(SHORTEST_LIFE, timedelta(seconds=min(number, LONGEST_LIFE.total_seconds())))


def hide(text: str, secrets: Iterable[Secret]) -> str:
    """`text`, should it repeat one of our secrets, plain or as the form has it, without that."""
    for secret in secrets:
        plain = secret.reveal()
        if len(plain) > 3:
            for form in (plain, quote_plus(plain), quote(plain, safe="")):
                text = text.replace(form, repr(secret))
    return text


def _refusal(status: int, code: str, content: dict[str, Any], host: str, secrets: Iterable[Secret]) -> GrantError:
    why = content.get("error_description")
    words = f"{code}: {why}" if isinstance(why, str) and why else code
    passing = code in PASSING or status >= 500 or status in _PASSING_STATUS
    message = f"{host} refuses: {_words(hide(words, secrets))}"
    return GrantError(message, permanent=not passing, code=_words(code))


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _words(text: str) -> str:
    """The first line of somebody else's words, of a bounded length, without control characters."""
    lines = text.strip().splitlines()
    return "".join(letter if letter.isprintable() else " " for letter in lines[0])[:300] if lines else ""


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""
