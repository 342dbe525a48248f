"""The fixtures of `tests.running`."""

from tests.running import postgres_site as postgres_site
from tests.running import site as site
from tests.running import sqlite_site as sqlite_site
