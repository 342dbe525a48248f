"""`bin/check --torture`: see the package."""

from __future__ import annotations

import argparse
import ast
import importlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.__main__ import machine, work_folder
from tests.bench.figures import Figure, Unmeasurable, as_json, lines
from tests.bench.ground import postgres_server
from tests.bench.process import ROOT
from tests.torture.cruelty import DATABASES, POLICIES, Cruelty, Measure

TOPICS = ("model", "matrix", "soak", "recovery", "storage", "commits", "power", "clocks", "hostile", "corpora")
"""Modules of this package; each has `measure` and says in the first line of its docstring what it does."""

FOLDER = ROOT / ".venv-torture"
BROKEN = 1
"""Exit status: a promise does not hold."""


def parser() -> argparse.ArgumentParser:
    topics = "\n".join(f"  {each:10} {what_it_does(each)}" for each in TOPICS)
    made = argparse.ArgumentParser(
        prog="bin/check --torture",
        description="Whether the promise holds, under whatever can happen. Exit status 1 when it does not.",
        epilog=f"topics:\n{topics}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("topics", nargs="*", metavar="TOPIC", help="these alone")
    made.add_argument("--quick", action="store_true", help="a part of each: two minutes in all")
    made.add_argument("--messages", type=int, default=2000, metavar="N", help="so many in a soak (default: 2000)")
    made.add_argument("--kills", type=int, default=100, metavar="N", help="so many kill -9 in a soak (default: 100)")
    made.add_argument("--deaths", type=int, default=100, metavar="N", help="so many in recovery (default: 100)")
    made.add_argument("--database", choices=DATABASES, help="this one alone, in soak and recovery")
    made.add_argument("--policy", choices=POLICIES, help="this one alone, in a soak")
    made.add_argument("--seed", type=int, default=1, metavar="N", help="what the dice begin with")
    made.add_argument("--json", type=Path, metavar="FILE", help="also keep the figures")
    made.add_argument("--folder", type=Path, default=FOLDER, help="where databases are made")
    return made


def what_it_does(topic: str) -> str:
    """The first line of its module. Not imported for that."""
    text = (Path(__file__).parent / f"{topic}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def measurement(topic: str) -> Measure:
    measure: Measure = importlib.import_module(f"tests.torture.{topic}").measure
    return measure


def say(text: str) -> None:
    """Progress, for whoever waits; not part of what is printed."""
    print(f"torture: {text}", file=sys.stderr, flush=True)


def measured(cruelty: Cruelty, topics: Sequence[str]) -> Iterator[Figure]:
    """Every topic's figures. What cannot be tried here is said; the others go on."""
    for topic in topics:
        say(f"{topic} …")
        began = time.monotonic()
        try:
            yield from measurement(topic)(cruelty)
        except Unmeasurable as why:
            say(f"{topic} IS NOT TRIED: {why}")
        except (RuntimeError, TimeoutError) as error:
            yield Figure(topic, "came to its end", 0, "", "1", False, str(error).splitlines()[0])
            say(f"{topic} HAS FAILED, its figures end here: {error}")
        say(f"{topic}: {time.monotonic() - began:.0f} s")


def asked_for(given: argparse.Namespace, folder: Path, postgres: str | None) -> Cruelty:
    return Cruelty(
        folder,
        say,
        postgres,
        quick=given.quick,
        messages=given.messages,
        kills=given.kills,
        seed=given.seed,
        deaths=given.deaths,
        databases=(given.database,) if given.database else DATABASES,
        policies=(given.policy,) if given.policy else POLICIES,
    )


def main(arguments: Sequence[str]) -> int:
    made = parser()
    given = made.parse_args(arguments)
    for topic in given.topics:
        if topic not in TOPICS:
            made.error(f"there is no topic {topic!r}; there are {', '.join(TOPICS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, too
    with work_folder(given.folder) as folder, postgres_server(folder) as postgres:
        if postgres is None:
            say("there is no PostgreSQL: its figures are left out (OUTBOX_TEST_POSTGRES can name a server)")
        where = machine(arguments) | {"command": " ".join(["bin/check --torture", *arguments])}
        cruelty = asked_for(given, folder, postgres)
        figures = list(measured(cruelty, given.topics or TOPICS))
    print(*(f"{name}: {value}" for name, value in where.items()), sep="  ")
    print(*lines(figures), sep="\n")
    if given.json:
        given.json.write_text(as_json(figures, where), encoding="utf-8")
        say(f"kept in {given.json}")
    missed = [each for each in figures if each.holds is False]
    if missed:
        say(f"{len(missed)} of {sum(each.holds is not None for each in figures)} promises are BROKEN")
    return BROKEN if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
