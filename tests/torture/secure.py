"""A relay that wants TLS and a login, and an account for it, without a command line for each."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import trustme

from outbox import keys
from outbox.clock import Clock
from outbox.core.account import Account, Sender, Tls
from outbox.core.secret import Secret
from outbox.store import accounts, senders
from outbox.store.journal import Act
from outbox.vault import Binding, Vault
from tests.relay_session import server_context
from tests.running import SHOP, Site

PASSWORD = "correct horse"


_LOCK = threading.Lock()


@cache
def _only() -> trustme.CA:
    return trustme.CA()


def _authority() -> trustme.CA:
    with _LOCK:
        return _only()


def relay_options(*, login: bool) -> dict[str, Any]:
    """For `Relay`."""
    context = server_context(_authority().issue_cert("127.0.0.1"))
    return {"tls": "starttls", "context": context, "credentials": {"shop": PASSWORD} if login else None}


def register(site: Site, port: int, *, login: bool) -> dict[str, str]:
    """An account there, with a sealed password or with TLS where it is offered, and its sender. The settings that a
    runner needs to open it.
    """
    authority, key_file = site.folder / "ca.pem", site.folder / "key"
    _authority().cert_pem.write_to_path(str(authority))
    keys.create(key_file)
    account = Account("main", "127.0.0.1", port, Tls.OPPORTUNISTIC, ca_file=str(authority))
    if login:
        account = replace(account, tls=Tls.STARTTLS, username="shop")
        vault = Vault(keys.load(Path(key_file)))
        account = replace(account, secret=vault.seal(Secret(PASSWORD), Binding.of(account)), key_id=vault.key_id)
    act = Act("test", Clock().now())
    with site.db.atomic():
        accounts.add_account(site.db, account, act)
        senders.add_sender(site.db, Sender(SHOP, "main"), act)
    return {"key_file": str(key_file)}
