"""A DKIM key as it is stored, and the DNS record that lets others check its signatures (RFC 6376 §3.6, RFC 8463 §4)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

from outbox.core.address import ascii_domain, lane
from outbox.core.dkim import Algorithm

MAX_SELECTOR = 63
MAX_NAME = 253
"""Of a name in the DNS, in characters."""
_STRING = 255
"""Octets of one string of a TXT record (RFC 1035 §3.3.14)."""

_SELECTOR = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_KINDS = {Algorithm.RSA: "rsa", Algorithm.ED25519: "ed25519"}


@dataclass(frozen=True, slots=True)
class SealedKey:
    """One row of `outbox_dkim`. `secret` is the sealed private key; only `outbox.vault` opens it. `sender` is a
    registered address or ``*@domain``, and `domain` what signs: that of the sender, in ASCII.
    """

    sender: str
    selector: str
    domain: str
    algorithm: Algorithm
    secret: str = field(repr=False)
    key_id: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """The TXT record of a key: `name` with a dot at its end, `text` in one piece."""

    name: str
    text: str

    @property
    def strings(self) -> tuple[str, ...]:
        """`text` as a TXT record holds it: in strings of at most 255 octets."""
        return tuple(self.text[start : start + _STRING] for start in range(0, len(self.text), _STRING))

    def __str__(self) -> str:
        """As a zone file has it."""
        return f"{self.name} TXT " + " ".join(f'"{each}"' for each in self.strings)


def dns_record(key: SealedKey, public: str) -> DnsRecord:
    """What has to be published for `key`; `public` is its public half, in base64 (see `outbox.keypair.public`)."""
    name = f"{key.selector}._domainkey.{key.domain}."
    return DnsRecord(name, f"v=DKIM1; k={_KINDS[key.algorithm]}; p={public}")


def signing_domain(sender: str) -> str:
    """The domain that signs for a sender or ``*@domain``: its own, because that is what DMARC compares with From
    (RFC 7489 §3.1). Raises ValueError for one that has no DNS.
    """
    domain = lane(ascii_domain(sender.rpartition("@")[2]))
    if domain.startswith("["):
        raise ValueError(f"{sender} has no domain, and so no DNS that a key could be published in")
    return domain


def checked_selector(selector: str, domain: str) -> str:
    """`selector` in lower case. Raises ValueError with a sentence."""
    selector = selector.lower()
    if not _SELECTOR.fullmatch(selector) or len(selector) > MAX_SELECTOR:
        raise ValueError(f"{selector!r} is not a selector: letters, digits, inner hyphens and dots, at most 63")
    if len(f"{selector}._domainkey.{domain}") > MAX_NAME:
        raise ValueError(f"with the selector {selector!r} the name of the DNS record is longer than {MAX_NAME}")
    return selector
