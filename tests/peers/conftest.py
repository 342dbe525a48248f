"""The fixtures of `tests.running`, and the peers: each is started once."""

from tests.peers.authority import authority as authority
from tests.peers.dovecot import dovecot as dovecot
from tests.peers.exim import exim as exim
from tests.peers.keeper import keeper as keeper
from tests.peers.postfix import postfix as postfix
from tests.peers.smtp_server import smtp_server as smtp_server
from tests.running import postgres_site as postgres_site
from tests.running import site as site
from tests.running import sqlite_site as sqlite_site
