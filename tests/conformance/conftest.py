"""Databases for the drivers."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from outbox.store.database import connect, sqlite_path
from tests.conformance.drivers import Place

ORDERS = "CREATE TABLE conformance_orders (customer text NOT NULL)"


@pytest.fixture
def sqlite_place(sqlite_url: str) -> Place:
    with closing(connect(sqlite_url)) as database:
        database.execute_sql(ORDERS)
    return Place(sqlite_path(sqlite_url), sqlite_url, {})


@pytest.fixture
def postgres_place(postgres_url: str) -> Place:
    with closing(psycopg.connect(postgres_url, autocommit=True)) as connection:
        connection.execute(ORDERS)
        told = connection.info
        where = {"PGHOST": told.host, "PGPORT": str(told.port), "PGUSER": told.user, "PGDATABASE": told.dbname}
        return Place("", postgres_url, {**where, "PGPASSWORD": told.password, "PGCLIENTENCODING": "UTF8"})
