"""The fixtures of `tests.running`."""

import sys

from tests.running import postgres_site as postgres_site
from tests.running import site as site
from tests.running import sqlite_site as sqlite_site

# Windows has no SIGTERM that a process can hear: there, these could not stop a runner in good order.
collect_ignore = ["test_drain.py", "test_lock.py", "test_many.py", "test_relays.py"] if sys.platform == "win32" else []
