"""A resolver that does not answer holds up the mail that needs it, and nothing else: no other mail, and no end."""

from __future__ import annotations

import asyncio
import sys
import threading

from outbox.runner.aside import Aside
from tests.relay import Relay
from tests.running import Program, Site, eventually

SILENT = "relay.silent.example"


def test_a_silent_resolver_keeps_no_runner_from_ending(sqlite_site: Site) -> None:
    site = sqlite_site
    with Relay() as relay:
        site.register(587, host=SILENT, account="silent", sender="deaf@example.com")
        site.register(relay.port)
        site.insert(20, sender="deaf@example.com")
        site.insert(3)
        command = [sys.executable, "-m", "tests.deaf", SILENT, "run"]
        with Program(command, site.folder, OUTBOX_DATABASE=site.url) as runner:
            relay.wait(3)
            eventually(lambda: site.states().get("sent") == 3, "the others are sent")
            runner.stop()
            assert runner.wait(10) == 0
        assert site.states() == {"sent": 3, "queued": 20}


def test_what_never_comes_back_holds_up_only_what_is_beyond_its_threads() -> None:
    never = threading.Event()

    async def scenario() -> tuple[int, str]:
        loop = asyncio.get_running_loop()
        aside = Aside(3)
        loop.set_default_executor(aside)
        stuck = [asyncio.ensure_future(asyncio.to_thread(never.wait)) for _ in range(2)]
        answer = await asyncio.wait_for(asyncio.to_thread(int, "7"), 5)
        try:
            await asyncio.to_thread(int, "seven")
        except ValueError as error:
            return answer, type(error).__name__
        finally:
            for each in stuck:
                each.cancel()
        return answer, ""

    assert asyncio.run(scenario()) == (7, "ValueError")
    never.set()
