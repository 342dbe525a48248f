"""The fixtures of `tests.contract.stores`, and what several suites tell about a database."""

from __future__ import annotations

from collections.abc import Iterator

import peewee
import pytest

from tests.contract.stores import second as second
from tests.contract.stores import store as store
from tests.stories import Stories


@pytest.fixture
def stories(database_url: str) -> Iterator[Stories]:
    with Stories(database_url) as opened:
        yield opened


@pytest.fixture
def db(database: peewee.Database) -> peewee.Database:
    return database
