"""A gateway whose agents had sandboxes and are to have none: `sandbox_engine: none`, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .fleet import Fleet, Play
from .sandboxes import CLIENTS, Sandboxes

pytestmark = pytest.mark.fire

COACH = "coach-anna"
PLAYS = ("playbooks/site.yml", "playbooks/provision-coach.yml")


@pytest.fixture
def sandboxes(fleet: Fleet) -> Iterator[Sandboxes]:
    """She has one, and has it again afterwards."""
    found = Sandboxes(fleet)
    found.furnish(COACH)
    yield found
    for playbook in PLAYS:
        _done(fleet, playbook)
    assert f"A client of {COACH}" in found.clients(COACH)


def _done(fleet: Fleet, playbook: str, *arguments: str, **extra: Any) -> Play:
    limit = ("--limit", fleet.row(COACH)["gateway"])
    return fleet.done(playbook, *limit, *arguments, **extra)


def test_sandboxes_are_given_up_and_taken_up_again(fleet: Fleet, sandboxes: Sandboxes) -> None:
    gateway = fleet.row(COACH)["gateway"]
    others = {
        agent_id: sandbox for agent_id, sandbox in sandboxes.all().items() if sandbox.gateway != gateway
    }
    memory = fleet.sh(f"cat {sandboxes.workspace(COACH)}/MEMORY.md")
    predicted = _done(fleet, PLAYS[0], "--check", "--diff", sandbox_engine="none")
    assert COACH in sandboxes.all()
    done = _done(fleet, PLAYS[0], sandbox_engine="none")
    assert sorted(done.changed) == sorted(predicted.changed) != []
    assert sandboxes.all() == others
    with sandboxes.executed() as executed:
        told = fleet.ask(COACH, "hello")
        sandboxes.execute(COACH, CLIENTS, "none")
    assert told.status == 200 and executed == []
    assert fleet.sh(f"cat {sandboxes.workspace(COACH)}/MEMORY.md") == memory
    for playbook in PLAYS:
        assert _done(fleet, playbook, sandbox_engine="none").changed == []
