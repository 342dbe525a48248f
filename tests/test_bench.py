"""The benchmark's own parts: what it says of a figure, what it keeps, and that it measures. No figure is judged."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import smtplib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.bench import __main__ as bench_command
from tests.bench import plot
from tests.bench.figures import Bench, Figure, Unmeasurable, as_json, at_least, at_most, from_json, lines, shown
from tests.bench.ground import Ground, Sink, fresh_postgres, fresh_sqlite
from tests.bench.peers import ratios
from tests.bench.process import ROOT, Process, free_port, python, until_it_answers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell what a process has used")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    tmp_path.chmod(0o755)
    return Bench(tmp_path, print, quick=True)


# -- figures


def test_a_figure_that_misses_its_aim_says_so() -> None:
    reached, missed = at_least("drain", "rate", 10, "mails/s", 10), at_most("drain", "CPU", 101, "µs", 100)

    assert (reached.aim, reached.holds, missed.aim, missed.holds) == ("≥ 10 mails/s", True, "≤ 100 µs", False)
    said = list(lines([reached, missed, Figure("drain", "other", 1, "s")]))
    assert ["MISSED" in line for line in said] == [False, True, False]
    assert [" ok" in line for line in said] == [True, False, False]


def test_ratios_come_first_in_the_order_in_which_they_were_measured() -> None:
    said = lines([Figure("b", "rate", 1, "mails/s"), Figure("b", "second", 2, "×"), Figure("a", "third", 3, "×")])
    assert [line.split()[1] for line in said] == ["second", "third", "rate"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (0.5, "0.500"), (7.126, "7.13"), (99.96, "100.0"), (12345.6, "12,346")],
)
def test_a_value_is_shown_with_three_digits(value: float, text: str) -> None:
    assert shown(value) == text


def test_figures_are_kept_with_where_they_were_measured() -> None:
    figures = [at_least("drain", "rate", 12.5, "×", 10, "beside x"), Figure("start", "help", 0.1, "s")]
    kept = as_json(figures, {"cores": 2, "command": "bin/bench"})

    assert from_json(kept) == (figures, {"cores": 2, "command": "bin/bench"})
    assert json.loads(kept)["figures"][0]["aim"] == "≥ 10 ×"


def test_the_ratios_name_the_best_of_the_others() -> None:
    rates = {"django-post_office": 1000, "huey, tuned": 2000, "Postfix": 1250, "Postfix, tuned": 1600}
    found = [(each.name, each.value, each.holds, each.note) for each in ratios(10_000, rates)]

    assert found[:3] == [
        ("as fast as django-post_office", 10, True, ""),
        ("as fast as Postfix", 8, False, ""),
        ("as fast as the best tuned peer", 5, True, "huey, tuned"),
    ]
    assert [name for name, *_ in found[3:]] == ["as fast as huey, tuned", "as fast as Postfix, tuned"]


def test_peers_that_could_not_be_measured_have_no_ratio() -> None:
    assert list(ratios(10_000, {})) == []


# -- the plot


def test_the_plot_has_a_bar_for_each_program_the_fastest_first() -> None:
    figures = [
        Figure("peers", "huey <tuned>", 1800, "mails/s"),
        Figure("peers", "Outbox", 9000, "mails/s"),
        Figure("peers", "as fast as huey", 5, "×"),
        Figure("drain", "rate", 9000, "mails/s"),
    ]
    drawn = ElementTree.fromstring(plot.svg(figures, {"cores": 2, "on": "2026-01-01"}))
    bars = [each for each in drawn.iter() if each.get("class") in ("ours", "other")]
    labels = [each.text for each in drawn.iter() if each.get("class") == "label"]

    assert labels == ["Outbox", "huey <tuned>"]
    assert [each.get("class") for each in bars] == ["ours", "other"]
    assert float(bars[0].attrib["width"]) == pytest.approx(5 * float(bars[1].attrib["width"]), rel=0.01)


def test_a_plot_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="--peers"):
        plot.svg([], {})


# -- what a measurement stands on


def test_a_process_tells_what_it_used(tmp_path: Path) -> None:
    with Process(
        [sys.executable, "-c", "print('hello'); b = bytearray(30_000_000); sum(range(10**6))"], tmp_path
    ) as it:
        used = it.wait(60)

    assert it.output == "hello\n"
    assert used.cpu > 0
    assert used.rss > 30_000_000


def test_a_process_that_fails_is_shown_with_what_it_said(tmp_path: Path) -> None:
    with (
        Process([sys.executable, "-c", "import sys; sys.exit('no luck')"], tmp_path) as it,
        pytest.raises(RuntimeError, match=r"status 1: no luck"),
    ):
        it.wait(60)


def test_a_process_is_ended_with_its_block(tmp_path: Path) -> None:
    with Process([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path) as it:
        assert it.rss > 0
    assert it.status is not None
    assert it.status < 0


@pytest.mark.parametrize("delay", [0.0, 0.001])
def test_the_relay_in_python_takes_mail_and_counts_it(bench: Bench, delay: float) -> None:
    port = free_port()
    with Process(python("tests.bench.relay", str(port), f"{delay * 1000:g}"), bench.folder) as relay:
        until_it_answers(port, relay)
        with smtplib.SMTP("127.0.0.1", port) as client:
            for body in ("", ".\r\n.a line\r\n", "x" * 100_000):
                assert client.sendmail("a@example.com", ["b@example.com"], body) == {}
            assert client.has_extn("pipelining")


def test_the_relay_in_python_answers_commands_that_come_at_once(bench: Bench) -> None:
    port = free_port()

    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        await reader.readuntil(b"354 End data with <CR><LF>.<CR><LF>\r\n")
        writer.write(b"Subject: x\r\n\r\n..\r\n.")
        await writer.drain()
        writer.write(b"\r\nQUIT\r\n")
        rest = await reader.read()
        writer.close()
        return rest

    with Process(python("tests.bench.relay", str(port), "0"), bench.folder) as relay:
        until_it_answers(port, relay)
        assert re.findall(rb"(?m)^\d+", asyncio.run(talk())) == [b"250", b"221"]


def test_a_backlog_is_drained_and_measured(bench: Bench) -> None:
    with fresh_sqlite(bench) as ground, Sink(bench, counted=True) as sink:
        _drain(ground, sink)
        assert sink.taken == 40
    assert not list(bench.folder.glob("sqlite-*"))


def test_a_backlog_is_drained_and_measured_over_postgres(bench: Bench, postgres_server: str) -> None:
    with (
        fresh_postgres(Bench(bench.folder, print, True, postgres_server)) as ground,
        Sink(bench, counted=True) as sink,
    ):
        _drain(ground, sink)


def _drain(ground: Ground, sink: Sink) -> None:
    ground.register(sink.port, connections=4)
    ground.fill(40)
    drained = ground.drain(processes=2)

    assert ground.states() == {"sent": 40}
    assert drained.mails == 40
    assert 0 < drained.seconds <= drained.usage.seconds
    assert drained.rate == 40 / drained.seconds
    assert drained.usage.cpu > 0
    assert drained.usage.rss > 10_000_000


def test_without_postgresql_its_database_is_unmeasurable(bench: Bench) -> None:
    with pytest.raises(Unmeasurable, match="no PostgreSQL"), fresh_postgres(bench):
        pass


# -- the command


def test_the_benchmark_runs_where_you_are_with_the_modules_of_its_checkout(tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    shutil.copytree(ROOT / "bin", checkout / "bin", ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$PWD $PYTHONPATH $@"\n')
    python.chmod(0o755)
    (checkout / ".venv" / "outbox-dev.stamp").write_text(f"{checkout}\n[project]\nname = 'x'\n")
    done = subprocess.run(
        [checkout / "bin" / "bench", "--only", "a b"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == (f"{tmp_path} {checkout} -m tests.bench --only a b\n", "")


def test_every_topic_is_a_module_that_says_what_it_measures() -> None:
    for topic in [*bench_command.TOPICS, bench_command.PEERS]:
        assert bench_command.what_it_measures(topic)
        assert callable(bench_command.measurement(topic))


def test_an_unknown_topic_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench_command.main(["--only", "speed"])
    assert ended.value.code == 2
    assert "'drain'" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only /proc tells what a running process uses")
def test_a_quick_run_of_one_topic_prints_and_keeps_its_figures(tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    command = python("tests.bench", "--quick", "--only", "memory", "--json", str(kept), "--folder", str(tmp_path))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    figures, machine = from_json(kept.read_text(encoding="utf-8"))
    assert {each.topic for each in figures} == {"memory"}
    assert str(machine["command"]).startswith("bin/bench --quick --only memory")
    assert all(any(each.name in line for line in done.stdout.splitlines()) for each in figures)
    assert "bench: memory …" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["figures.json"]
