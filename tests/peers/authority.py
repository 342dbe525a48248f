"""A certificate authority of the tests' own, and the certificate of the peers: ``localhost``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme


@dataclass(frozen=True)
class Authority:
    """`ca_file` is what a client trusts. `unrelated` is another authority's, which has signed nothing here."""

    ca_file: Path
    unrelated: Path
    key_and_chain: bytes


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("authority")
    made, unrelated = trustme.CA(), trustme.CA()
    made.cert_pem.write_to_path(folder / "ca.pem")
    unrelated.cert_pem.write_to_path(folder / "unrelated.pem")
    key_and_chain = made.issue_cert("localhost").private_key_and_cert_chain_pem.bytes()
    return Authority(folder / "ca.pem", folder / "unrelated.pem", key_and_chain)
