# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection that goes to a control node: the same one, from sources or as it was installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.claw.fleet.plugins.action.reconciler_runtime import built, identity

pytestmark = pytest.mark.slow

OURS = Path(__file__).resolve().parents[4]
GALAXY_YML = """
namespace: claw
name: sample
version: 1.2.3
readme: README.md
authors: [somebody]
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A collection in the making."""
    place = tmp_path / "sources"
    (place / "plugins" / "modules").mkdir(parents=True)
    (place / "galaxy.yml").write_text(GALAXY_YML)
    (place / "README.md").write_text("# Sample\n")
    (place / "meta").mkdir()
    (place / "meta" / "runtime.yml").write_text('requires_ansible: ">=2.19.0"\n')
    (place / "plugins" / "modules" / "sample.py").write_text("# nothing\n")
    return place


def archive_of(collection: Path, place: Path) -> Path:
    place.mkdir()
    return built(collection, place)


def install(archive: Path, place: Path) -> Path:
    """What ansible-galaxy makes of an archive."""
    command = [sys.executable, "-m", "ansible.cli.galaxy", "collection", "install", str(archive)]
    command += ["--offline", "--no-deps", "--collections-path", str(place)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return place / "ansible_collections" / "claw" / "sample"


def test_it_is_the_same_wherever_it_was_built(sources: Path, tmp_path: Path) -> None:
    first = archive_of(sources, tmp_path / "1")
    # What Python leaves behind is no part of it.
    (sources / "plugins" / "modules" / "__pycache__").mkdir()
    second = archive_of(sources, tmp_path / "2")
    assert identity(first) == identity(second)
    assert identity(first)["version"] == "1.2.3"
    installed = install(first, tmp_path / "installed")
    assert not (installed / "galaxy.yml").exists()
    third = archive_of(installed, tmp_path / "3")
    assert third.name == first.name
    assert identity(third) == identity(first)
    assert (install(third, tmp_path / "again") / "plugins" / "modules" / "sample.py").is_file()


@pytest.mark.parametrize(
    "left",
    [".hypothesis/examples/1", "tests/unit/.hypothesis/unicode_data/1", "changelogs/.plugin-cache.yaml"],
)
def test_what_tools_leave_behind_is_no_part_of_it(sources: Path, tmp_path: Path, left: str) -> None:
    galaxy = yaml.safe_load((OURS / "galaxy.yml").read_text())
    (sources / "galaxy.yml").write_text(GALAXY_YML + yaml.safe_dump({"build_ignore": galaxy["build_ignore"]}))
    before = identity(archive_of(sources, tmp_path / "1"))
    (sources / left).parent.mkdir(parents=True)
    (sources / left).write_text("found\n")
    assert identity(archive_of(sources, tmp_path / "2")) == before


def test_another_file_is_another_one(sources: Path, tmp_path: Path) -> None:
    before = identity(archive_of(sources, tmp_path / "1"))
    (sources / "plugins" / "modules" / "sample.py").write_text("# something\n")
    assert identity(archive_of(sources, tmp_path / "2")) != before


def test_what_was_changed_after_it_was_installed_is_not_installed_elsewhere(
    sources: Path, tmp_path: Path
) -> None:
    installed = install(archive_of(sources, tmp_path / "1"), tmp_path / "installed")
    (installed / "plugins" / "modules" / "sample.py").write_text("# something\n")
    archive = archive_of(installed, tmp_path / "2")
    with pytest.raises(subprocess.CalledProcessError):
        install(archive, tmp_path / "again")


def test_sources_that_cannot_be_built_are_named(sources: Path, tmp_path: Path) -> None:
    (sources / "galaxy.yml").write_text("namespace: claw\n")
    with pytest.raises(ValueError, match=r"cannot be built: .*galaxy\.yml"):
        archive_of(sources, tmp_path / "1")
