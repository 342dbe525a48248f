"""What is installed beside us: pinned with hashes, listed in an SBOM, and no older than we say it must be."""

from __future__ import annotations

import json
import re
import tomllib

from packaging.requirements import Requirement
from packaging.version import Version

from tests.running import ROOT

LOCK = (ROOT / ".ci" / "requirements.lock").read_text(encoding="utf-8")
SBOM = json.loads((ROOT / ".ci" / "sbom.cdx.json").read_text(encoding="utf-8"))
PINNED = dict(re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==([^ ;]+)", LOCK, re.MULTILINE))
EXTRAS = ("postgres", "oauth2", "webhook", "sqlite")


def test_every_pinned_package_has_hashes_and_no_index_is_named() -> None:
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(PINNED) >= 20
    assert [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []
    assert "://" not in LOCK


def test_the_lock_satisfies_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    for requirement in map(Requirement, wanted):
        version = PINNED[requirement.name.lower()]
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"
        assert requirement.specifier, f"{requirement} has no oldest version"


def test_the_sbom_lists_what_is_pinned_and_nothing_else() -> None:
    assert SBOM["bomFormat"] == "CycloneDX"
    assert {each["name"]: Version(each["version"]) for each in SBOM["components"]} == {
        name: Version(version) for name, version in PINNED.items()
    }
