"""A thousand passwords sealed again, killed at any point; and every way to swap what is sealed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from outbox import keys
from outbox.clock import Clock
from outbox.core.account import Account, Tls
from outbox.core.secret import Secret
from outbox.errors import VaultError
from outbox.store import accounts
from outbox.store.journal import Act
from outbox.vault import Binding, Vault
from tests.running import Program, Site, command, eventually

ACCOUNTS = 1000
KILLS = (1, 150, 500, 850)
"""After so many have been sealed again: the first transaction, and some in the middle."""

ACT = Act("test", Clock().now())


def fill(site: Site, key_file: Path, count: int) -> list[Account]:
    box = Vault(keys.load(key_file))
    with site.db.atomic():
        for number in range(count):
            account = Account(f"a{number:04}", "relay.example.com", 587, Tls.STARTTLS, username=f"u{number}")
            sealed = box.seal(Secret(f"password {number}"), Binding.of(account))
            accounts.add_account(site.db, replace(account, secret=sealed, key_id=box.key_id), ACT)
    return accounts.accounts(site.db)


@pytest.mark.timeout(300)
def test_a_rotation_that_is_killed_goes_on_and_loses_no_password(site: Site) -> None:
    key_file = site.folder / "outbox.key"
    old = keys.create(key_file)
    fill(site, key_file, ACCOUNTS)
    new = keys.add(key_file)
    environment = {"OUTBOX_DATABASE": site.url, "OUTBOX_KEY_FILE": str(key_file)}
    rotated = "SELECT count(*) FROM outbox_account WHERE key_id = ?"
    killed_at = []
    for point in KILLS:
        with Program(command("key", "rotate"), site.folder, **environment) as rotation:
            eventually(lambda at=point: site.query(rotated, new.id)[0][0] >= at, f"{point} are sealed again")  # type: ignore[misc]
            rotation.kill()
        killed_at.append(site.query(rotated, new.id)[0][0])
        assert opened(site, key_file) == ACCOUNTS, "with both keys, in the middle of it"
        assert site.query("SELECT count(*) FROM outbox_account WHERE key_id = ?", old.id)[0][0] == (
            ACCOUNTS - killed_at[-1]
        )
    assert killed_at == sorted(killed_at)
    assert killed_at[0] < ACCOUNTS, "it was killed in the middle"
    with Program(command("key", "rotate"), site.folder, **environment) as rotation:
        assert rotation.wait(60) == 0
    with Program(command("key", "retire", old.id), site.folder, **environment) as retirement:
        assert retirement.wait(60) == 0
    assert keys.load(key_file).ids == (new.id,)
    assert opened(site, key_file) == ACCOUNTS
    journal = "SELECT count(*) FROM outbox_journal WHERE verb = 'key rotate'"
    assert site.query(journal)[0][0] == ACCOUNTS, "each once, however often it was begun"


def opened(site: Site, key_file: Path) -> int:
    """How many passwords open, and are the right ones."""
    box = Vault(keys.load(key_file))
    return sum(
        box.open_account(each).reveal() == f"password {int(each.name[1:])}" for each in accounts.accounts(site.db)
    )


def test_every_token_that_was_put_into_another_row_is_noticed(sqlite_site: Site) -> None:
    """All pairs, the way somebody does it who may write to the database; and every redirect of where it is sent."""
    key_file = sqlite_site.folder / "outbox.key"
    keys.create(key_file)
    found = fill(sqlite_site, key_file, 12)
    box = Vault(keys.load(key_file))
    for mine, other in itertools.permutations(found, 2):
        stolen = replace(mine, secret=other.secret)
        with pytest.raises(VaultError, match=f"account {mine.name}: the account name is now"):
            box.open_account(stolen)
        with pytest.raises(VaultError, match="is now"):
            box.open_account(replace(stolen, username=other.username))
    redirects = {
        "relay_host": "evil.example.com",
        "relay_port": 25,
        "username": "eve",
        "tls": Tls.NONE,
        "ca_file": "/tmp/evil.pem",
        "tls_pins": "ab" * 32,
        "name": "other",
    }
    for account in found:
        for count in (1, 2):
            for settings in itertools.combinations(redirects.items(), count):
                with pytest.raises(VaultError, match="is now"):
                    box.open_account(replace(account, **dict(settings)))  # type: ignore[arg-type]
        assert box.open_account(account), "and the row itself opens"
