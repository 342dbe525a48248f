"""What `pip install "mail-outbox[…]"` brings, as docs/doors.md says it."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from tests.running import ROOT

PAGE = (ROOT / "docs" / "doors.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def extras() -> dict[str, list[str]]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(project["project"]["optional-dependencies"])


def test_every_extra_is_in_the_table_with_what_it_brings(extras: dict[str, list[str]]) -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.+?) \|", PAGE, re.MULTILINE)
    said = {name: brings for names, brings in rows for name in re.findall(r"\w+", names)}
    assert said.keys() == extras.keys() - {"all", "dev"}
    for name, brings in said.items():
        wanted = {re.split(r"[\[>=;]", each)[0] for each in extras[name]}
        assert all(each in brings.lower() for each in wanted), (name, wanted)


def test_all_is_what_a_runner_can_use_and_no_framework(extras: dict[str, list[str]]) -> None:
    (everything,) = extras["all"]
    inside = set(re.findall(r"\w+", everything.partition("[")[2]))
    said = re.search(r"`all` is (.+?):", PAGE, re.DOTALL)
    assert said is not None
    assert set(re.findall(r"`(\w+)`", said[1])) == inside
    assert inside == extras.keys() - {"all", "dev", "django", "flask", "fastapi", "sqlite", "uvloop"}
