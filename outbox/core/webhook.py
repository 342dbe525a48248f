"""What signs a webhook: the scheme of Standard Webhooks (standardwebhooks.com), with HMAC-SHA256.

webhook-id          names what is posted, the same whenever it is posted again, and not when another event is with it
webhook-timestamp   when, in seconds since 1970: a receiver refuses what is too old
webhook-signature   ``v1,`` and Base64 of the HMAC of ``id.timestamp.body``; one for each secret, with spaces
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

from outbox.core.secret import Secret

PREFIX = "whsec_"
LEAST = 16
"""Octets of a key."""


def key_of(secret: Secret) -> bytes:
    """The key that a secret means: Base64 behind ``whsec_``, as Standard Webhooks writes it, else the text itself.
    Raises ValueError with a sentence, which does not show it.
    """
    text = secret.reveal()
    if not text.startswith(PREFIX):
        key = text.encode()
    else:
        try:
            key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"what follows {PREFIX} is not Base64") from None
    if len(key) < LEAST:
        raise ValueError(f"it is shorter than {LEAST} bytes, and could be guessed")
    return key


def name_of(events: Sequence[int]) -> str:
    """What the events of one request, by their ids, are called. A receiver may take what has a name that it knows for
    heard; and an event of a transaction that is late turns up between others that were posted before, and refused.
    """
    digest = hashlib.sha256(" ".join(map(str, events)).encode()).hexdigest()
    return f"events-{events[0]}-{events[-1]}-{digest[:16]}"


def signed_headers(name: str, at: datetime, body: bytes, secrets: Sequence[Secret]) -> dict[str, str]:
    """The three header fields of a request with this body."""
    timestamp = str(int(at.timestamp()))
    signed = b".".join((name.encode(), timestamp.encode(), body))
    return {
        "webhook-id": name,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_signature(key_of(secret), signed) for secret in secrets),
    }


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
