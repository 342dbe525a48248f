"""A runner on uvloop keeps the promise, too."""

from __future__ import annotations

import sys

import pytest

from outbox.cli.run import _loop_factory
from outbox.config import Config
from outbox.config.settings import RunConfig
from outbox.errors import ConfigError
from tests.relay import HANG, Relay
from tests.running import Site, eventually

ON_UVLOOP = {"run_event_loop": "uvloop"}


@pytest.fixture(autouse=True)
def installed() -> None:
    pytest.importorskip("uvloop")


def test_mail_goes_out_over_connections_that_are_used_again(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        site.insert(100)
        with site.run("--until-empty", **ON_UVLOOP) as runner:
            assert runner.wait() == 0
        assert site.states() == {"sent": 100}
        site.audit(relay.messages)


def test_a_dot_without_an_answer_is_a_doubt_when_its_runner_is_killed(site: Site) -> None:
    with Relay({"dot": HANG}) as relay:
        site.register(relay.port, connections=1)
        site.insert(2)
        with site.run(**ON_UVLOOP) as killed:
            eventually(lambda: relay.commands.count(".") == 1, "the dot is written")
            killed.process.kill()
        relay.release()
        with site.run("--until-empty", **ON_UVLOOP) as heir:
            assert heir.wait() == 0
        assert site.states() == {"sent": 2}
        assert site.query("SELECT sum(doubts) FROM outbox_delivery") == [(1,)]
        site.audit(relay.messages)


def test_a_stop_finishes_what_is_past_data_and_gives_back_the_rest(site: Site) -> None:
    with Relay({"dot": HANG}) as relay:
        site.register(relay.port, connections=2)
        site.insert(10)
        with site.run(**ON_UVLOOP) as runner:
            eventually(lambda: relay.commands.count(".") == 2, "every connection has written its dot")
            runner.stop()
            eventually(lambda: site.states() == {"sending": 2, "queued": 8}, "the rest is given back")
            relay.release()
            assert runner.wait() == 0
        assert site.states() == {"sent": 2, "queued": 8}


def test_where_it_is_not_installed_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    config = Config(database="sqlite:///x.db", run=RunConfig(event_loop="uvloop"))
    with pytest.raises(ConfigError, match=r"run\.event_loop is uvloop") as refused:
        _loop_factory(config)
    assert "mail-outbox[uvloop]" in refused.value.hint
    assert _loop_factory(Config(database="sqlite:///x.db")) is None
