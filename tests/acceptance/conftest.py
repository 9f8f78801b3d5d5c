"""One fleet for all: made by `make up` in a state directory of its own, taken away by `make down`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from clawbench.coachlist import API

from .faults import Behind, FaultyList
from .fleet import INVENTORY, ROOT, Fleet
from .kills import Machine, Say

STATE = Path(os.environ.get("CLAW_ACCEPTANCE_STATE") or ROOT / ".cache" / "bench" / "acceptance")
KEEP = "CLAW_ACCEPTANCE_KEEP"
"""Set it to leave the fleet up, to look at it or to run tests on it again."""


@pytest.fixture(scope="session")
def first_up() -> Iterator[tuple[Fleet, str]]:
    """The fleet, and what the first `make up` printed."""
    fleet = Fleet(STATE)
    done = fleet.make("up")
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        yield fleet, done.stdout
    finally:
        if not os.environ.get(KEEP):
            fleet.make("down")


@pytest.fixture(scope="session")
def fleet(first_up: tuple[Fleet, str]) -> Fleet:
    """The fleet."""
    return first_up[0]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Tell the person who runs the tests, at once."""

    def tell(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="", flush=True)

    return tell


@pytest.fixture(scope="module")
def machine(fleet: Fleet) -> Iterator[Machine]:
    """The machine with strace on it; nothing of ours is left there afterwards, but strace."""
    with Machine(fleet) as machine:
        yield machine


@pytest.fixture
def faulty(fleet: Fleet, tmp_path: Path) -> Iterator[Behind]:
    """The demo's inventory with a list that fails on demand."""
    for name in ("hosts.yml", "group_vars"):
        (tmp_path / name).symlink_to(INVENTORY / name)
    with FaultyList(fleet.coach_list.url) as server:
        source = {
            "plugin": "claw.fleet.coaches",
            "api_url": f"{server.url}{API}",
            "api_token_file": str(fleet.state / "service-token"),
            "retries": 1,
            "timeout": 3,
        }
        (tmp_path / "list.coaches.yml").write_text(yaml.safe_dump(source))
        yield Behind(server, [tmp_path])
