"""DKIM as others check it: keys, a DNS zone of their records, and dkimpy, which nobody here wrote, as the verifier."""

from __future__ import annotations

from functools import cache

import dkim as dkimpy

from outbox import keypair
from outbox.core.dkim import Algorithm, DkimKey
from outbox.core.dkim_key import DnsRecord, SealedKey, dns_record
from outbox.core.secret import Secret

DOMAIN = "example.com"


@cache
def private(algorithm: Algorithm) -> Secret:
    """One key of each kind for all tests: making one of RSA takes time."""
    return keypair.generate(algorithm)


def ready(algorithm: Algorithm, domain: str = DOMAIN, selector: str = "") -> DkimKey:
    """The key of that kind, by the selector ``rsa`` or ``ed25519``."""
    return DkimKey(domain, selector or name(algorithm), algorithm, keypair.signer(private(algorithm)))


def name(algorithm: Algorithm) -> str:
    return algorithm.partition("-")[0]


def record(algorithm: Algorithm, domain: str = DOMAIN, selector: str = "") -> DnsRecord:
    key = SealedKey("*@" + domain, selector or name(algorithm), domain, algorithm, "")
    return dns_record(key, keypair.public(private(algorithm)))


class Zone:
    """TXT records. Built from the lines that people would put into a zone file."""

    def __init__(self, *records: DnsRecord | str) -> None:
        self._texts: dict[bytes, bytes] = {}
        for each in records:
            owner, kind, strings = str(each).split(" ", 2)
            assert kind == "TXT"
            self._texts[owner.encode()] = strings.strip('"').replace('" "', "").encode()

    def text(self, owner: bytes, timeout: float = 0) -> bytes | None:
        return self._texts.get(owner)

    def checks(self, message: bytes) -> list[bool]:
        """For each DKIM-Signature of a message, from above, whether it holds."""
        header = message.partition(b"\r\n\r\n")[0]
        count = (b"\r\n" + header.lower()).count(b"\r\ndkim-signature:")
        return [self._check(message, place) for place in range(count)]

    def _check(self, message: bytes, place: int) -> bool:
        try:
            return bool(dkimpy.DKIM(message).verify(place, dnsfunc=self.text))
        except dkimpy.DKIMException:
            return False


BOTH = tuple(Algorithm)


def zone() -> Zone:
    return Zone(*(record(each) for each in BOTH))
