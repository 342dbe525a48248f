"""The fixtures of `tests.running`. Windows has neither kill -9 nor SIGSTOP: there, nothing of this can be tried."""

import sys

from tests.running import postgres_site as postgres_site
from tests.running import site as site
from tests.running import sqlite_site as sqlite_site

collect_ignore_glob = ["test_*"] if sys.platform == "win32" else []
