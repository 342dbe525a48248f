"""`bin/check --coverage` and `bin/check --mutate`: see the package."""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.conftest import _embedded_server
from tests.mutants import covered
from tests.mutants.covered import Covered
from tests.mutants.mutations import Mutation, mutations
from tests.mutants.recording import PACKAGES
from tests.mutants.workshop import ROOT, Seen, Verdict, Workshop

GOAL = 0.85


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    complete = options.record or not covered.is_recorded()
    if not options.as_recorded or complete:
        status = covered.record() if complete else covered.refresh()
        if status != 0:
            print("mutants: not every test passes: what those notice does not count", file=sys.stderr)
    if options.coverage:
        return _coverage()
    return _mutate(options)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--coverage", action="store_true", help="branch coverage of core, store and smtp")
    parser.add_argument("--mutate", action="store_true", help="mutation testing of them (minutes to hours)")
    parser.add_argument("--sample", type=int, metavar="N", help="only so many mutants, chosen at random")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the choice (default 1)")
    parser.add_argument("--only", default="", metavar="PATH", help="only modules whose path begins so")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="mutants tested at the same time (default 2)")
    parser.add_argument("--record", action="store_true", help="record once more which test runs which line")
    parser.add_argument("--as-recorded", action="store_true", help="do not record what has changed of the tests")
    return parser.parse_args(arguments)


def _coverage() -> int:
    percent = covered.report()
    print(f"branch coverage of core, store and smtp: {percent:.2f} %")
    return 0 if percent >= 100 else 1


def _mutate(options: argparse.Namespace) -> int:
    every = [
        each
        for module in covered.modules()
        if module.startswith(options.only)
        for each in mutations(module, (ROOT / module).read_bytes())
    ]
    chosen = random.Random(options.seed).sample(every, options.sample) if options.sample else every
    print(f"{len(every)} mutants, {len(chosen)} of them tested (seed {options.seed})", flush=True)
    began = time.monotonic()
    verdicts = test_all(chosen, Covered(), options.jobs)
    survivors = [each for each in chosen if not verdicts[each].killed]
    for each in survivors:
        print(f"SURVIVED {each}")
    killed = len(chosen) - len(survivors)
    score, (low, high) = killed / len(chosen), interval(killed, len(chosen))
    for package in PACKAGES:
        own = [each for each in chosen if each.module.startswith(package)]
        print(f"{package}: {sum(verdicts[each].killed for each in own)} of {len(own)} killed")
    print(
        f"killed {killed} of {len(chosen)}: {score:.1%} (95 % confidence: {low:.1%} to {high:.1%}), "
        f"{time.monotonic() - began:.0f} s"
    )
    return 0 if score >= GOAL else 1


def test_all(chosen: Sequence[Mutation], known: Covered, jobs: int) -> dict[Mutation, Verdict]:
    """Each in a workshop that is free, at a server of PostgreSQL for all of them."""
    server = _embedded_server()
    free: SimpleQueue[Workshop] = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="outbox-mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        try:
            for number in range(jobs):
                free.put(ready(Workshop(Path(folder) / str(number), server.get_uri())))
            asked = {each: list(known.asked(each)) for each in chosen}

            def test(mutation: Mutation) -> Verdict:
                workshop = free.get()
                began = time.monotonic()
                try:
                    verdict = workshop.test(mutation, asked[mutation])
                except RuntimeError as error:  # pytest itself falls over what the mutant does: that is noticed
                    verdict = Verdict(True, str(error).splitlines()[-1])
                finally:
                    free.put(workshop)
                word = f"killed by {verdict.by}" if verdict.killed else "SURVIVED"
                print(f"{time.monotonic() - began:5.1f} s  {mutation}: {word}", flush=True)
                return verdict

            return dict(zip(chosen, pool.map(test, chosen), strict=True))
        finally:
            for _ in range(jobs):
                free.get().close()
            server.cleanup()


def ready(workshop: Workshop) -> Workshop:
    """It finds nothing wrong where nothing is wrong."""
    verdict = workshop.ask(Seen(["tests/core/test_units.py"], 120))
    if verdict.killed:
        raise RuntimeError(f"tests fail that pass elsewhere: {verdict.by}\n{workshop.output()}")
    return workshop


def interval(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Of a proportion, after Wilson."""
    share, square = hits / count, z * z / count
    middle, half = share + square / 2, z * math.sqrt((share * (1 - share) + square / 4) / count)
    return (middle - half) / (1 + square), (middle + half) / (1 + square)


if __name__ == "__main__":
    sys.exit(main())
