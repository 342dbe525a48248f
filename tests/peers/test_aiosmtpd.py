"""aiosmtpd, with STARTTLS and a login: the whole way from `outbox account add` to an accepted mail."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.peers.mails import digests_of, insert_assorted, sent_digests
from tests.peers.programs import free_port
from tests.running import SHOP, Site


class Keeper:
    """A handler that keeps what it is given; `logins` are the users that have signed in."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self.logins: list[str] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 -- aiosmtpd's name
        assert session.ssl is not None
        self.contents.append(envelope.original_content)
        return "250 2.0.0 kept"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, login: Any) -> Any:
        from aiosmtpd.smtp import AuthResult

        self.logins.append(f"{mechanism} {login.login.decode()}")
        return AuthResult(success=(login.login, login.password) == (b"shop", b"correct horse"))


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[tuple[Keeper, int]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses what Python is going to remove
        from aiosmtpd.controller import Controller

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        keeper, port = Keeper(), free_port()
        controller = Controller(
            keeper,
            hostname="localhost",
            port=port,
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=keeper.authenticate,
            data_size_limit=50_000_000,
        )
        controller.start()
        yield keeper, port
        controller.stop()


@pytest.mark.filterwarnings("ignore")
def test_aiosmtpd_takes_what_the_runner_sends(sqlite_site: Site, server: tuple[Keeper, int], tmp_path: Path) -> None:
    site, (keeper, port) = sqlite_site, server
    key, password = tmp_path / "key", tmp_path / "password"
    password.write_text("correct horse")
    assert site.outbox("key", "generate", key_file=str(key))[0] == 0
    account = ("account", "add", "main", "--relay", f"localhost:{port}", "--tls", "starttls", "--username", "shop")
    options = ("--ca-file", str(tmp_path / "ca.pem"), "--mechanism", "login", "--password-file", str(password))
    status, said = site.outbox(*account, *options, key_file=str(key))
    assert status == 0, said
    assert site.outbox("sender", "add", SHOP, "--account", "main")[0] == 0
    numbers = insert_assorted(site)
    with site.run("-q", "--until-empty", key_file=str(key)) as runner:
        assert runner.wait() == 0
    assert runner.lines == []
    assert site.states() == {"sent": len(numbers)}
    assert set(keeper.logins) == {"LOGIN shop"}
    assert digests_of(keeper.contents) == sent_digests(site)
    assert [row[0] for row in site.query("SELECT DISTINCT substr(tls, 1, 7) FROM outbox_attempt")] == ["TLSv1.3"]
    assert "correct horse" not in str(site.query("SELECT * FROM outbox_account"))
