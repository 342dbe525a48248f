"""Sealing passwords, and refusing to open them anywhere but where they belong."""

from __future__ import annotations

import itertools
import json
import traceback
from dataclasses import replace
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from outbox import keys
from outbox.core.account import Account, Tls
from outbox.core.secret import Secret
from outbox.errors import VaultError
from outbox.keys import Key, Keys, Origin
from outbox.vault import Binding, DkimBinding, Kind, Vault

CANARY = "canary-Pa55w0rd-ünïcode"
SHOP = Binding("shop", "smtp.example.com", 587, "shop@example.com", "starttls")


def vault(*some: Key) -> Vault:
    return Vault(Keys(some or (keys.new(),), Origin.ENVIRONMENT))


def everything_shown_of(error: BaseException) -> str:
    """Message, hint, repr and the traceback with all local variables, as an error reporter would collect them."""
    beyond_the_test = error.__traceback__.tb_next if error.__traceback__ else None
    told = "".join(
        traceback.TracebackException(type(error), error, beyond_the_test, capture_locals=True).format(),
    )
    return f"{error} {error!r} {getattr(error, 'hint', '')} {told}"


def test_what_was_sealed_opens_with_the_same_settings() -> None:
    box = vault()
    assert box.open(box.seal(Secret(CANARY), SHOP), SHOP).reveal() == CANARY


@given(st.text())
def test_any_text_survives(text: str) -> None:
    box = vault(_KEY)
    assert box.open(box.seal(Secret(text), SHOP), SHOP).reveal() == text


_KEY = keys.new()


def test_a_token_is_different_each_time_and_shows_neither_password_nor_settings() -> None:
    box = vault()
    tokens = {box.seal(Secret(CANARY), SHOP) for _ in range(5)}
    assert len(tokens) == 5
    assert not any(word in token for token in tokens for word in (CANARY, "shop", "smtp"))


def test_passwords_of_nearly_the_same_length_make_tokens_of_the_same_length() -> None:
    box = vault()
    lengths = {len(box.seal(Secret("x" * count), SHOP)) for count in range(1, 40)}
    assert len(lengths) <= 2
    envelope = Fernet(box.keys.keys[0].text).decrypt(box.seal(Secret("x"), SHOP))
    assert len(envelope) % 64 == 0


def test_a_plain_fernet_opens_the_envelope_and_finds_json() -> None:
    box = vault()
    envelope = json.loads(Fernet(box.keys.keys[0].text).decrypt(box.seal(Secret(CANARY), SHOP)))
    assert envelope == {
        "v": 1,
        "account": "shop",
        "host": "smtp.example.com",
        "port": 587,
        "username": "shop@example.com",
        "tls": "starttls",
        "ca_file": "",
        "tls_pins": "",
        "kind": "password",
        "secret": CANARY,
    }


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("account", "other", "account name"),
        ("host", "smtp.evil.test", "relay host"),
        ("port", 2525, "relay port"),
        ("username", "root", "username"),
        ("tls", "none", "TLS mode"),
        ("ca_file", "/tmp/mine.pem", "certificate authority"),
        ("tls_pins", "ab" * 32, "pinned certificate"),
    ],
)
def test_a_changed_setting_is_named_together_with_the_command_that_repairs_it(
    setting: str, value: Any, words: str
) -> None:
    box = vault()
    token = box.seal(Secret(CANARY), SHOP)
    changed = replace(SHOP, **{setting: value})
    with pytest.raises(VaultError) as caught:
        box.open(token, changed)
    assert f"the {words} is now {value!r}" in str(caught.value)
    assert f"outbox account set-password {changed.account}" in caught.value.hint
    assert CANARY not in everything_shown_of(caught.value)


def test_no_token_opens_for_another_account() -> None:
    box = vault()
    bindings = [replace(SHOP, account=f"account-{number}") for number in range(6)]
    tokens = {binding: box.seal(Secret(CANARY), binding) for binding in bindings}
    for mine, other in itertools.permutations(bindings, 2):
        with pytest.raises(VaultError, match="account name"):
            box.open(tokens[other], mine)


@pytest.mark.parametrize("token", ["", "x", "gAAAAA", "ключ", "gAAAA\x00", "=" * 400])
def test_a_damaged_token_is_an_error_that_names_account_and_keys(token: str) -> None:
    box = vault()
    with pytest.raises(VaultError, match=f"account shop: none of the loaded keys .{box.key_id}. opens") as caught:
        box.open(token, SHOP)
    assert len(token) < 3 or token not in f"{caught.value} {caught.value.hint}"


def test_every_changed_letter_of_a_token_is_noticed() -> None:
    box = vault()
    token = box.seal(Secret(CANARY), SHOP)
    for position in range(0, len(token), 7):
        other = "A" if token[position] != "A" else "B"
        with pytest.raises(VaultError):
            box.open(token[:position] + other + token[position + 1 :], SHOP)


def test_the_wrong_key_says_which_key_is_missing_and_never_shows_the_token() -> None:
    theirs, ours = vault(), vault()
    token = theirs.seal(Secret(CANARY), SHOP)
    with pytest.raises(VaultError, match=f"sealed with key {theirs.key_id}, which is not loaded") as caught:
        ours.open(token, SHOP, key_id=theirs.key_id)
    assert token not in f"{caught.value} {caught.value!r} {caught.value.hint}"
    assert CANARY not in everything_shown_of(caught.value)


@pytest.mark.parametrize(
    "envelope",
    [b"canary-not-json", b'["canary-list"]', b'{"v": 2, "secret": "canary-new"}', b"{}", b'"canary"'],
)
def test_an_envelope_of_another_shape_is_refused_without_showing_it(envelope: bytes) -> None:
    box = vault()
    token = Fernet(box.keys.keys[0].text).encrypt(envelope).decode()
    with pytest.raises(VaultError, match="newer version") as caught:
        box.open(token, SHOP)
    assert "canary-" not in everything_shown_of(caught.value)


def test_the_first_key_seals_and_every_key_opens() -> None:
    old, new = keys.new(), keys.new()
    token = vault(old).seal(Secret(CANARY), SHOP)
    both = vault(new, old)
    assert both.open(token, SHOP).reveal() == CANARY
    assert both.key_id == new.id
    assert both.key_of(token) == old.id
    assert both.key_of(both.seal(Secret("x"), SHOP)) == new.id
    assert both.key_of("gAAAA") == ""


def test_a_rotated_token_opens_without_the_old_key_and_is_still_bound() -> None:
    old, new = keys.new(), keys.new()
    rotated = vault(new, old).rotate(vault(old).seal(Secret(CANARY), SHOP), "account shop")
    assert vault(new).open(rotated, SHOP).reveal() == CANARY
    with pytest.raises(VaultError, match="relay host"):
        vault(new).open(rotated, replace(SHOP, host="smtp.evil.test"))
    with pytest.raises(VaultError, match="account shop"):
        vault(keys.new()).rotate(rotated, "account shop")


def test_an_account_without_a_password_opens_to_an_empty_secret() -> None:
    account = Account("shop", "smtp.example.com", 587, Tls.STARTTLS, username="shop@example.com")
    box = vault()
    assert not box.open_account(account)
    sealed = replace(account, secret=box.seal(Secret(CANARY), Binding.of(account)), key_id=box.key_id)
    assert box.open_account(sealed).reveal() == CANARY
    assert str(sealed.secret) not in repr(sealed)


SIGNATURE = DkimBinding("shop@example.com", "outbox1", "example.com", "ed25519-sha256")


@pytest.mark.parametrize("kind", [Kind.OAUTH, Kind.TOKEN])
def test_a_secret_opens_only_as_the_kind_it_was_sealed_as(kind: Kind) -> None:
    box = vault()
    token = box.seal(Secret(CANARY), SHOP, kind)
    assert box.open(token, SHOP, kind=kind).reveal() == CANARY
    for other in set(Kind) - {kind}:
        with pytest.raises(VaultError, match=r"is not that, but the .* of account shop") as caught:
            box.open(token, SHOP, kind=other)
        assert "outbox account" in caught.value.hint
        assert CANARY not in everything_shown_of(caught.value)


def test_the_envelope_of_a_password_is_what_it_was_before_there_were_kinds() -> None:
    """So that what was stored by the first version still opens."""
    box = vault()
    envelope = {
        "v": 1,
        "account": "shop",
        "host": "smtp.example.com",
        "port": 587,
        "username": "shop@example.com",
        "tls": "starttls",
        "ca_file": "",
        "kind": "password",
        "secret": CANARY,
    }
    token = Fernet(box.keys.keys[0].text).encrypt(json.dumps(envelope).encode()).decode()
    assert box.open(token, SHOP).reveal() == CANARY


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("sender", "other@example.com", "sender address"),
        ("selector", "outbox2", "selector"),
        ("domain", "evil.test", "signing domain"),
        ("algorithm", "rsa-sha256", "algorithm"),
    ],
)
def test_a_dkim_key_is_bound_to_the_signature_it_makes(setting: str, value: str, words: str) -> None:
    box = vault()
    token = box.seal(Secret(CANARY), SIGNATURE, Kind.DKIM)
    assert box.open(token, SIGNATURE, kind=Kind.DKIM).reveal() == CANARY
    changed = replace(SIGNATURE, **{setting: value})
    with pytest.raises(VaultError, match=f"the {words} is now '{value}'; its DKIM key was stored") as caught:
        box.open(token, changed, kind=Kind.DKIM)
    assert f"outbox sender dkim {changed.sender}" in caught.value.hint


def test_a_password_does_not_open_as_a_dkim_key_nor_the_other_way_round() -> None:
    box = vault()
    with pytest.raises(VaultError, match=r"sender shop@example.com: what is stored as its DKIM key is not that"):
        box.open(box.seal(Secret(CANARY), SHOP), SIGNATURE, kind=Kind.DKIM)
    with pytest.raises(VaultError, match="account shop: what is stored as its password is not that, but the DKIM key"):
        box.open(box.seal(Secret(CANARY), SIGNATURE, Kind.DKIM), SHOP)


def test_the_missing_key_of_another_kind_is_told_with_its_own_command() -> None:
    theirs, ours = vault(), vault()
    with pytest.raises(VaultError, match="its access token is sealed with key") as caught:
        ours.open(theirs.seal(Secret(CANARY), SHOP, Kind.TOKEN), SHOP, kind=Kind.TOKEN, key_id=theirs.key_id)
    assert "outbox account oauth shop" in caught.value.hint
    with pytest.raises(VaultError, match=r"sender shop@example.com: none of the loaded keys .* opens its DKIM key"):
        ours.rotate(theirs.seal(Secret(CANARY), SIGNATURE, Kind.DKIM), SIGNATURE.owner, Kind.DKIM)
