"""No point is missing from the crash matrix: the durable steps, read out of the code, are those of the stories."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import get_type_hints

import pytest

import outbox
from outbox.core.outcome import Stage
from outbox.store import Store
from tests.torture.points import ELSEWHERE, SAME, STORIES, cells
from tests.torture.watched import SIDES, WRITES

RUNNER = Path(outbox.__file__).parent / "runner"
READS = {
    *(
        "absent",
        "changes",
        "close",
        "content",
        "contents",
        "expirable",
        "held",
        "lanes",
        "is_prompt",
        "log_has_grown",
        "look",
        "my_claims",
        "now",
    ),
    *("open", "overdue", "reading", "sending", "single", "suspects", "transaction", "waiting"),
}
NOT_SAID = {Stage.RENDER, Stage.POLICY, Stage.LOCAL, Stage.DNS, Stage.CONNECT, Stage.BANNER, Stage.TLS}
"""Ours, or nothing is said by us in it."""

POINTS = {name for story in STORIES for name, _ in story.points}


def test_every_verb_of_the_store_reads_or_is_in_the_matrix() -> None:
    verbs = {name for name, _ in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")}

    assert verbs - READS == set(WRITES), "a verb that is neither known to read nor to write"
    assert {f"{verb}.{side}" for verb in WRITES for side in SIDES} - POINTS == set()


def test_what_opens_a_transaction_is_watched() -> None:
    hints = {name: get_type_hints(verb).get("return") for name, verb in inspect.getmembers(Store, inspect.isfunction)}
    opening = {name for name, result in hints.items() if result == AbstractContextManager[None]}

    assert opening == {"transaction", "single", "reading"}


def upkeep_of_the_runner() -> Iterator[str]:
    """``MODULE.FUNCTION`` of everything that goes through `Clerk.upkeep`, as `watched.name_of` names it."""
    for path in sorted(RUNNER.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for call in ast.walk(function):
                    if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("clerk.upkeep"):
                        yield named(path.stem, function.name, call.args[0])


def named(module: str, home: str, verb: ast.expr) -> str:
    while isinstance(verb, ast.Call) and ast.unparse(verb.func) == "partial":
        verb = verb.args[0]
    if isinstance(verb, ast.Lambda):
        return f"{module}.{home.lstrip('_')}"
    *_, where, what = ["", module, *ast.unparse(verb).split(".")]
    return f"{module if where == 'self' else where}.{what.lstrip('_')}"


def test_every_other_transaction_of_a_runner_is_in_the_matrix_or_changes_no_message() -> None:
    found = set(upkeep_of_the_runner())
    ours = {SAME.get(each, each) for each in found} - ELSEWHERE.keys()

    assert len(found) > 15, "they are found"
    assert SAME.keys() <= found, "what is no longer there"
    assert {f"{each}.{side}" for each in ours for side in SIDES} - POINTS == set()


def test_nobody_else_writes() -> None:
    """A transaction of a runner goes through the clerk, and a clerk's requests are these four and reads."""
    asked = {
        node.func.attr
        for path in RUNNER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value).endswith("clerk")
    }

    assert {"mark", "settle", "claim", "upkeep", "read", "content"} <= asked
    assert asked & {"transaction", "write", "execute", "db"} == set()


def test_every_stage_of_the_dialogue_in_which_we_speak_is_in_the_matrix() -> None:
    spoken = set(Stage) - NOT_SAID

    assert {f"say.{stage}.{side}" for stage in spoken for side in ("before", "after")} - POINTS == set()
    assert {f"heard.{stage}" for stage in spoken - {Stage.BODY}} - POINTS == set()
    assert {"connected", "heard.banner"} <= POINTS


def test_the_lock_and_the_rescue_file_are_in_the_matrix() -> None:
    seams = ["presence.take", "presence.release", "rescue.save", "rescue.take", "rescue.discard"]

    assert {f"{each}.{side}" for each in seams for side in ("before", "after")} - POINTS == set()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_each_point_meets_each_policy_and_each_way_to_die(kind: str) -> None:
    for act in ("kill", "stop"):
        met = {(*each.point, policy) for each in cells(kind, act) for policy in each.policies}
        points = {point for story in STORIES if story.only in ("", kind) for point in story.points}
        assert met == {(*point, policy) for point in points for policy in ("retry", "hold")}
