"""The fixtures of `tests.running`."""

from tests.running import site as site
