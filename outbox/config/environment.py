"""What the environment says, read by pydantic-settings: 25 ms to load, so only where there is anything to read."""

from __future__ import annotations

from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from outbox.config.settings import Config
from outbox.errors import ConfigError


class _Environment(Config, BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="OUTBOX_", env_nested_delimiter="_", env_nested_max_split=1, env_ignore_empty=True
    )


def environment() -> dict[str, Any]:
    """Settings and sections of them, by their names, as text. Raises ConfigError."""
    try:
        return EnvSettingsSource(_Environment)()
    except SettingsError as error:
        raise ConfigError(f"environment: {error}") from None
