"""Signs what goes out, with the keys of its From.

    signing = Signing(registrar.open_vault, registrar.load_again)
    signing.load(keys)                          # with every snapshot of the registry
    rendered = signing.sign(message, rendered)  # as it was, where there are no keys

An address signs with its own keys; one that has none, with those of its ``*@domain``, wherever that is registered. The
domain in a signature is always that of From, or DMARC would not count it (RFC 7489 §3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from outbox.core import dkim
from outbox.core.account import fold
from outbox.core.address import wildcard
from outbox.core.dkim import DkimKey
from outbox.core.dkim_key import SealedKey
from outbox.core.message import Message
from outbox.core.raw import addresses_in, read_fields
from outbox.core.render import Rendered
from outbox.vault import DkimBinding, Kind, Vault, open_after_rotation

MAX_ADDRESSES = 4096
"""Of how many addresses it is remembered which keys sign."""


class Signing:
    """See above.

    open_vault  raises VaultError when there is no key
    load_again  called when a key does not open: whether `open_vault` now has other keys than before
    """

    def __init__(self, open_vault: Callable[[], Vault], load_again: Callable[[], bool] = lambda: False) -> None:
        self._open_vault = open_vault
        self._load_again = load_again
        self._keys: tuple[SealedKey, ...] = ()
        self._of_sender: dict[str, list[SealedKey]] = {}
        self._opened: dict[SealedKey, DkimKey] = {}
        self._ready: dict[str, tuple[DkimKey, ...]] = {}

    def load(self, keys: Sequence[SealedKey]) -> None:
        """All keys as they are now. What has been opened and is still there stays open."""
        keys = tuple(keys)
        if keys == self._keys:
            return
        self._keys = keys
        self._of_sender, self._ready = {}, {}
        for key in keys:
            self._of_sender.setdefault(key.sender, []).append(key)
        left = self._opened.keys() & set(keys)
        self._opened = {key: self._opened[key] for key in left}

    def sign(self, message: Message, rendered: Rendered) -> Rendered:
        """`rendered`, which is `message`, with its signatures. Raises VaultError when a key does not open: mail that is
        meant to be signed does not go out unsigned.
        """
        if not self._keys:
            return rendered
        keys = self._keys_of(_author(message))
        return replace(rendered, data=dkim.sign(rendered.data, keys, message.created_at)) if keys else rendered

    def _keys_of(self, address: str) -> tuple[DkimKey, ...]:
        try:
            return self._ready[address]
        except KeyError:
            sender = fold(address)
            sealed = self._of_sender.get(sender) or self._of_sender.get(wildcard(sender), [])
            ready = tuple(self._open(key) for key in sealed)
            if len(self._ready) >= MAX_ADDRESSES:
                self._ready.clear()
            self._ready[address] = ready
            return ready

    def _open(self, key: SealedKey) -> DkimKey:
        if key not in self._opened:
            from outbox import keypair  # loaded where mail is signed

            binding = DkimBinding(key.sender, key.selector, key.domain, str(key.algorithm))
            secret = open_after_rotation(
                self._open_vault,
                self._load_again,
                lambda vault: vault.open(key.secret, binding, key_id=key.key_id, kind=Kind.DKIM),
            )
            self._opened[key] = DkimKey(key.domain, key.selector, key.algorithm, keypair.signer(secret))
        return self._opened[key]


def _author(message: Message) -> str:
    """The address in From: of several, the first. A message that came in raw may speak for another registered sender
    than its row.
    """
    if message.raw:
        written = addresses_in(read_fields(message.raw), "from")
        if written:
            return written[0].wire
    return message.sender
