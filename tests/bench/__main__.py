"""`bin/bench`: see the package."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import platform
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.figures import Bench, Figure, Measure, Unmeasurable, as_json, lines
from tests.bench.ground import postgres_server
from tests.bench.process import ROOT

TOPICS = (
    "drain",
    "start",
    "sendmail",
    "memory",
    "fairness",
    "latency",
    "history",
    "postgres",
    "enqueue",
    "composition",
    "transport",
)
"""Modules of this package; each has `measure` and says in the first line of its docstring what it measures."""

PEERS = "peers"
BUSY = 0.5
"""Processes that want to run, for each core, before we begin."""

FOLDER = ROOT / ".venv-bench"


def parser() -> argparse.ArgumentParser:
    known = [*TOPICS, PEERS]
    topics = "\n".join(f"  {each:10} {what_it_measures(each)}" for each in known)
    made = argparse.ArgumentParser(
        prog="bin/bench",
        description="What Outbox costs on this machine; ratios first, because absolute figures differ by machine.",
        epilog=f"topics:\n{topics}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--quick", action="store_true", help="smaller backlogs: less than a minute in all")
    made.add_argument("--only", nargs="+", metavar="TOPIC", choices=known, help="these alone")
    made.add_argument(
        "--peers", action="store_true", help="also what else people use, each in an environment of its own"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="also keep the figures")
    made.add_argument("--folder", type=Path, default=FOLDER, help="where databases and environments are made")
    return made


def what_it_measures(topic: str) -> str:
    """The first line of its module, or of its package. Not imported for that."""
    here = Path(__file__).parent
    path = here / topic / "__init__.py" if (here / topic).is_dir() else here / f"{topic}.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def measurement(topic: str) -> Measure:
    measure: Measure = importlib.import_module(f"tests.bench.{topic}").measure
    return measure


def say(text: str) -> None:
    """Progress, for whoever waits; not part of what is printed."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


@contextmanager
def work_folder(base: Path) -> Iterator[Path]:
    """A folder in `base`, open to the users that foreign servers change to; deleted afterwards."""
    base.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=base))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measured(bench: Bench, topics: Sequence[str]) -> Iterator[Figure]:
    """Every topic's figures. What cannot be measured here is said; the others go on."""
    for topic in topics:
        say(f"{topic} …")
        began = time.monotonic()
        try:
            yield from measurement(topic)(bench)
        except Unmeasurable as why:
            say(f"{topic} IS NOT MEASURED: {why}")
        except RuntimeError as error:
            say(f"{topic} HAS FAILED, its figures end here: {error}")
        say(f"{topic}: {time.monotonic() - began:.0f} s")


def machine(arguments: Sequence[str]) -> dict[str, object]:
    """Where this is measured, and with what command."""
    return {
        "command": " ".join(["bin/bench", *arguments]),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load": round(os.getloadavg()[0], 1),
        "on": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def main(arguments: Sequence[str]) -> int:
    given = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, too
    topics = given.only or TOPICS
    if given.peers and PEERS not in topics:
        topics = [*topics, PEERS]
    with work_folder(given.folder) as folder, postgres_server(folder) as postgres:
        if postgres is None:
            say("there is no PostgreSQL: its figures are left out (OUTBOX_TEST_POSTGRES can name a server)")
        where = machine(arguments)
        figures = list(measured(Bench(folder, say, given.quick, postgres), topics))
    print(*(f"{name}: {value}" for name, value in where.items()), sep="  ")
    print(*lines(figures), sep="\n")
    if given.json:
        given.json.write_text(as_json(figures, where), encoding="utf-8")
        say(f"kept in {given.json}")
    if float(str(where["load"])) > BUSY * (os.cpu_count() or 1):
        say(f"this machine was busy when it began (load {where['load']}): read the figures as too low")
    missed = sum(each.holds is False for each in figures)
    if missed:
        say(f"{missed} of {sum(each.holds is not None for each in figures)} aims are missed on this machine")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
