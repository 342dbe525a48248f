"""Postfix's smtp-sink: another server than ours, and one that takes mail as fast as it comes."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.mails import digests_of, insert_assorted, sent_digests, without_added
from tests.peers.programs import answers, free_port, program
from tests.running import Program, Site, eventually

MAILS = 1500


def smtp_sink(port: int, *options: str, folder: Path) -> Program:
    user = ["-u", "nobody"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return Program([program("smtp-sink"), *user, *options, f"127.0.0.1:{port}", "128"], folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Where smtp-sink, which gives up root, may write."""
    folder = Path(tempfile.mkdtemp(prefix="outbox-sink-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_smtp_sink_gets_the_same_bytes(sqlite_site: Site, open_folder: Path) -> None:
    site, port = sqlite_site, free_port()
    with smtp_sink(port, "-d", str(open_folder / "mail."), folder=open_folder):
        eventually(lambda: answers(port), "smtp-sink listens")
        site.register(port)
        numbers = insert_assorted(site)
        with site.run("-q", "--until-empty") as runner:
            assert runner.wait() == 0
        assert site.states() == {"sent": len(numbers)}
        # It ends each with an empty line of its own.
        stored = [without_added(file.read_bytes().removesuffix(b"\n")) for file in open_folder.glob("mail.*")]
    assert digests_of(stored) == sent_digests(site)


def test_a_backlog_goes_out_at_a_good_rate(site: Site, tmp_path: Path) -> None:
    port = free_port()
    with smtp_sink(port, folder=tmp_path):
        eventually(lambda: answers(port), "smtp-sink listens")
        site.register(port, connections=10)
        site.insert(MAILS, text_body="Thanks for your order.\n" * 90)
        with site.run("-q") as runner:
            eventually(lambda: site.states().get("sent"), "the first is sent")
            began, before = time.monotonic(), site.states()["sent"]
            site.until(60, sent=MAILS)
            rate = (MAILS - before) / (time.monotonic() - began)
            runner.stop()
            assert runner.wait() == 0
        print(f"{rate:.0f} mails of 2 kB a second")
        assert site.attempts() == {"accepted": MAILS}
        assert rate > 100, "far below what it should be, but this machine may be busy"
