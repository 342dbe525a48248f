"""The SASL mechanisms of AUTH, without lines, base64 or sockets: what is answered to each challenge (RFC 4422, 4954).

An exchange is a generator of responses. It yields its initial response, or None where the relay must speak first, and
is then sent each challenge and yields the answer to it. When the relay says that we are signed in, the exchange is sent
None, so that one that has something left to check can object. `Unacceptable` is its veto. `Derive` is yielded to have a
key worked out. Mechanisms: PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195), SCRAM-SHA-256 (RFC 5802, 7677), XOAUTH2
(Google's and Microsoft's), OAUTHBEARER (RFC 7628).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import stringprep
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator

from outbox.core.reply import sanitise
from outbox.smtp.relay import Relay
from outbox.smtp.session import Derive

Exchange = Generator[bytes | Derive | None, bytes | None, None]

ITERATIONS = range(4096, 600_001)
"""What a relay may ask of SCRAM: fewer protect nothing (RFC 7677 §4), and more is work without end."""

OAUTH = frozenset({"XOAUTH2", "OAUTHBEARER"})
"""Their password is an access token."""

BY_DEFAULT = ("PLAIN", "LOGIN", "SCRAM-SHA-256", "CRAM-MD5")
"""What ``auto`` takes, the first that is offered. An access token is not a password: OAuth must be asked for."""

_TOKEN = re.compile(r"[!-~]+")


class Unacceptable(Exception):
    """We break the exchange off: the relay asks for what must not be given, or is not who it says. `str()` is for
    people.
    """


def exchange(mechanism: str, relay: Relay) -> Exchange:
    """The exchange of `mechanism` (in capitals) for the login of `relay`."""
    return _EXCHANGES[mechanism](relay)


def choose(wanted: str, offered: frozenset[str]) -> str | None:
    """The mechanism to use, in capitals: the one that is wanted, or for ``auto`` the first of `BY_DEFAULT`; None where
    it is not offered.
    """
    acceptable = BY_DEFAULT if wanted == "auto" else (wanted.upper(),)
    return next((each for each in acceptable if each in offered and each in _EXCHANGES), None)


def plain(relay: Relay) -> Exchange:
    yield b"\0" + relay.username.encode() + b"\0" + relay.password.reveal().encode()


def login(relay: Relay) -> Exchange:
    yield None
    yield relay.username.encode()
    yield relay.password.reveal().encode()


def cram_md5(relay: Relay) -> Exchange:
    """A keyed digest of the challenge. It proves the password and tells nobody who the relay is."""
    challenge = yield None
    if not challenge:
        raise Unacceptable("its challenge for CRAM-MD5 is empty")
    digest = hmac.new(relay.password.reveal().encode(), challenge, "md5").hexdigest()
    yield relay.username.encode() + b" " + digest.encode()


def scram_sha_256(relay: Relay) -> Exchange:
    """Both sides prove that they know the password, and neither says it. Without channel binding."""
    own = relay.nonce()
    client_first = f"n={_name(saslprep(relay.username))},r={own}"
    server_first = _text((yield f"n,,{client_first}".encode()))
    nonce, salt, iterations = _parameters(server_first, own)
    derive = Derive(saslprep(relay.password.reveal()).encode(), salt, iterations)
    yield derive
    unproven = f"c=biws,r={nonce}"  # base64 of "n,,"
    signed = f"{client_first},{server_first},{unproven}".encode()
    client_key = _hmac(derive.key, b"Client Key")
    signature = _hmac(hashlib.sha256(client_key).digest(), signed)
    proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
    server_final = _text((yield f"{unproven},p={b64encode(proof).decode()}".encode()))
    expected = b64encode(_hmac(_hmac(derive.key, b"Server Key"), signed)).decode()
    if server_final.startswith("e="):
        if (yield b"") is None:
            raise Unacceptable("it called the login an error and a success")
        return
    if not hmac.compare_digest(server_final.partition(",")[0].encode(), f"v={expected}".encode()):
        raise Unacceptable("it could not prove that it knows the password")
    yield b""


def xoauth2(relay: Relay) -> Exchange:
    """A challenge is the error, in JSON, and the empty answer to it brings the refusal itself. An empty challenge only
    says that the initial response was not taken.
    """
    user, token = _oauth(relay)
    response = f"user={user}\x01auth=Bearer {token}\x01\x01".encode()
    if (yield response) == b"":
        yield response
    yield b""


def oauthbearer(relay: Relay) -> Exchange:
    user, token = _oauth(relay)
    peer = f"host={relay.host}\x01port={relay.port}"
    response = f"n,a={_name(user)},\x01{peer}\x01auth=Bearer {token}\x01\x01".encode()
    if (yield response) == b"":
        yield response
    yield b"\x01"


_EXCHANGES: dict[str, Callable[[Relay], Exchange]] = {
    "PLAIN": plain,
    "LOGIN": login,
    "CRAM-MD5": cram_md5,
    "SCRAM-SHA-256": scram_sha_256,
    "XOAUTH2": xoauth2,
    "OAUTHBEARER": oauthbearer,
}


def oauth_error(challenge: bytes) -> str:
    """What the JSON of an error challenge says, for people: ``status 401, scope https://mail.google.com/``."""
    try:
        said = json.loads(challenge)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(said, dict):
        return ""
    return sanitise(", ".join(f"{key} {said[key]}" for key in ("status", "scope") if said.get(key)), limit=200)


def saslprep(text: str) -> str:
    """`text` as SCRAM compares it (RFC 4013): so that the same password typed on two keyboards is the same octets.
    Raises Unacceptable for what cannot be in a password there.
    """
    mapped = "".join(
        " " if stringprep.in_table_c12(each) else each for each in text if not stringprep.in_table_b1(each)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if any(forbidden(each) for each in prepared for forbidden in _FORBIDDEN):
        raise Unacceptable("the user name or password has characters that SCRAM does not allow")
    if any(map(stringprep.in_table_d1, prepared)):
        ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends or any(map(stringprep.in_table_d2, prepared)):
            raise Unacceptable("the user name or password mixes directions of writing, which SCRAM does not allow")
    return prepared


_FORBIDDEN = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def _parameters(server_first: str, own: str) -> tuple[str, bytes, int]:
    """The whole nonce, the salt and the iterations. An extension before them would be mandatory, and is unknown."""
    found = re.fullmatch(r"r=([!-+\--~]+),s=([A-Za-z0-9+/=]+),i=([1-9][0-9]{0,8})(?:,.*)?", server_first)
    if found is None:
        raise Unacceptable("its first message of SCRAM cannot be understood")
    nonce, salt, iterations = found[1], _decoded(found[2]), int(found[3])
    if not nonce.startswith(own) or len(nonce) == len(own):
        raise Unacceptable("its nonce for SCRAM does not go on from ours")
    if iterations not in ITERATIONS:
        allowed = f"{ITERATIONS[0]} to {ITERATIONS[-1]} are allowed"
        raise Unacceptable(f"it asks for {iterations} iterations of SCRAM, and {allowed}")
    return nonce, salt, iterations


def _decoded(salt: str) -> bytes:
    try:
        return b64decode(salt, validate=True)
    except ValueError:
        raise Unacceptable("its salt for SCRAM is not base64") from None


def _text(challenge: bytes | None) -> str:
    if challenge is None:
        raise Unacceptable("it let us in without proving that it knows the password")
    return challenge.decode("utf-8", "replace")


def _oauth(relay: Relay) -> tuple[str, str]:
    """User and token, neither of which may end its field."""
    token = relay.password.reveal()
    if not _TOKEN.fullmatch(token):
        raise Unacceptable("the access token is empty, or not plain ASCII")
    if not relay.username.isprintable():
        raise Unacceptable("the user name has control characters")
    return relay.username, token


def _name(name: str) -> str:
    return name.replace("=", "=3D").replace(",", "=2C")


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")
