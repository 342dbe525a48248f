"""`bin/check --torture`: its topics, its figures and its exit status."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.figures import Figure, Unmeasurable
from tests.test_bin import installed
from tests.torture import __main__ as torture
from tests.torture.cruelty import Cruelty, none_of

ROOT = Path(__file__).parent.parent.parent


def test_check_passes_on_what_torture_is_told(tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    shutil.copytree(ROOT / "bin", checkout / "bin", ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    installed(checkout, "all", "dev")
    done = subprocess.run(
        [checkout / "bin" / "check", "--torture", "soak", "a b"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.returncode) == (f"python in {tmp_path}:\n[-m][tests.torture][soak][a b]", 7)


def test_every_topic_is_a_module_that_says_what_it_does() -> None:
    for topic in torture.TOPICS:
        assert torture.what_it_does(topic)
        assert callable(torture.measurement(topic))


def test_an_unknown_topic_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        torture.main(["tickling"])
    assert ended.value.code == 2
    assert "matrix" in capsys.readouterr().err


def refuse(error: Exception) -> Iterator[Figure]:
    raise error


def test_a_broken_promise_is_an_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def keeps(cruelty: Cruelty) -> Iterator[Figure]:
        yield none_of("matrix", "lost", 0)

    def breaks(cruelty: Cruelty) -> Iterator[Figure]:
        yield none_of("soak", "lost", 1)

    def cannot(cruelty: Cruelty) -> Iterator[Figure]:
        yield from refuse(Unmeasurable("no"))

    def fails(cruelty: Cruelty) -> Iterator[Figure]:
        yield from refuse(TimeoutError("it does not come to rest"))

    kept = tmp_path / "figures.json"
    monkeypatch.setenv("OUTBOX_TEST_POSTGRES", "postgresql://nowhere/")
    where = ["--folder", str(tmp_path / "folder"), "--json", str(kept)]

    def run(topics: dict[str, object], *arguments: str) -> int:
        monkeypatch.setattr(torture, "measurement", lambda topic: topics[topic])
        return torture.main([*arguments, *where])

    assert run({"matrix": keeps, "recovery": cannot}, "matrix", "recovery") == 0
    assert run({"matrix": keeps, "soak": breaks}, "matrix", "soak") == torture.BROKEN
    said = capsys.readouterr()
    assert "recovery IS NOT TRIED: no" in said.err
    assert "1 of 2 promises are BROKEN" in said.err
    assert [each["holds"] for each in json.loads(kept.read_text())["figures"]] == [True, False]
    assert run({"soak": fails}, "soak") == torture.BROKEN
    assert "it does not come to rest" in capsys.readouterr().out
