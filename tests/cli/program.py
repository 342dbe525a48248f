"""The real command line, run in this process, in a directory of its own."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from outbox.cli.main import app

CANARY = "canary-Pa55w0rd-ünïcode"
"""A password that must not come up anywhere."""


@dataclass
class Program:
    """``outbox`` in the directory `home`. `run` checks the exit code; everything ever printed is kept in `printed`."""

    home: Path
    url: str
    printed: list[str] = field(default_factory=list)

    def run(self, *args: str, code: int = 0, stdin: str | None = None, env: Mapping[str, str] | None = None) -> Result:
        result = CliRunner().invoke(app, list(args), input=stdin, env=env, prog_name="outbox")
        self.printed.append(result.output)
        if result.exc_info is not None:
            told = traceback.TracebackException(*result.exc_info, capture_locals=False)
            self.printed.append("".join(told.format()))
        assert result.exit_code == code, f"{args}: {result.exit_code}\n{result.output}\n{''.join(self.printed[-1:])}"
        return result

    def json(self, *args: str, code: int = 0) -> Any:
        return json.loads(self.run(*args, "--json", code=code).stdout)

    def fails(self, code: int, *args: str, stdin: str | None = None) -> str:
        """What is said on stderr by a command that ends with `code`, and prints nothing on stdout."""
        result = self.run(*args, code=code, stdin=stdin)
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        return result.stderr

    def fails_after_output(self, code: int, *args: str) -> str:
        """The same for a command that has done, and told of, something before it fails."""
        result = self.run(*args, code=code)
        assert "error: " in result.stderr
        return result.stderr

    def init(self) -> Program:
        self.run("init", "--database", self.url)
        return self

    def add_account(self, name: str = "shop", *, relay: str = "smtp.example.com:587", tls: str = "starttls") -> None:
        args = ("account", "add", name, "--relay", relay, "--tls", tls, "--username", f"{name}@example.com")
        self.run(*args, "--password-stdin", stdin=CANARY + "\n")

    def files(self) -> dict[str, bytes]:
        """Every file below `home` as it is on disk."""
        paths = [Path(folder) / name for folder, _, names in os.walk(self.home) for name in names]
        return {str(path.relative_to(self.home)): path.read_bytes() for path in paths}
