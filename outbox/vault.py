"""The one place where a password is opened.

A password is stored in `outbox_account.secret` as a Fernet token. Inside is not the bare password but an envelope that
names the account, relay, login, TLS mode and certificate authority it was given for, and opening compares each of them
with the row. So a token copied to another account does not open there, and neither does it after somebody with write
access to the database has pointed the account at a host or an authority of his own, or taken its TLS away: the account
is paused instead, and says why. Where the key comes from is in `outbox.keys`.

STANDARDS: the Fernet specification (AES-128-CBC, HMAC-SHA256); an envelope is JSON, so that a plain Fernet can open it.
LIMITS: a token shows when it was made, and the length of the password to 64 bytes. Whoever has the key and the database
has the passwords.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from outbox.core.account import Account
from outbox.core.secret import Secret
from outbox.errors import VaultError
from outbox.keys import Keys

_VERSION = 1
_STEP = 64
"""Envelopes are padded with spaces to a multiple of this, so that a token does not tell how long a password is."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What a password was given for. If any of it changes, the password has to be given again."""

    account: str
    host: str
    port: int
    username: str
    tls: str
    ca_file: str = ""

    @classmethod
    def of(cls, account: Account) -> Binding:
        return cls(
            account.name,
            account.relay_host,
            account.relay_port,
            account.username,
            str(account.tls),
            account.ca_file,
        )


_SETTINGS = {
    "account": "account name",
    "host": "relay host",
    "port": "relay port",
    "username": "username",
    "tls": "TLS mode",
    "ca_file": "certificate authority",
}


class Vault:
    """Seals passwords with the first key and opens them with any. Safe to use from several threads."""

    __slots__ = ("_fernets", "keys")

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._fernets = {key.id: Fernet(key.text) for key in keys.keys}

    @property
    def key_id(self) -> str:
        """The key that encrypts; it belongs into `outbox_account.key_id` beside every token of `seal` and `rotate`."""
        return self.keys.ids[0]

    def seal(self, secret: Secret, binding: Binding) -> str:
        """The token to store. It opens only with the same `binding`."""
        envelope = {"v": _VERSION, **asdict(binding), "kind": "password", "secret": secret.reveal()}
        content = json.dumps(envelope).encode("ascii")
        padded = content + b" " * (-len(content) % _STEP)
        return self._fernets[self.key_id].encrypt(padded).decode("ascii")

    def open(self, token: str, binding: Binding, *, key_id: str = "") -> Secret:
        """The password in `token`. VaultError when no loaded key opens it (`key_id`, as stored beside it, helps to say
        which is missing), or when a setting of the row is not the one it was sealed with.
        """
        envelope = self._unwrap(token)
        if envelope is None:
            raise self._cannot_open(binding.account, key_id)
        secret = Secret(str(envelope.pop("secret", "")))
        if envelope.pop("v", None) != _VERSION or envelope.pop("kind", None) != "password":
            raise VaultError(f"account {binding.account}: its password was stored by a newer version of this program")
        for setting, now in asdict(binding).items():
            then = envelope.get(setting, "")
            if then != now:
                raise VaultError(
                    f"account {binding.account}: the {_SETTINGS[setting]} is now {now!r}; its password was stored"
                    f" for {then!r}",
                    hint=f"if the change is right, enter it again: outbox account set-password {binding.account}",
                )
        return secret

    def open_account(self, account: Account) -> Secret:
        """The password of an account; an empty Secret when it has none."""
        if account.secret is None:
            return Secret()
        return self.open(account.secret, Binding.of(account), key_id=account.key_id)

    def key_of(self, token: str) -> str:
        """The id of the loaded key that a token is sealed with, found by trying; empty when it is none of them."""
        for key_id, fernet in self._fernets.items():
            if _decrypt(fernet, token) is not None:
                return key_id
        return ""

    def rotate(self, token: str, account: str) -> str:
        """The same envelope under the first key; its settings are not looked at, so a mismatch stays one.

        VaultError, naming `account`, when no loaded key opens it.
        """
        if not self.key_of(token):
            raise self._cannot_open(account, "")
        return MultiFernet(list(self._fernets.values())).rotate(token).decode("ascii")

    def _unwrap(self, token: str) -> dict[str, Any] | None:
        """The envelope; None for every way in which it is not one. Nothing is raised while the plain text is at hand,
        so that no traceback can carry it.
        """
        for fernet in self._fernets.values():
            content = _decrypt(fernet, token)
            if content is not None:
                try:
                    envelope = json.loads(content)
                except ValueError:
                    return {}
                return envelope if isinstance(envelope, dict) else {}
        return None

    def _cannot_open(self, account: str, key_id: str) -> VaultError:
        loaded = ", ".join(self.keys.ids)
        if key_id and key_id not in self.keys.ids:
            return VaultError(
                f"account {account}: its password is sealed with key {key_id}, which is not loaded (loaded: {loaded})",
                hint=f"bring that key back, or enter the password again: outbox account set-password {account}",
            )
        return VaultError(
            f"account {account}: none of the loaded keys ({loaded}) opens its password; the token is damaged,"
            " or the key is another one",
            hint=f"outbox account set-password {account}",
        )


def _decrypt(fernet: Fernet, token: str) -> bytes | None:
    try:
        return fernet.decrypt(token)
    except (InvalidToken, ValueError, TypeError):  # ValueError: it holds letters outside ASCII
        return None
