"""An account with TLS and a login, made by the commands that an operator uses (in this process: it is quicker)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.cli.program import Program
from tests.running import SHOP, Runner, Site


def outbox(site: Site, *arguments: str, key_file: str = "") -> str:
    """`outbox ARGUMENTS`, which must succeed. What it said."""
    environment = {"OUTBOX_DATABASE": site.url, "OUTBOX_KEY_FILE": key_file}
    return Program(site.folder, site.url).run(*arguments, env=environment).output


@dataclass(frozen=True)
class Login:
    """The account ``main`` of a site. `run` and `command` have the key that opens its password."""

    site: Site
    key_file: Path
    password_file: Path

    def command(self, *arguments: str) -> str:
        """`outbox ARGUMENTS`, which must succeed. What it said."""
        return outbox(self.site, *arguments, key_file=str(self.key_file))

    def run(self, **settings: str) -> Runner:
        return self.site.run("-q", "--until-empty", key_file=str(self.key_file), **settings)

    def until_empty(self, **settings: str) -> list[str]:
        """Run until nothing is due; what it said."""
        with self.run(**settings) as runner:
            assert runner.wait(60) == 0
        return runner.lines


def sign_in(
    site: Site,
    port: int,
    *,
    ca_file: Path,
    username: str = "shop",
    password: str = "correct horse",
    mechanism: str = "auto",
    host: str = "localhost",
) -> Login:
    """An account with STARTTLS at that port, and shop@example.com as its sender."""
    made = Login(site, site.folder / "key", site.folder / "password")
    made.password_file.write_text(password)
    made.command("key", "generate")
    relay = ("--relay", f"{host}:{port}", "--tls", "starttls", "--ca-file", str(ca_file))
    login = ("--username", username, "--mechanism", mechanism, "--password-file", str(made.password_file))
    made.command("account", "add", "main", *relay, *(login if username else ()))
    made.command("sender", "add", SHOP, "--account", "main")
    return made
