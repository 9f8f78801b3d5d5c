"""The scenario's machine, coaches and their questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from clawbench.inventory import MACHINE
from clawbench.shell import until
from tunnels import BENCH, Questions


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
