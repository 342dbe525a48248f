"""The scripted relay's side of AUTH: what an honest relay asks and checks, worked out independently of the client."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Challenge = Callable[[bytes], bytes]
"""Say 334 with these octets; the octets that are answered."""

CRAM_CHALLENGE = b"<1896.697170952@relay.example>"
ITERATIONS = 4096


@dataclass
class Exchange:
    """One AUTH. `initial` is None where the client gave no initial response; `credentials` user → password or token."""

    credentials: Mapping[str, str]
    initial: bytes | None
    challenge: Challenge

    def first(self) -> bytes:
        return self.challenge(b"") if self.initial is None else self.initial

    def knows(self, user: str, password: str) -> str:
        return user if self.credentials.get(user) == password else ""


def plain(exchange: Exchange) -> str:
    _, user, password = exchange.first().decode().split("\0")
    return exchange.knows(user, password)


def login(exchange: Exchange) -> str:
    user = exchange.challenge(b"Username:") if exchange.initial is None else exchange.initial
    return exchange.knows(user.decode(), exchange.challenge(b"Password:").decode())


def cram_md5(exchange: Exchange) -> str:
    user, _, digest = exchange.challenge(CRAM_CHALLENGE).decode().rpartition(" ")
    expected = hmac.new(exchange.credentials.get(user, "").encode(), CRAM_CHALLENGE, hashlib.md5).hexdigest()
    return user if digest == expected else ""


def scram_sha_256(exchange: Exchange) -> str:
    bare = exchange.first().decode().removeprefix("n,,")
    fields = dict(field.split("=", 1) for field in bare.split(","))
    user, salt = _name(fields["n"]), b"salt and pepper"
    nonce = fields["r"] + "relay"
    server_first = f"r={nonce},s={b64encode(salt).decode()},i={ITERATIONS}"
    final = exchange.challenge(server_first.encode()).decode()
    without_proof, _, proof = final.partition(",p=")
    assert without_proof == f"c=biws,r={nonce}"
    key = hashlib.pbkdf2_hmac("sha256", exchange.credentials.get(user, "").encode(), salt, ITERATIONS)
    signed = ",".join((bare, server_first, without_proof)).encode()
    client_key = hmac.digest(key, b"Client Key", "sha256")
    stored = hashlib.sha256(client_key).digest()
    recovered = bytes(a ^ b for a, b in zip(b64decode(proof), hmac.digest(stored, signed, "sha256"), strict=True))
    if hashlib.sha256(recovered).digest() != stored:
        return ""
    signature = hmac.digest(hmac.digest(key, b"Server Key", "sha256"), signed, "sha256")
    return user if exchange.challenge(b"v=" + b64encode(signature)) == b"" else ""


def xoauth2(exchange: Exchange) -> str:
    user, bearer, *_ = exchange.first().decode().split("\x01")
    return _token(exchange, user.removeprefix("user="), bearer, b"")


def oauthbearer(exchange: Exchange) -> str:
    header, _, _, bearer, *_ = exchange.first().decode().split("\x01")
    return _token(exchange, _name(header.removeprefix("n,a=").removesuffix(",")), bearer, b"\x01")


def _name(escaped: str) -> str:
    return escaped.replace("=2C", ",").replace("=3D", "=")


def _token(exchange: Exchange, user: str, bearer: str, dismissal: bytes) -> str:
    if exchange.knows(user, bearer.removeprefix("auth=Bearer ")):
        return user
    error = {"status": "401", "schemes": "bearer", "scope": "https://mail.example/"}
    assert exchange.challenge(json.dumps(error).encode()) == dismissal
    return ""


MECHANISMS: dict[str, Callable[[Exchange], str]] = {
    "PLAIN": plain,
    "LOGIN": login,
    "CRAM-MD5": cram_md5,
    "SCRAM-SHA-256": scram_sha_256,
    "XOAUTH2": xoauth2,
    "OAUTHBEARER": oauthbearer,
}
"""Each returns who has signed in; empty: nobody."""
