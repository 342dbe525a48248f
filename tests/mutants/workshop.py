"""A copy of the tree in which one mistake at a time is made, and a bench (bench.py) that tests it there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from tests.mutants.bench import BROKEN

ROOT = Path(__file__).parent.parent.parent
COPIED = ("outbox", "tests", "schema", "docs", "bin", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")

PER_TEST = 20
"""Seconds a test of a mutant may take: more, and it hangs."""


class Verdict(NamedTuple):
    """`killed`: somebody noticed. `by`: the first test that failed, or how else it showed."""

    killed: bool
    by: str = ""


class Mistake(Protocol):
    """What a Mutation and a critical mutant have in common."""

    @property
    def module(self) -> str: ...

    def applied(self, source: bytes) -> bytes: ...


@dataclass(frozen=True)
class Seen:
    """The next tests to ask, and how long they may take."""

    tests: Sequence[str]
    seconds: float


class Workshop:
    """Make it in an empty folder; `close` it. Not for two threads."""

    def __init__(self, folder: Path, postgres: str = "") -> None:
        self._tree, self._folder = folder / "tree", folder
        self._tree.mkdir(parents=True)
        for name in COPIED:
            copy(ROOT / name, self._tree / name)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
        environment |= {"PYTHONPATH": str(self._tree), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""}
        environment |= {"OUTBOX_TEST_POSTGRES": postgres} if postgres else {}
        self._bench = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.bench"],
            cwd=self._tree,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._bench.stdin is not None
        assert self._bench.stdout is not None
        self._orders: IO[str] = self._bench.stdin
        self._answers: IO[str] = self._bench.stdout
        assert self._answers.readline() == "ready\n"

    def close(self) -> None:
        self._orders.close()
        self._bench.wait()
        self._answers.close()

    def test(self, mistake: Mistake, asked: Iterable[Seen]) -> Verdict:
        """Ask one group of tests after the other, until one notices."""
        with self._made(mistake):
            for each in asked:
                verdict = self.ask(each)
                if verdict.killed:
                    return verdict
        return Verdict(False)

    def ask(self, asked: Seen) -> Verdict:
        order = {"tests": list(asked.tests), "seconds": asked.seconds, "folder": str(self._folder)}
        self._orders.write(json.dumps(order) + "\n")
        self._orders.flush()
        answer = json.loads(self._answers.readline())
        code, failed = answer["code"], answer["failed"]
        if code == BROKEN and not failed:
            raise RuntimeError(f"the bench does not work:\n{self.output()}")
        return Verdict(code not in (0, 5), failed or f"exit status {code}")  # 5: there was nothing to run

    def output(self) -> str:
        """What pytest said last."""
        return (self._folder / "output").read_text(encoding="utf-8", errors="replace")

    @contextmanager
    def _made(self, mistake: Mistake) -> Iterator[None]:
        path = self._tree / mistake.module
        source = path.read_bytes()
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()  # it is as old as the second, and two mistakes are faster
        path.write_bytes(mistake.applied(source))
        try:
            yield
        finally:
            path.write_bytes(source)


def copy(source: Path, target: Path) -> None:
    """With what is compiled: it is the same."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)  # copy2: pyc files know their source by its time
    else:
        shutil.copy2(source, target)
