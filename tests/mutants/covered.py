"""Which tests run which line of core, store and smtp: recorded once in minutes, and kept in `.mutants/` of the checkout
for as long as the three packages stay as they are. Test files that have changed since are recorded once more.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import coverage
from coverage.exceptions import NoDataError

from tests.mutants.mutations import Mutation, named
from tests.mutants.recording import FOLDER, PACKAGES
from tests.mutants.workshop import COPIED, PER_TEST, ROOT, Seen, copy

SUITES = (
    "core",
    "smtp",
    "contract",
    "chaos",
    "runner",
    "schema",
    "oauth",
    "cli",
    "test_mail.py",
    "test_sqlite_library.py",
    "doors/test_mqd.py",
    "doors/test_pickup.py",
    "doors/test_smtpd.py",
)
KEPT = ROOT / ".mutants"

FIRST = 25
"""Tests that are asked together at first: the fastest, and of each test function one before any is asked twice."""

AT_ONCE = 0.02
"""Seconds of a test that is asked before it is thought of how many there are of its function."""

ENOUGH = 15.0
"""Seconds of tests that a mutant is given: the fastest that run its line. One that only slower ones notice survives."""

_POSTGRES = 0.3
"""Seconds more that a test with PostgreSQL costs, in a process of its own."""


def modules() -> list[str]:
    """Everything measured, as paths from the root."""
    return [str(path.relative_to(ROOT)) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def record(folder: Path = KEPT) -> int:
    """Run the suites in a copy of the tree, and record. pytest's exit status."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    status = _run([f"tests/{each}" for each in SUITES], folder)
    (folder / "digest").write_text(digest())
    return status


def refresh(folder: Path = KEPT) -> int:
    """Record the test files that are new or different since, too: one that a mutant has asked for is seen by the next.
    A line that such a test no longer runs stays in its name. pytest's exit status.
    """
    known, now = _known(folder), _test_files()
    changed = sorted(each for each, sum_ in now.items() if known.get(each) != sum_)
    gone = known.keys() - now.keys()
    for path in folder.glob("seconds.*.json"):
        seconds = json.loads(path.read_text(encoding="utf-8"))
        left = {test: took for test, took in seconds.items() if test.partition("::")[0] not in {*changed, *gone}}
        path.write_text(json.dumps(left), encoding="utf-8")
    return _run(changed, folder) if changed else 0


def _run(tests: list[str], folder: Path) -> int:
    """Of files and folders."""
    with tempfile.TemporaryDirectory(prefix="outbox-recording-") as tree:
        for name in COPIED:
            copy(ROOT / name, Path(tree) / name)
        (Path(tree) / "sitecustomize.py").write_text(_BEGIN)  # of every program that a test starts
        options = ["-q", "-n", "2", "--dist", "loadfile", "-p", "tests.mutants.recording"]
        environment = os.environ | {FOLDER: str(folder), "PYTHONPATH": tree}
        command = [sys.executable, "-m", "pytest", *options, *tests]
        status = subprocess.run(command, cwd=tree, env=environment, check=False).returncode
        measured = _coverage(folder, tree)
        measured.load()
        measured.combine(data_paths=[str(folder)])
        measured.save()
    (folder / "tests.json").write_text(json.dumps(_test_files()), encoding="utf-8")
    return status


def _known(folder: Path) -> dict[str, str]:
    known: dict[str, str] = json.loads((folder / "tests.json").read_text(encoding="utf-8"))
    return known


def _test_files() -> dict[str, str]:
    """Those of the suites, and the digest of each."""
    places = [ROOT / "tests" / each for each in SUITES]
    paths = [path for each in places for path in (each.rglob("test_*.py") if each.is_dir() else [each])]
    return {str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


_BEGIN = """\
import os
if "PYTEST_CURRENT_TEST" in os.environ and "MUTANTS_RECORDING" in os.environ:
    from tests.mutants import recording
    recording.start_program()
"""


def digest() -> str:
    return hashlib.sha256(b"".join((ROOT / each).read_bytes() for each in modules())).hexdigest()


def is_recorded(folder: Path = KEPT) -> bool:
    written = folder / "digest"
    return (folder / "tests.json").exists() and written.exists() and written.read_text() == digest()


def report(folder: Path = KEPT) -> float:
    """Print what nothing runs. Branch coverage in percent."""
    measured = _coverage(folder)
    measured.load()
    return measured.report(show_missing=True, skip_covered=True, precision=2, file=sys.stdout)


def _coverage(folder: Path, recorded: str = "") -> coverage.Coverage:
    """`recorded`: the tree that was measured, of which this one is the original."""
    measured = coverage.Coverage(
        data_file=str(folder / ".coverage"),
        config_file=False,
        branch=True,
        include=[f"*/{package}/*" for package in PACKAGES],
    )
    if recorded:
        measured.set_option("paths", {"source": [str(ROOT), recorded]})
    of_types = (r"if TYPE_CHECKING:", r"@abstractmethod", r"@overload", r"^\s*\.\.\.$", r"def .*: \.\.\.$")
    for each in (*of_types, r"raise AssertionError\(\"unreachable"):  # the last says that it is never reached
        measured.exclude(each)
    return measured


class Covered:
    """The recording, to be asked."""

    def __init__(self, folder: Path = KEPT) -> None:
        self._data = coverage.CoverageData(str(folder / ".coverage"))
        self._data.read()
        if not self._data:
            raise NoDataError(f"nothing is recorded in {folder}")
        self.seconds: dict[str, float] = {}
        for path in folder.glob("seconds.*.json"):
            self.seconds |= json.loads(path.read_text(encoding="utf-8"))
        self._lines: dict[str, dict[int, list[str]]] = {}

    def tests_of(self, mutation: Mutation) -> set[str]:
        """Whoever may notice: the tests of the module's own file, and who runs the line. Of what is executed while the
        module is imported, also who runs a line that uses its name, or the name of what it becomes a part of (that it
        runs in a process which a test has started says little). If there is nobody: whoever runs anything of its
        module.
        """
        found = self._at(mutation.module, mutation.lines)
        names, known = list(mutation.names), set(mutation.names)
        using: set[str] = set()
        while names and not using:
            uses = [use for name in names for use in self._uses[name]]
            using = {test for module, line, _ in uses for test in self._at(module, (line,))}
            names = [name for *_, parts in uses for name in parts if name not in known]
            known |= set(names)
        own = f"/test_{Path(mutation.module).stem}.py::"
        found = found | using or self._at(mutation.module, self._of(mutation.module))
        return found | {each for each in self.seconds if own in each}

    def asked(self, mutation: Mutation) -> Iterator[Seen]:
        """The groups of tests to ask, the likeliest first, no more than is ENOUGH."""
        chosen: list[str] = []
        total = 0.0
        for each in self._ordered(mutation):
            if chosen and total + self._cost(each) > ENOUGH:
                continue  # there may be faster ones behind it
            total += self._cost(each)
            chosen.append(each)
        for group in (chosen[:FIRST], chosen[FIRST : 8 * FIRST], chosen[8 * FIRST :]):
            if group:
                yield Seen(group, 20 + 4 * sum(map(self._cost, group)))

    def _ordered(self, mutation: Mutation) -> list[str]:
        """The very fast of its own file first; then of each function one before any is asked twice, those of its own
        file before the others, and the faster before the slower.
        """
        own = Path(mutation.module).stem[:6]
        tests = [each for each in self.tests_of(mutation) if self._cost(each) < PER_TEST / 2]
        turns: dict[str, int] = defaultdict(int)
        ranked = []
        for each in sorted(tests, key=lambda each: (self._cost(each), each)):
            function = re.sub(r"\[.*", "", each, flags=re.DOTALL)
            other = own not in each.partition("::")[0]
            turn = turns[function] if other or self._cost(each) > AT_ONCE else -1
            ranked.append((turn, other, self._cost(each), each))
            turns[function] += 1
        return [each for *_, each in sorted(ranked)]

    def _cost(self, test: str) -> float:
        return self.seconds.get(test, PER_TEST) + (_POSTGRES if "postgres" in test else 0)

    def _at(self, module: str, lines: Iterable[int]) -> set[str]:
        of_module = self._of(module)
        return {test for line in lines for test in of_module.get(line, ()) if test in self.seconds}

    def _of(self, module: str) -> dict[int, list[str]]:
        if module not in self._lines:
            self._lines[module] = self._data.contexts_by_lineno(str(ROOT / module))
        return self._lines[module]

    @cached_property
    def _uses(self) -> dict[str, list[tuple[str, int, tuple[str, ...]]]]:
        """Where a name is read, or an attribute of that name; and what the module's statement there gives a name to."""
        found = defaultdict(list)
        for module in modules():
            for statement in ast.parse((ROOT / module).read_bytes()).body:
                names = named(statement)
                for node in ast.walk(statement):
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                        found[node.id].append((module, node.lineno, names))
                    elif isinstance(node, ast.Attribute):
                        found[node.attr].append((module, node.lineno, names))
        return found
