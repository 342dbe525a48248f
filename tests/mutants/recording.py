"""Which test runs which line of core, store and smtp, and how long each test takes.

A plugin of pytest (`-p tests.mutants.recording`), and what every process that a test starts begins with (`covered.py`
lays a `sitecustomize.py` for that). Written to the folder MUTANTS_RECORDING: `.coverage.*` (coverage.py, branches, one
context a test; threads included) and `seconds.*.json` of the tests that pass, by every process that runs tests. It
imports nothing of the program, so that what is executed while modules are imported is measured as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from time import perf_counter

import coverage

PACKAGES = ("outbox/core", "outbox/store", "outbox/smtp")
FOLDER = "MUTANTS_RECORDING"

_SECONDS: dict[str, float] = {}


def start(context: str | None = None) -> coverage.Coverage:
    """Measure this process, from now to its end."""
    started = coverage.Coverage(
        data_file=str(Path(os.environ[FOLDER]) / ".coverage"),
        data_suffix=True,
        config_file=False,
        branch=True,
        include=[f"{package}/*" for package in PACKAGES],
        context=context,
        auto_data=True,
    )
    started.start()
    return started


def start_program() -> None:
    """Measure a process that a test has started, in the name of that test."""
    test, _, phase = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")
    if phase:
        start(test)


if FOLDER in os.environ and "PYTEST_XDIST_WORKER" in os.environ and "PYTEST_CURRENT_TEST" not in os.environ:
    import pytest

    _COVERAGE = start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
        _COVERAGE.switch_context(item.nodeid)
        _SECONDS[item.nodeid] = -perf_counter()
        outcome = yield
        if item.nodeid in _SECONDS:
            _SECONDS[item.nodeid] += perf_counter()
        _COVERAGE.switch_context("")
        return outcome

    def pytest_runtest_logreport(report: pytest.TestReport) -> None:
        if not report.passed:
            _SECONDS.pop(report.nodeid, None)

    def pytest_unconfigure() -> None:
        written = Path(os.environ[FOLDER]) / f"seconds.{os.getpid()}.json"
        written.write_text(json.dumps(_SECONDS), encoding="utf-8")
