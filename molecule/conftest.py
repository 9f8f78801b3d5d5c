"""What the scenarios' tests share: the one machine of a bench, and the coaches of its list."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import testinfra
from clawbench import asking, hosts
from clawbench.coachlist import CoachList
from clawbench.hosts import Bench
from clawbench.inventory import MACHINE
from clawbench.scan import answering


@pytest.fixture(scope="module")
def machine() -> Any:
    """The machine, as root."""
    bench = Bench.of(Path(os.environ["CLAW_DEMO_STATE"]))
    return testinfra.get_host(f"docker://{bench.container(MACHINE)}")


@pytest.fixture(scope="module")
def seen() -> dict[str, set[int]]:
    """The ports of the machine that answer, as the container of the provider of models sees them, by protocol."""
    bench = Bench.of(Path(os.environ["CLAW_DEMO_STATE"]))
    return answering(bench.container("provider"), hosts.address_of(bench, MACHINE))


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """The coaches as Django has them, by agent id."""
    coach_list = CoachList(Path(os.environ["CLAW_DEMO_STATE"]))
    return {row["agent_id"]: row for row in asking.coaches(coach_list)}
