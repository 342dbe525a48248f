"""A private Exim on loopback, from Debian's package but not installed by it: that would take Postfix away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.authority import Authority
from tests.peers.mails import Delivery, Maildir
from tests.peers.programs import PEERS, answers, free_port, needs_root, open_folder, program
from tests.running import Program, eventually

USER = "Debian-exim"
CONFIGURATION = """\
primary_hostname = relay.example
exim_path = {folder}/exim4
spool_directory = {folder}/spool
log_file_path = {folder}/spool/%slog
pid_file_path = {folder}/spool/pid
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
keep_environment =
host_lookup =
never_users =
deliver_drop_privilege
message_size_limit = 50M
smtp_accept_max = 50
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
tls_certificate = {folder}/relay.pem
tls_advertise_hosts = *
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
acl_smtp_mail = mail
acl_smtp_rcpt = rcpt
acl_smtp_data = content
begin acl
mail:
  deny senders = banned@example.com
       message = 550 5.7.1 sender not authorized
  accept
rcpt:
  deny local_parts = nobody
       message = 550 5.1.1 no such user
  defer local_parts = later
       condition = ${{if exists{{{folder}/open}}{{no}}{{yes}}}}
       message = 451 4.7.1 greylisted
  accept
content:
  deny condition = ${{if match{{$h_subject:}}{{forbidden}}}}
       message = 554 5.7.1 content refused
  accept
begin routers
all:
  driver = accept
  transport = keep
begin transports
keep:
  driver = appendfile
  maildir_format
  directory = {folder}/mail/all
  user = {user}
  batch_max = 1
  delivery_date_add
  envelope_to_add
  return_path_add
begin retry
* * F,1h,1m
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{shop}}}}{{eq{{$auth3}}{{correct horse}}}}}}}}
  server_set_id = $auth2
"""


@dataclass(frozen=True)
class Exim:
    """A recipient nobody@ is refused, later@ deferred until `let_in`; a sender banned@example.com is refused, and so
    is a subject with the word forbidden. The login is shop, correct horse.
    """

    port: int
    folder: Path
    maildir: Maildir

    @property
    def deliveries(self) -> list[Delivery]:
        return self.maildir.deliveries

    def let_in(self) -> None:
        (self.folder / "open").touch()


@pytest.fixture(scope="package")
def exim(authority: Authority) -> Iterator[Exim]:
    binary = program("exim4", path=str(PEERS))
    needs_root("Exim")
    with open_folder("exim") as folder:
        shutil.copy2(binary, folder / "exim4")  # it starts itself as another user, who may not look into ours
        for name in ("spool", "mail"):
            (folder / name).mkdir()
            _give(folder / name)
        (folder / "relay.pem").write_bytes(authority.key_and_chain)
        _give(folder / "relay.pem")
        os.chmod(folder / "relay.pem", 0o600)
        made = Exim(free_port(), folder, Maildir(folder / "mail" / "all"))
        text = CONFIGURATION.format(folder=folder, port=made.port, user=USER)
        (folder / "exim.conf").write_text(text)
        with Program([str(folder / "exim4"), "-C", str(folder / "exim.conf"), "-bdf"], folder) as running:
            eventually(lambda: answers(made.port) or running.process.poll() is not None, "Exim listens")
            assert running.process.poll() is None, running.output
            yield made
            running.stop()
            running.wait()


def _give(path: Path) -> None:
    try:
        shutil.chown(path, USER)
    except LookupError:
        pytest.skip(f"A REAL PEER IS NOT TESTED: EXIM NEEDS THE USER {USER} (run tests/peers/install)")
