"""Who may hand over mail by SMTP: a name, a hashed password, and the senders that are theirs."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from outbox.core.address import fold, wildcard
from outbox.core.secret import Secret

_COST, _BLOCK, _LANES = 2**14, 8, 1
"""Of scrypt (RFC 7914): 16 MiB and some 40 ms a guess."""


@dataclass(frozen=True, slots=True)
class User:
    """One row of `outbox_user`. `senders` folded: addresses and ``*@domain``; none: everybody who is registered."""

    name: str
    password_hash: str = field(repr=False)
    senders: tuple[str, ...] = ()

    def may_send(self, address: str) -> bool:
        folded = fold(address)
        return not self.senders or folded in self.senders or wildcard(folded) in self.senders


def hashed(password: Secret, salt: str) -> str:
    """As it is stored. `salt`: 32 hex digits of chance, new for each password."""
    return f"scrypt${_COST}${_BLOCK}${_LANES}${salt}${_scrypt(password, salt, _COST, _BLOCK, _LANES)}"


def is_password(password: Secret, stored: str) -> bool:
    """Whether it is the one that `stored` was made of. Takes as long whatever the answer."""
    try:
        _, cost, block, lanes, salt, expected = stored.split("$")
        return hmac.compare_digest(_scrypt(password, salt, int(cost), int(block), int(lanes)), expected)
    except ValueError:  # not written by us
        return False


def _scrypt(password: Secret, salt: str, cost: int, block: int, lanes: int) -> str:
    secret = password.reveal().encode("utf-8", "surrogateescape")
    memory = 256 * cost * block  # twice what it takes
    return hashlib.scrypt(secret, salt=bytes.fromhex(salt), n=cost, r=block, p=lanes, maxmem=memory).hex()
