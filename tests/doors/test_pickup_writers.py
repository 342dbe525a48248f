"""Programs that write into pickup folders, as they do it, and a real runner: each of their files ends as it should."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from outbox.store.database import connect
from tests.relay import Received, Relay
from tests.running import Runner, Site, eventually

SHOP = "From: Shop <shop@example.com>\r\nTo: ann@example.net\r\n"


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay({"rcpt:gone@example.net": "550 5.1.1 no such user"}) as running:
        yield running


class Drop:
    """A pickup folder of a site."""

    def __init__(self, site: Site, root: Path, *options: str) -> None:
        self.site = site
        self.path, self.sent, self.bad = root / "in", root / "sent", root / "bad"
        paths = (str(self.path), "--sentmail", str(self.sent), "--badmail", str(self.bad))
        code, words = site.outbox("pickup", "add", "in", *paths, "--poll", "1s", "--settle", "1s", *options)
        assert code == 0, words

    def ended(self, count: int) -> None:
        done = "SELECT count(*) FROM outbox_pickup_file WHERE done_at IS NOT NULL"
        eventually(lambda: self.site.query(done) == [(count,)], f"{count} files are done")

    def left(self) -> list[str]:
        return sorted(each.name for each in self.path.iterdir() if each.name != ".work")

    def badmail(self) -> list[str]:
        return sorted(each.name for each in self.bad.iterdir())


def by_subject(relay: Relay) -> dict[str, Received]:
    return {each.content.partition(b"Subject: ")[2].split()[0].decode(): each for each in relay.messages}


def stop(runner: Runner) -> None:
    runner.stop()
    assert runner.wait() == 0
    assert "Traceback" not in runner.output


def test_net_iis_and_a_slow_writer(site: Site, tmp_path: Path, relay: Relay) -> None:
    site.register(relay.port)
    drop = Drop(site, tmp_path)
    with site.run() as runner:
        runner.says("in: watching")
        # .NET's SmtpClient: FileMode.CreateNew, straight in the folder, X- fields first, open while it writes.
        net = os.open(drop.path / "8d1c2f.eml", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(net, b"X-Sender: shop@example.com\r\nX-Receiver: x@example.net\r\nX-Receiver: bcc@example.net\r\n")
        # A slow one: it flushes its header, and goes on when the file has been seen.
        slow = (drop.path / "slow.eml").open("wb", buffering=0)
        slow.write(SHOP.encode())
        # IIS: composed elsewhere on the volume, moved in.
        composed = tmp_path / "iis.eml"
        composed.write_bytes(
            b"x-sender: shop@example.com\nx-receiver: iis@example.net\nFrom: shop@example.com\n"
            b"To: other@example.net\nSubject: iis\n\nThanks\n"
        )
        composed.rename(drop.path / "iis.eml")
        drop.ended(1)  # by now the others have settled, if nobody had looked for the end of their headers
        assert drop.left() == ["8d1c2f.eml", "slow.eml"]
        os.write(net, f"MIME-Version: 1.0\r\n{SHOP}Subject: net\r\n\r\nThanks\r\n".encode())
        os.close(net)
        slow.write(b"Subject: slow\r\n\r\n" + b"line\r\n" * 1000)
        slow.close()
        drop.ended(3)
        stop(runner)
    found = by_subject(relay)
    assert {name: sorted(each.recipients) for name, each in found.items()} == {
        "net": ["bcc@example.net", "x@example.net"],
        "iis": ["iis@example.net"],
        "slow": ["ann@example.net"],
    }
    assert b"bcc@example.net" not in found["net"].content
    assert found["slow"].content.count(b"line") == 1000
    assert (drop.left(), drop.badmail()) == ([], [])
    assert len(list(drop.sent.iterdir())) == 3


REPLAY = (
    "X-Sender: <shop@example.com> BODY=7bit RET=HDRS ENVID=a1\r\nX-Receiver: <ann@example.net> NOTIFY=FAILURE\r\n"
    "X-Receiver: <gone@example.net> NOTIFY=FAILURE ORcpt=rfc822;gone@example.net\r\nX-CreatedBy: MSExchange15\r\n"
    "X-HeloDomain: inside.local\r\nX-Source: SMTP:Default\r\nX-EndOfInjectedXHeaders: 1\r\n"
)


def test_exchange_replay(site: Site, tmp_path: Path, relay: Relay) -> None:
    site.register(relay.port)
    drop = Drop(site, tmp_path, "--mode", "replay")
    (drop.path / "again.eml").write_bytes(f"{REPLAY}{SHOP}Subject: replay\r\n\r\nThanks\r\n".encode())
    (drop.path / "plain.eml").write_bytes(f"{SHOP}Subject: plain\r\n\r\nThanks\r\n".encode())
    with site.run() as runner:
        drop.ended(2)
        stop(runner)
    (mail,) = relay.messages
    assert mail.recipients == ("ann@example.net",)
    assert not any(word in mail.content for word in (b"X-CreatedBy", b"inside.local", b"X-Source", b"X-Receiver"))
    assert site.query("SELECT dsn_ret, dsn_envid, dsn_notify FROM outbox") == [("hdrs", "a1", "failure")]
    assert drop.badmail() == ["again.eml.bad.json", "plain.eml.bad", "plain.eml.bad.json"]
    told = json.loads((drop.bad / "again.eml.bad.json").read_text())
    assert [each["address"] for each in told["failed"]] == ["gone@example.net"]
    assert told["accepted"] == ["ann@example.net"]

    relay.script.clear()  # now there is such a user
    code, words = site.outbox("pickup", "resubmit", str(drop.bad / "again.eml.bad.json"), "--only-failed")
    assert code == 0, words
    with site.run() as runner:
        drop.ended(3)
        stop(runner)
    assert [each.recipients for each in relay.messages] == [("ann@example.net",), ("gone@example.net",)]
    assert drop.badmail() == ["plain.eml.bad", "plain.eml.bad.json"]


def test_a_file_from_another_volume_and_archives_on_it(sqlite_site: Site, tmp_path: Path, relay: Relay) -> None:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second volume here")
    sqlite_site.register(relay.port)
    with tempfile.TemporaryDirectory(dir=shared) as other:
        drop = Drop(sqlite_site, tmp_path)
        sqlite_site.outbox("pickup", "remove", "in")
        drop = Drop(sqlite_site, Path(other))  # a whole folder on a tmpfs
        sqlite_site.outbox("pickup", "remove", "in")
        paths = ("--sentmail", str(drop.sent), "--badmail", str(drop.bad), "--settle", "0s")
        assert sqlite_site.outbox("pickup", "add", "in", str(tmp_path / "in"), *paths)[0] == 0
        drop.path = tmp_path / "in"
        content = f"{SHOP}Subject: far\r\n\r\nThanks\r\n".encode()
        (drop.path / "far.eml").write_bytes(content)
        (drop.path / "bad.eml").write_bytes(b"no mail\n\nno\n")
        secret = tmp_path / "secret"
        secret.write_bytes(b"secret")
        (drop.path / "link.eml").symlink_to(secret)
        os.mkfifo(drop.path / "pipe.eml")
        with sqlite_site.run() as runner:
            drop.ended(4)
            stop(runner)
        (sent,) = drop.sent.iterdir()
        assert sent.read_bytes() == content
        names = ["bad.eml.bad", "link.eml.bad", "pipe.eml.bad"]
        assert drop.badmail() == sorted([*names, *(f"{each}.json" for each in names)])
        assert (drop.bad / "link.eml.bad").is_symlink()
        assert (drop.bad / "pipe.eml.bad").is_file()
        assert list((drop.path / ".work").iterdir()) == [drop.path / ".work" / ".lock"]


def test_a_new_file_wakes_the_runner(sqlite_site: Site, tmp_path: Path, relay: Relay) -> None:
    """Its rhythm alone would find it in an hour."""
    pytest.importorskip("watchfiles")
    sqlite_site.register(relay.port)
    drop = Drop(sqlite_site, tmp_path, "--poll", "1h", "--settle", "0s")
    with sqlite_site.run() as runner:
        runner.says("in: watching")
        for number in range(3):
            (drop.path / f"{number}.tmp").write_bytes(f"{SHOP}Subject: n{number}\r\n\r\nThanks\r\n".encode())
            eventually(lambda: _again(drop.path / "0.tmp"), "the folder is watched") if not number else None
            (drop.path / f"{number}.tmp").rename(drop.path / f"{number}.eml")
            relay.wait(number + 1)
        stop(runner)


def _again(path: Path) -> bool:
    """Watching has begun some time after the runner says so: it is told again, until a scan has made `.work`."""
    path.touch()
    return (path.parent / ".work").is_dir()


def test_a_runner_ends_while_a_scan_waits_for_the_database(sqlite_site: Site, tmp_path: Path, relay: Relay) -> None:
    sqlite_site.register(relay.port)
    drop = Drop(sqlite_site, tmp_path, "--settle", "0s")
    with sqlite_site.run(run_grace="1s") as runner:
        runner.says("in: watching")
        lock = connect(sqlite_site.url)
        lock.execute_sql("BEGIN IMMEDIATE")
        (drop.path / "order.eml").write_bytes(f"{SHOP}Subject: order\r\n\r\nThanks\r\n".encode())
        eventually(lambda: drop.left() == [], "the scan has come to the database")
        runner.stop()
        assert runner.wait() in (0, 1)
        lock.execute_sql("ROLLBACK")
        lock.close()
    with sqlite_site.run() as runner:
        drop.ended(1)
        stop(runner)
    assert len(relay.messages) == 1
