"""A private Postfix on loopback, beside whatever the machine has: one process tree, many services.

Each service is a port with a policy of its own, all of them accept into one maildir.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.peers.authority import Authority
from tests.peers.greylist import Greylist
from tests.peers.mails import Delivery, Maildir
from tests.peers.programs import free_port, needs_root, open_folder, program

MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/state
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = relay.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access inline:{{nobody@example.net=REJECT}}, permit
smtpd_forbid_bare_newline = no
smtpd_tls_chain_files = {folder}/relay.pem
smtpd_sasl_type = dovecot
smtpd_sasl_path = {login}
smtpd_sender_login_maps = texthash:{folder}/logins
message_size_limit = 52428800
virtual_mailbox_limit = 52428800
virtual_mailbox_domains = example.net
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
"""
MASTER = """\
tlsmgr unix - - n 1000? 1 tlsmgr
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
LOGIN = {
    "smtpd_tls_security_level": "encrypt",
    "smtpd_sasl_auth_enable": "yes",
    "smtpd_sender_restrictions": "reject_sender_login_mismatch",
    "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
}
SERVICES: dict[str, dict[str, str]] = {
    "plain": {},
    "greylisting": {"smtpd_recipient_restrictions": "check_policy_service inet:127.0.0.1:{greylist}, permit"},
    "tables": {
        "smtpd_recipient_restrictions": "check_recipient_access texthash:{folder}/recipients, permit",
        "smtpd_sender_restrictions": "check_sender_access texthash:{folder}/senders, permit",
    },
    "stranger": {"smtpd_client_restrictions": "check_client_access inline:{{127.0.0.1=REJECT}}"},
    "stranger at once": {
        "smtpd_client_restrictions": "check_client_access inline:{{127.0.0.1=REJECT}}",
        "smtpd_delay_reject": "no",
    },
    "no relaying": {"smtpd_relay_restrictions": "reject_unauth_destination"},
    "small": {"message_size_limit": "20000"},
    "small, unannounced": {"message_size_limit": "20000", "smtpd_discard_ehlo_keywords": "size"},
    "few recipients": {"smtpd_recipient_limit": "50"},
    "no pipelining": {"smtpd_discard_ehlo_keywords": "pipelining"},
    "login": LOGIN,
    "login, at once": {**LOGIN, "smtpd_delay_reject": "no"},
}
RECIPIENTS = """\
gone@example.net 550 5.1.1 no such user here
full@example.net 452 4.2.2 mailbox full
busy@example.net 450 4.2.1 mailbox busy
"""
SENDERS = """\
news@example.com 550 5.7.1 not authorized to send from here
"""
LOGINS = """\
shop@example.com shop
news@example.com somebody-else
"""


@dataclass
class Postfix:
    """`ports` by the name of the service."""

    folder: Path
    greylist: Greylist
    maildir: Maildir
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return self.ports["plain"]

    @property
    def deliveries(self) -> list[Delivery]:
        return self.maildir.deliveries

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


def _services(postfix: Postfix) -> str:
    lines = []
    for name, options in SERVICES.items():
        port = postfix.ports[name] = free_port()
        lines.append(f"127.0.0.1:{port} inet n - n - - smtpd\n")
        for key, value in options.items():
            filled = value.format(folder=postfix.folder, greylist=postfix.greylist.port)
            lines.append(f"  -o {{ {key} = {filled} }}\n")
    return "".join(lines)


def _write(postfix: Postfix, authority: Authority, login: Path) -> None:
    from pwd import getpwnam  # not on Windows

    folder, owner = postfix.folder, getpwnam("postfix")
    for name in ("etc", "queue", "state", "mail"):
        (folder / name).mkdir()
    for name in ("state", "mail"):
        os.chown(folder / name, owner.pw_uid, owner.pw_gid)
    (folder / "relay.pem").write_bytes(authority.key_and_chain)
    (folder / "relay.pem").chmod(0o600)
    for name, table in (("recipients", RECIPIENTS), ("senders", SENDERS), ("logins", LOGINS)):
        (folder / name).write_text(table)
    settings = MAIN.format(folder=folder, login=login, uid=owner.pw_uid, gid=owner.pw_gid)
    (folder / "etc" / "main.cf").write_text(settings)
    (folder / "etc" / "master.cf").write_text(MASTER + _services(postfix))


@pytest.fixture(scope="package")
def postfix(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postfix]:
    """Started once. A login is asked of `dovecot`, which a test that signs in has to ask for, too."""
    control = [program("postfix"), "-c"]
    needs_root("Postfix")
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder("postfix"))
        made = Postfix(folder, stack.enter_context(Greylist()), Maildir(folder / "mail" / "all"))
        _write(made, authority, folder / "login" / "socket")
        control.append(str(folder / "etc"))
        started = subprocess.run([*control, "start"], capture_output=True, text=True, timeout=30)
        assert started.returncode == 0, started.stderr
        stack.callback(subprocess.run, [*control, "abort"], capture_output=True, timeout=30)
        yield made
