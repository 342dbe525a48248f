"""What keeps a runner from beginning: one clear line, an exit code, and nothing lost."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from outbox.clock import Clock
from outbox.config import Config
from outbox.errors import DatabaseError, VaultError
from outbox.runner.service import Errand, Service
from outbox.store.listener import advisory_key
from outbox.vault import Vault
from tests.relay import Relay
from tests.running import Site


def refused(site: Site, *arguments: str, code: int, says: str, **settings: str) -> None:
    """`outbox ARGUMENTS` ends with `code` and an error that says so; what waits in the database still waits."""
    status, said = site.outbox(*arguments, **settings)
    assert status == code, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert says in errors[0], said
    assert "Traceback" not in said
    assert "secret" not in said
    assert site.states() == {"queued": 1}


def test_a_wrong_database_url(sqlite_site: Site) -> None:
    site = sqlite_site
    site.insert(1)
    missing = f"sqlite:///{site.folder}/none.db"
    for url, says in [
        (missing, "there is no database"),
        (f"sqlite:///{site.folder}/no/such.db", "there is no directory"),
        ("mysql://root:secret@localhost/app", "not supported"),
        ("nonsense", "is not a database URL"),
        ("postgresql://ann:secret@127.0.0.1:1/app", "cannot reach"),
    ]:
        refused(site, "--database", url, "run", code=4, says=says)
    assert not (site.folder / "none.db").exists(), "a runner creates no database"


def test_no_database_at_all(sqlite_site: Site) -> None:
    sqlite_site.insert(1)
    refused(sqlite_site, "run", code=3, says="no database is configured", database="")


def test_a_file_that_is_no_database(sqlite_site: Site) -> None:
    sqlite_site.insert(1)
    letter = sqlite_site.folder / "letter.db"
    letter.write_text("Dear Ann, " * 1000)
    refused(sqlite_site, "--database", f"sqlite:///{letter}", "run", code=4, says="not a database")


def test_a_newer_schema(site: Site) -> None:
    site.insert(1)
    site.query("UPDATE outbox_meta SET value = '999' WHERE key = 'schema_version'")
    refused(site, "run", code=4, says="999")


def test_a_database_without_the_tables(sqlite_site: Site) -> None:
    sqlite_site.insert(1)
    (sqlite_site.folder / "empty.db").touch()
    refused(sqlite_site, "--database", f"sqlite:///{sqlite_site.folder}/empty.db", "run", code=4, says="no tables")


def test_an_unreadable_configuration(sqlite_site: Site) -> None:
    site = sqlite_site
    site.insert(1)
    file = site.folder / "outbox.toml"
    for text, says in [
        ("[run\ngrace = 1", "outbox.toml"),
        ("[run]\ngrace = 'soon'", "run.grace"),
        ("[run]\nlunch = '1h'", "no setting lunch in [run]"),
        ("[run]\nlease = '10s'\nrenew = '9s'", "renew"),
    ]:
        file.write_text(text)
        refused(site, "--config", str(file), "run", code=3, says=says)
    refused(site, "--config", str(site.folder / "none.toml"), "run", code=3, says="none.toml")
    refused(site, "run", code=3, says="OUTBOX_RUN_GRACE", run_grace="soon")


def test_a_missing_or_wrong_key(sqlite_site: Site) -> None:
    site = sqlite_site
    key, other, password = (site.folder / name for name in ("key", "other", "password"))
    password.write_text("secret")
    for file in (key, other):
        assert site.outbox("key", "generate", key_file=str(file))[0] == 0
    with Relay(credentials={"shop": "secret"}) as relay:
        login = ("--tls", "none", "--username", "shop", "--password-file", str(password))
        add = ("account", "add", "main", "--relay", f"127.0.0.1:{relay.port}", *login)
        assert site.outbox(*add, key_file=str(key))[0] == 0
        assert site.outbox("sender", "add", "shop@example.com", "--account", "main")[0] == 0
        site.insert(1)
        refused(site, "run", code=5, says="key")
        refused(site, "run", code=5, says="key", key_file=str(site.folder / "none"))

        # A key that does not open this password: another account may still work, so the runner begins.
        with site.run("-q", "--until-empty", key_file=str(other)) as runner:
            assert runner.wait() == 0
        assert "stays: 1 from shop@example.com: account main is paused" in runner.output
        assert site.states() == {"queued": 1}
        assert relay.commands == []

        assert site.outbox("account", "resume", "main")[0] == 0
        with site.run("-q", "--until-empty", key_file=str(key)) as runner:
            assert runner.wait() == 0
        assert site.states() == {"sent": 1}


def test_a_key_that_others_can_read(sqlite_site: Site) -> None:
    site = sqlite_site
    if sys.platform == "win32":
        pytest.skip("modes are POSIX")
    key, password = site.folder / "key", site.folder / "password"
    password.write_text("secret")
    assert site.outbox("key", "generate", key_file=str(key))[0] == 0
    login = ("--tls", "none", "--username", "shop", "--password-file", str(password))
    assert site.outbox("account", "add", "main", "--relay", "127.0.0.1:1", *login, key_file=str(key))[0] == 0
    site.insert(1)
    key.chmod(0o644)
    refused(site, "run", code=5, says=str(key), key_file=str(key))


class Known(Clock):
    """Whose first runner has a name that the test knows."""

    def token(self) -> str:
        return "7" * 32


def test_a_database_that_lets_nobody_begin_is_a_database_error(postgres_site: Site, tmp_path: Path) -> None:
    """As when the server is restarted between the first words: who started the runner reads a line, no traceback."""
    site, clock = postgres_site, Known()
    site.query("SELECT pg_advisory_lock(?)", advisory_key(clock.token()))

    def no_vault() -> Vault:
        raise VaultError("there is no key")

    async def begin() -> None:
        config, rescue = Config(database=site.url), [tmp_path / "rescue"]
        service = Service(config, no_vault, clock, version="0.1.0", rescue_files=rescue)
        await service.run(Errand(until_empty=True))

    with pytest.raises(DatabaseError, match="still held"):
        asyncio.run(begin())
    assert site.runners() == []
