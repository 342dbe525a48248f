"""A pair of keys for DKIM: made, read from PEM, its public half for the DNS, its signatures.

A private key is held as a Secret, PKCS #8 in PEM, and stored sealed by `outbox.vault`. Not in `core`, because the
arithmetic is that of `cryptography`.

Standards: RFC 8301 (RSA from 1024 bits, 2048 or more wanted; nobody has to check more than 4096), RFC 8463 (Ed25519).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from outbox.core.dkim import Algorithm
from outbox.core.secret import Secret
from outbox.errors import Refused

MIN_BITS, WANTED_BITS, MAX_BITS = 1024, 2048, 4096

_PrivateKey = RSAPrivateKey | Ed25519PrivateKey


def generate(algorithm: Algorithm, bits: int = WANTED_BITS) -> Secret:
    """A fresh private key from the system's secure source. `bits` is for RSA."""
    if algorithm is Algorithm.ED25519:
        return _secret(Ed25519PrivateKey.generate())
    return _secret(generate_private_key(65537, bits))


def read(pem: bytes) -> tuple[Algorithm, Secret]:
    """The private key in a PEM file. Raises Refused, and never shows what is in the file."""
    encrypted = False
    key = None
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        encrypted = True
    except Exception:  # noqa: BLE001, S110 -- whatever is wrong with it, and what it says may show a piece of it
        pass
    if encrypted:
        raise Refused("the key is encrypted", hint="openssl pkey -in FILE -out PLAIN, then import that and delete it")
    if isinstance(key, Ed25519PrivateKey):
        return Algorithm.ED25519, _secret(key)
    if not isinstance(key, RSAPrivateKey):
        raise Refused(
            "it is not a private key of RSA or Ed25519 in PEM", hint="openssl genpkey -algorithm ed25519 makes one"
        )
    if not MIN_BITS <= key.key_size <= MAX_BITS:
        raise Refused(f"an RSA key for DKIM has {MIN_BITS} to {MAX_BITS} bits, not {key.key_size}")
    return Algorithm.RSA, _secret(key)


def bits(secret: Secret) -> int:
    """How long the key is."""
    key = _private_key(secret)
    return key.key_size if isinstance(key, RSAPrivateKey) else 256


def public(secret: Secret) -> str:
    """The public half as the tag ``p=`` of a DNS record has it: base64, of DER for RSA (RFC 6376 §3.6.1), of 32 bare
    bytes for Ed25519 (RFC 8463 §4).
    """
    key = _private_key(secret)
    if isinstance(key, Ed25519PrivateKey):
        return b64encode(key.public_key().public_bytes_raw()).decode("ascii")
    written = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(written).decode("ascii")


def signer(secret: Secret) -> Callable[[bytes], bytes]:
    """What makes the signature of a SHA-256 digest (see `outbox.core.dkim.DkimKey`)."""
    key = _private_key(secret)
    if isinstance(key, Ed25519PrivateKey):
        return key.sign
    padding, digest = PKCS1v15(), Prehashed(SHA256())
    return lambda data: key.sign(data, padding, digest)


def _private_key(secret: Secret) -> _PrivateKey:
    key = load_pem_private_key(secret.reveal().encode("ascii"), password=None)
    assert isinstance(key, RSAPrivateKey | Ed25519PrivateKey)  # nothing else was sealed
    return key


def _secret(key: _PrivateKey) -> Secret:
    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii"))
