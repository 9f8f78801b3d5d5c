"""The scenario's machine, coaches and their questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import testinfra
from clawbench import asking
from clawbench.inventory import MACHINE
from clawbench.shell import until
from tunnels import BENCH, COACH_LIST, Questions


@pytest.fixture(scope="module")
def machine() -> Any:
    """The machine, as root."""
    return testinfra.get_host(f"docker://{BENCH.container(MACHINE)}")


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """The coaches as Django has them, by agent id."""
    return {row["agent_id"]: row for row in asking.coaches(COACH_LIST)}


@pytest.fixture(scope="module")
def keys(rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Their keys, by agent id."""
    return {
        agent: json.loads(
            BENCH.ssh(
                MACHINE, f"sudo cat /var/lib/claw/{row['gateway']}/credentials/{agent}/.credentials.json"
            )
        )["api_key"]
        for agent, row in rows.items()
    }


@pytest.fixture
def questions(keys: dict[str, str]) -> Iterator[Questions]:
    """Already going on, and answered."""
    with Questions(keys).going_on() as going_on:
        until(lambda: len(going_on.answered) > 3, seconds=60, what="the first answers")
        yield going_on
