"""What providers want."""

from __future__ import annotations

import re

import pytest

from outbox.core.account import Mechanism, Tls, may_log_in, parse_relay
from outbox.core.limits import Limit, Limited
from outbox.core.presets import PRESETS, Provider


@pytest.mark.parametrize("provider", Provider)
def test_a_preset_is_complete_and_says_where_its_facts_are_from(provider: Provider) -> None:
    preset = PRESETS[provider]
    host = preset.relay_host("eu-central-1" if provider is Provider.SES else "")
    assert parse_relay(f"{host}:{preset.port}", preset.tls) == (host, 587)
    assert may_log_in(preset.tls, host)
    assert all(each.startswith("https://") for each in preset.sources)
    assert preset.sources
    assert preset.note
    assert re.fullmatch(r"20\d\d-\d\d", preset.read)
    assert preset.limit("main").key == (Limited.ACCOUNT, "main")
    assert list(preset.limit("main").rates())


def test_microsoft_365_has_three_connections_thirty_a_minute_and_ten_thousand_a_day() -> None:
    preset = PRESETS[Provider.MICROSOFT365]
    assert preset.limit("m") == Limit(Limited.ACCOUNT, "m", 3, per_minute=30, per_day=10_000)
    assert (preset.tls, preset.mechanism) == (Tls.STARTTLS, Mechanism.XOAUTH2)


def test_a_gmail_account_sends_500_a_day_and_one_of_workspace_2000() -> None:
    assert PRESETS[Provider.GMAIL].per_day == 500
    assert PRESETS[Provider.GMAIL_WORKSPACE].per_day == 2000


@pytest.mark.parametrize("region", ["", "eu", "eu-central", "eu-central-1.evil.test", "EU-central-1", "eu-central-1\n"])
def test_ses_needs_a_region_that_is_one(region: str) -> None:
    with pytest.raises(ValueError, match="region"):
        PRESETS[Provider.SES].relay_host(region)


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "us-gov-west-1", "ap-southeast-3"])
def test_ses_has_a_host_in_every_region(region: str) -> None:
    assert PRESETS[Provider.SES].relay_host(region) == f"email-smtp.{region}.amazonaws.com"


def test_who_has_no_regions_takes_none() -> None:
    with pytest.raises(ValueError, match="no regions"):
        PRESETS[Provider.GMAIL].relay_host("eu-central-1")
