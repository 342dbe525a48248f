"""The programs sqlite3 and psql as drivers: a script with the parameters written into it, one for all cases."""

from __future__ import annotations

import csv
import io
import re
import subprocess
from itertools import pairwise
from typing import Any

from tests.conformance.cases import Outcome, Step

END = "--- end of step"
NULL = "--- null"


def sqlite3(program: str, path: str, steps: list[Step]) -> list[Outcome]:
    """Errors go to another stream than rows; they name the line of the script where their statement begins."""
    script = [".mode csv", ".headers off", f".nullvalue '{NULL}'", ".timeout 5000"]
    begins = []
    for step in steps:
        begins.append(sum(line.count("\n") + 1 for line in script) + 1)
        script += [_statement(step, "BEGIN IMMEDIATE", _sqlite), f".print '{END}'"]
    done = _run([program, "-batch", path], "\n".join(script) + "\n")
    errors = {int(line): words for line, words in re.findall(r"near line (\d+): (.*)", done.stderr)}
    outcomes = []
    for begin, printed in zip(begins, done.stdout.split(f"{END}\n"), strict=False):
        outcomes.append({"refused": errors[begin]} if begin in errors else {"rows": _rows(printed)})
    assert errors.keys() <= set(begins), done.stderr
    return outcomes


def psql(program: str, url: str, steps: list[Step]) -> list[Outcome]:
    """psql keeps the last error in a variable."""
    script = [r"\pset format csv", rf"\pset null '{NULL}'", r"\pset tuples_only on", rf"\echo '{END}'"]
    for step in steps:
        script += [_statement(step, "BEGIN", _postgres), rf"\echo '{END}' :ERROR :LAST_ERROR_MESSAGE"]
    done = _run([program, "--no-psqlrc", "--quiet", "--no-password", url], "\n".join(script) + "\n")
    parts = done.stdout.split(END)[1:]
    outcomes: list[Outcome] = []
    for rows, ended in pairwise(parts):
        failed, _, words = ended.partition("\n")[0].strip().partition(" ")
        printed = rows.partition("\n")[2]
        outcomes.append({"refused": words} if failed == "true" else {"rows": _rows(printed)})
    return outcomes


def _run(command: list[str], script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=script, capture_output=True, encoding="utf-8", timeout=60, check=False)


def _rows(printed: str) -> list[list[str | None]]:
    return [
        [None if cell == NULL else cell for cell in row] for row in csv.reader(io.StringIO(printed, newline="")) if row
    ]


def _statement(step: Step, begin: str, literal: Any) -> str:
    if isinstance(step, str):
        return f"{begin if step == 'begin' else step.upper()};"
    values = iter(step["with"])
    return re.sub(r"\?", lambda _: literal(next(values)), step["run"]) + ";"


def _sqlite(value: Any) -> str:
    return f"x'{value['hex']}'" if isinstance(value, dict) else _plain(value)


def _postgres(value: Any) -> str:
    return rf"'\x{value['hex']}'::bytea" if isinstance(value, dict) else _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
