"""The one place where a password is opened, and every other secret in the database.

A password is stored in `outbox_account.secret` as a Fernet token. Inside is not the bare password but an envelope that
names the account, relay, login, TLS mode, certificate authority and pins it was given for, and opening compares each of
them with the row. So a token copied to another account does not open there, and neither does it after somebody with
write access to the database has pointed the account at a host or an authority of his own, or taken its TLS away: the
account is paused instead, and says why. Where the key comes from is in `outbox.keys`.

An account's OAuth setup and its current access token (`outbox_oauth`) are sealed for the same settings, because the
token goes where the password would; the DKIM key of a sender (`outbox_dkim`) for the signature it makes. The kind is in
the envelope, so that none of them opens as another.

STANDARDS: the Fernet specification (AES-128-CBC, HMAC-SHA256); an envelope is JSON, so that a plain Fernet can open it.
LIMITS: a token shows when it was made, and the length of the password to 64 bytes. Whoever has the key and the database
has the passwords.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from outbox.core.account import Account
from outbox.core.secret import Secret
from outbox.errors import VaultError
from outbox.keys import Keys

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_VERSION = 1
_STEP = 64
"""Envelopes are padded with spaces to a multiple of this, so that a token does not tell how long a password is."""


class Kind(StrEnum):
    """What a sealed secret is."""

    PASSWORD = "password"  # noqa: S105 - the name of a kind
    OAUTH = "oauth"
    """How the access tokens of an account are got: client secret, refresh token, endpoints or command."""
    TOKEN = "token"  # noqa: S105
    """The current access token of an account."""
    DKIM = "dkim"
    """The private key that signs a sender's mail."""


_NOUNS = {
    Kind.PASSWORD: "password",
    Kind.OAUTH: "OAuth setup",
    Kind.TOKEN: "access token",
    Kind.DKIM: "DKIM key",
}


@dataclass(frozen=True, slots=True)
class Binding:
    """What a password, an OAuth setup or a token was given for. If any of it changes, it has to be given again."""

    account: str
    host: str
    port: int
    username: str
    tls: str
    ca_file: str = ""
    tls_pins: str = ""

    @classmethod
    def of(cls, account: Account) -> Binding:
        return cls(
            account.name,
            account.relay_host,
            account.relay_port,
            account.username,
            str(account.tls),
            account.ca_file,
            account.tls_pins,
        )

    @property
    def owner(self) -> str:
        return f"account {self.account}"

    def command(self, kind: Kind) -> str:
        """The command with which the secret is given again."""
        verb = "set-password" if kind is Kind.PASSWORD else "oauth"
        return f"outbox account {verb} {self.account}"


@dataclass(frozen=True, slots=True)
class DkimBinding:
    """The signature that a DKIM key makes. If any of it changes, the key has to be given again."""

    sender: str
    selector: str
    domain: str
    algorithm: str

    @property
    def owner(self) -> str:
        return f"sender {self.sender}"

    def command(self, kind: Kind) -> str:
        """The command with which a key is made again."""
        return f"outbox sender dkim {self.sender} --generate"


_SETTINGS = {
    "account": "account name",
    "host": "relay host",
    "port": "relay port",
    "username": "username",
    "tls": "TLS mode",
    "ca_file": "certificate authority",
    "tls_pins": "pinned certificate",
    "sender": "sender address",
    "selector": "selector",
    "domain": "signing domain",
    "algorithm": "algorithm",
}


class Vault:
    """Seals secrets with the first key and opens them with any. Safe to use from several threads.

    `cryptography` is loaded here and not with this module: where no account has a password, nothing needs its 6 MB.
    """

    __slots__ = ("_fernets", "keys")

    def __init__(self, keys: Keys) -> None:
        from cryptography.fernet import Fernet

        self.keys = keys
        self._fernets = {key.id: Fernet(key.text) for key in keys.keys}

    @property
    def key_id(self) -> str:
        """The key that encrypts; it belongs into the column `key_id` beside every token of `seal` and `rotate`."""
        return self.keys.ids[0]

    def seal(self, secret: Secret, binding: Binding | DkimBinding, kind: Kind = Kind.PASSWORD) -> str:
        """The token to store. It opens only with the same `binding`, and as the same kind."""
        envelope = {"v": _VERSION, **asdict(binding), "kind": str(kind), "secret": secret.reveal()}
        content = json.dumps(envelope).encode("ascii")
        padded = content + b" " * (-len(content) % _STEP)
        return self._fernets[self.key_id].encrypt(padded).decode("ascii")

    def open(
        self, token: str, binding: Binding | DkimBinding, *, key_id: str = "", kind: Kind = Kind.PASSWORD
    ) -> Secret:
        """The secret in `token`. VaultError when no loaded key opens it (`key_id`, as stored beside it, helps to say
        which is missing), when it is of another kind, or when a setting of the row is not the one it was sealed with.
        """
        noun, command = _NOUNS[kind], binding.command(kind)
        envelope = self._unwrap(token)
        if envelope is None:
            raise self._cannot_open(binding.owner, kind, key_id, command)
        secret = Secret(str(envelope.pop("secret", "")))
        version, sealed_as = envelope.pop("v", None), envelope.pop("kind", None)
        if version != _VERSION or sealed_as not in _NOUNS:
            raise VaultError(f"{binding.owner}: its {noun} was stored by a newer version of this program")
        if sealed_as != kind:
            words = f"{binding.owner}: what is stored as its {noun} is not that, but the {_NOUNS[Kind(sealed_as)]}"
            raise VaultError(f"{words} of {_owner(envelope)}", hint=f"give it again: {command}")
        for setting, now in asdict(binding).items():
            then = envelope.get(setting, "")
            if then != now:
                raise VaultError(
                    f"{binding.owner}: the {_SETTINGS[setting]} is now {now!r}; its {noun} was stored for {then!r}",
                    hint=f"if the change is right, enter it again: {command}",
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

    def rotate(self, token: str, owner: str, kind: Kind = Kind.PASSWORD) -> str:
        """The same envelope under the first key; its settings are not looked at, so a mismatch stays one.

        VaultError, naming its `owner` (``"account shop"``), when no loaded key opens it.
        """
        if not self.key_of(token):
            raise self._cannot_open(owner, kind)
        from cryptography.fernet import MultiFernet

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

    def _cannot_open(self, owner: str, kind: Kind, key_id: str = "", command: str = "") -> VaultError:
        loaded, noun = ", ".join(self.keys.ids), _NOUNS[kind]
        if key_id and key_id not in self.keys.ids:
            return VaultError(
                f"{owner}: its {noun} is sealed with key {key_id}, which is not loaded (loaded: {loaded})",
                hint=f"bring that key back, or enter the {noun} again: {command}",
            )
        return VaultError(
            f"{owner}: none of the loaded keys ({loaded}) opens its {noun}; the token is damaged,"
            " or the key is another one",
            hint=command,
        )


def _owner(envelope: dict[str, Any]) -> str:
    """Whose secret it is, as the envelope says."""
    name = "account" if "account" in envelope else "sender"
    return f"{name} {envelope.get(name, '')}"


def open_after_rotation(
    open_vault: Callable[[], Vault], load_again: Callable[[], bool], opening: Callable[[Vault], Secret]
) -> Secret:
    """What `opening` finds in the vault. Where that fails, the keys may have been rotated while we run: once more, if
    `load_again` says that there are others now. Raises VaultError.
    """
    try:
        return opening(open_vault())
    except VaultError:
        if not load_again():
            raise
        return opening(open_vault())


def _decrypt(fernet: Fernet, token: str) -> bytes | None:
    from cryptography.fernet import InvalidToken

    try:
        return fernet.decrypt(token)
    except (InvalidToken, ValueError, TypeError):  # ValueError: it holds letters outside ASCII
        return None
