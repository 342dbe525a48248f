"""A real Postfix on loopback takes what the runner sends, and stores the same bytes.

It is an instance of the test's own, beside whatever the machine has; only root can start one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.mails import digests_of, free_port, insert_assorted, sent_digests
from tests.running import Site, eventually

MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = relay.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access inline:{{nobody@example.net=REJECT}}, permit
message_size_limit = 52428800
virtual_mailbox_limit = 52428800
virtual_mailbox_domains = example.net
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
"""
MASTER = """\
{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True)
class Postfix:
    port: int
    folder: Path

    @property
    def stored(self) -> list[bytes]:
        """What has been delivered, into one maildir for everybody."""
        return [file.read_bytes() for file in (self.folder / "mail" / "all" / "new").glob("*")]


@pytest.fixture(scope="module")
def postfix() -> Iterator[Postfix]:
    program = shutil.which("postfix") or shutil.which("postfix", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("A REAL RELAY IS NOT TESTED: POSTFIX IS NOT INSTALLED")
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("A REAL RELAY IS NOT TESTED: ONLY ROOT CAN START A POSTFIX")
    folder = Path(tempfile.mkdtemp(prefix="outbox-postfix-"))
    folder.chmod(0o755)  # its daemons run as users of their own
    port = free_port()
    owner = subprocess.run(["id", "-u", "postfix"], check=True, capture_output=True, text=True).stdout.strip()
    group = subprocess.run(["id", "-g", "postfix"], check=True, capture_output=True, text=True).stdout.strip()
    for name in ("etc", "queue", "data", "mail"):
        (folder / name).mkdir()
    for name in ("data", "mail"):
        os.chown(folder / name, int(owner), int(group))
    (folder / "etc" / "main.cf").write_text(MAIN.format(folder=folder, uid=owner, gid=group))
    (folder / "etc" / "master.cf").write_text(MASTER.format(port=f"127.0.0.1:{port}"))
    control = [program, "-c", str(folder / "etc")]
    started = subprocess.run([*control, "start"], capture_output=True, text=True, timeout=30)
    assert started.returncode == 0, started.stderr
    yield Postfix(port, folder)
    subprocess.run([*control, "abort"], capture_output=True, timeout=30)
    shutil.rmtree(folder, ignore_errors=True)


def test_postfix_takes_what_the_runner_sends_and_changes_nothing(site: Site, postfix: Postfix) -> None:
    before = len(postfix.stored)
    site.register(postfix.port)
    numbers = insert_assorted(site)
    site.insert(50)
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait(60) == 0
    assert runner.lines == []
    assert site.states() == {"sent": len(numbers) + 50}
    recipients = site.query("SELECT count(*) FROM outbox_fate WHERE fate = 'accepted'")[0][0]
    eventually(lambda: len(postfix.stored) == before + recipients, "everything is in the mailbox")
    assert site.query("SELECT DISTINCT code, status FROM outbox_fate") == [(250, "2.0.0")]
    assert "queued as" in site.delivery(numbers[0])["last_reply"]
    ours = sent_digests(site)
    new = [content for content in postfix.stored if any(token_of(site, n) in content for n in numbers)]
    assert digests_of(new) == {str(number): ours[str(number)] for number in numbers}


def token_of(site: Site, number: int) -> bytes:
    return str(site.query("SELECT token FROM outbox WHERE id = ?", number)[0][0]).encode()


def test_postfix_refuses_one_recipient_and_takes_the_other(sqlite_site: Site, postfix: Postfix) -> None:
    site = sqlite_site
    site.register(postfix.port)
    number = site.insert_one(recipients="ann@example.net, nobody@example.net, bo@example.net")
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait() == 0
    assert site.delivery(number)["state"] == "failed"
    fates = site.query("SELECT address, fate, code FROM outbox_fate ORDER BY position")
    assert [tuple(row) for row in fates] == [
        ("ann@example.net", "accepted", 250),
        ("nobody@example.net", "bounced", 554),
        ("bo@example.net", "accepted", 250),
    ]
    assert "Access denied" in site.delivery(number)["last_reply"]
