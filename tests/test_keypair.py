"""Key pairs for DKIM."""

from __future__ import annotations

import base64
import traceback

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from outbox import keypair
from outbox.core.dkim import Algorithm
from outbox.core.dkim_key import checked_selector, signing_domain
from outbox.errors import Refused
from tests.signatures import BOTH, private, record


@pytest.mark.parametrize("algorithm", BOTH)
def test_a_key_that_was_made_is_read_back_from_its_file(algorithm: Algorithm) -> None:
    made = private(algorithm)
    kind, read = keypair.read(made.reveal().encode())

    assert kind is algorithm
    assert keypair.public(read) == keypair.public(made)
    assert keypair.signer(read)(b"x" * 32) == keypair.signer(made)(b"x" * 32)


@pytest.mark.parametrize("form", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
def test_an_rsa_key_is_read_in_either_form(form: PrivateFormat) -> None:
    key = rsa.generate_private_key(65537, 1024)
    algorithm, secret = keypair.read(key.private_bytes(Encoding.PEM, form, NoEncryption()))

    assert (algorithm, keypair.bits(secret)) == (Algorithm.RSA, 1024)
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert base64.b64decode(keypair.public(secret)) == der


def test_a_key_has_the_bits_that_were_asked_for() -> None:
    assert keypair.bits(keypair.generate(Algorithm.RSA, 3072)) == 3072
    assert keypair.bits(private(Algorithm.ED25519)) == 256
    assert len(base64.b64decode(keypair.public(private(Algorithm.ED25519)))) == 32


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey, password: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: b"", "not a private key of RSA or Ed25519"),
        (lambda: b"\xff\x00 canary", "not a private key of RSA or Ed25519"),
        (lambda: b"-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n", "not a private key"),
        (lambda: _pem(ec.generate_private_key(ec.SECP256R1())), "not a private key of RSA or Ed25519"),
        (lambda: _pem(rsa.generate_private_key(65537, 1024), b"canary"), "is encrypted"),
        (
            lambda: (
                ed25519.Ed25519PrivateKey.generate()
                .public_key()
                .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            ),
            "not a private key",
        ),
    ],
)
def test_what_is_no_key_for_dkim_is_refused_without_showing_it(make: object, fault: str) -> None:
    content = make()  # type: ignore[operator]
    with pytest.raises(Refused, match=fault) as caught:
        keypair.read(content)

    told = "".join(traceback.format_exception(caught.value))
    assert caught.value.hint
    assert "Y2FuYXJ5" not in told


def test_a_record_is_split_into_strings_of_255_octets() -> None:
    made = record(Algorithm.RSA)

    assert [len(each) for each in made.strings] == [255, len(made.text) - 255]
    assert str(made) == f'rsa._domainkey.example.com. TXT "{made.strings[0]}" "{made.strings[1]}"'
    assert record(Algorithm.ED25519).strings == (record(Algorithm.ED25519).text,)


@pytest.mark.parametrize(
    ("sender", "domain"),
    [
        ("shop@Example.com", "example.com"),
        ("*@example.com", "example.com"),
        ("a@bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_a_sender_signs_with_its_own_domain(sender: str, domain: str) -> None:
    assert signing_domain(sender) == domain


def test_an_address_literal_has_no_domain_to_sign_with() -> None:
    with pytest.raises(ValueError, match="has no domain"):
        signing_domain("shop@[192.0.2.1]")


@pytest.mark.parametrize("selector", ["", "-a", "a-", "a..b", ".a", "a_b", "a b", "ä", "x" * 64])
def test_what_the_dns_does_not_take_is_no_selector(selector: str) -> None:
    with pytest.raises(ValueError, match="is not a selector"):
        checked_selector(selector, "example.com")


def test_a_selector_is_in_lower_case_and_leaves_room_for_the_domain() -> None:
    assert checked_selector("Mail.2026-03", "example.com") == "mail.2026-03"
    with pytest.raises(ValueError, match="longer than 253"):
        checked_selector("s" * 60, ".".join(["x" * 60] * 4)[:200])
