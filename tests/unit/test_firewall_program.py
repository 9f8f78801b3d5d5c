"""What the firewall's program says of the kernel, with a kernel that is a file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "collections/ansible_collections/claw/fleet/roles/machine/files/firewall"
NFT = """#!/bin/sh
kernel={place}/kernel
case "$1" in
--file) cp "$2" "$kernel" ;;
delete) rm "$kernel" ;;
*) cat "$kernel" 2>/dev/null ;;
esac
"""


class Machine:
    """One whose files are all below a place."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.wanted, self.kept = place / "firewall.wanted.nft", place / "firewall.nft"
        nft = place / "bin" / "nft"
        nft.parent.mkdir()
        nft.write_text(NFT.format(place=place))
        nft.chmod(0o755)
        text = PROGRAM.read_text().replace("/etc/claw-machine", str(place))
        text = text.replace("/run/claw-firewall", str(place)).replace(
            "PATH=/usr/sbin", f"PATH={nft.parent}:/usr/sbin"
        )
        (place / "firewall").write_text(text)

    def says(self, verb: str) -> int:
        return subprocess.run(["sh", self.place / "firewall", verb], timeout=60, check=False).returncode

    def loses_its_rules(self) -> None:
        (self.place / "kernel").unlink()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nothing_is_wanted_yet(machine: Machine) -> None:
    assert machine.says("holds") == 0


def test_what_is_wanted_was_never_proven(machine: Machine) -> None:
    machine.wanted.write_text("table one")
    assert (machine.says("holds"), machine.says("check")) == (2, 2)


def test_what_was_proven_is_in_force_or_not(machine: Machine) -> None:
    machine.wanted.write_text("table one")
    machine.kept.write_text("table one")
    assert machine.says("holds") == 1, "it was never loaded"
    assert machine.says("load") == 0
    assert (machine.says("holds"), machine.says("check")) == (0, 0)
    machine.wanted.write_text("table two")
    assert (machine.says("holds"), machine.says("check")) == (0, 2)
    machine.loses_its_rules()
    assert (machine.says("holds"), machine.says("check")) == (1, 2)
    (machine.place / "kernel").write_text("table of somebody's")
    assert machine.says("holds") == 1
