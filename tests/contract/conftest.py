"""The fixtures of `tests.contract.stores`."""

from tests.contract.stores import second as second
from tests.contract.stores import store as store
