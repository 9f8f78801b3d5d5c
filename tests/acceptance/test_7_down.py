"""What `make down` leaves behind: nothing."""

from __future__ import annotations

import os
import subprocess

import pytest

from .conftest import KEEP
from .fleet import Fleet


def docker(*words: str) -> str:
    """What the engine lists, if one still runs."""
    return subprocess.run(["docker", *words], text=True, capture_output=True, check=False).stdout.strip()


@pytest.mark.skipif(bool(os.environ.get(KEEP)), reason=f"{KEEP} asks to leave the fleet up")
def test_down_leaves_nothing_behind(fleet: Fleet) -> None:
    name = fleet.bench.name
    port = fleet.coach_list.url.rpartition(":")[2]
    done = fleet.make("down")
    assert done.returncode == 0, done.stdout
    assert not fleet.state.exists()
    assert docker("ps", "--all", "--quiet", "--filter", f"name=claw-{name}") == ""
    assert docker("network", "ls", "--quiet", "--filter", f"name=claw-{name}") == ""
    listening = subprocess.run(["ss", "-Hltn"], text=True, capture_output=True, check=True).stdout
    assert f":{port} " not in listening
    again = fleet.make("down")
    assert again.returncode == 0, "down twice is harmless"
