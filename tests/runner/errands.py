"""The real runner in the test's own process, until nothing is left that could go now."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from outbox.clock import Clock
from outbox.config import Config, RunConfig
from outbox.errors import VaultError
from outbox.runner.service import Errand, Service
from outbox.smtp.relay import Deadlines
from outbox.vault import Vault
from tests.running import SHOP, Site


def send(site: Site, tmp_path: Path, vault: Vault | None = None, **run: Any) -> None:
    """Run a runner in this process until nothing is left that could go now."""

    def no_vault() -> Vault:
        raise VaultError("there is no key")

    async def scenario() -> int:
        service = Service(
            Config(database=site.url, helo="client.example.com", run=RunConfig(**run)),
            (lambda: vault) if vault else no_vault,
            Clock(),
            version="0.1.0",
            rescue_files=[tmp_path / "rescue"],
            deadlines=Deadlines(dot=0.3),
        )
        return await service.run(Errand(until_empty=True))

    assert asyncio.run(scenario()) == 0


def mail(site: Site, **columns: Any) -> int:
    row = {"sender": SHOP, "recipients": "ann@example.net", "subject": "Order", "text_body": "Thanks", **columns}
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    return int(site.query(f"INSERT INTO outbox ({names}) VALUES ({marks}) RETURNING id", *row.values())[0][0])
