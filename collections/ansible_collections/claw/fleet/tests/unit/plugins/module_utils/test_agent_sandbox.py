# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandboxes of a gateway's agents: what is written, and whose container is taken away when."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _agent_sandbox, _sandbox
from ansible_collections.claw.fleet.plugins.module_utils._agent_sandbox import (
    NOTHING,
    AgentSandboxes,
    Outcome,
)
from ansible_collections.claw.fleet.plugins.module_utils._containers import Container, ContainersError
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Served
from ansible_collections.claw.fleet.plugins.module_utils._roster import Roster, RosterError
from ansible_collections.claw.fleet.plugins.module_utils._sandbox import GUARD, MARK, Sandbox
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import UnitState
from ansible_collections.claw.fleet.tests.unit.plugins.offline import (
    A_SANDBOX,
    OfflineGateway,
    offline_gateway,
)

ANOTHER = replace(A_SANDBOX, image="claw-sandbox:2")
IMAGES = {"claw-sandbox:1": "sha256:1", "claw-sandbox:2": "sha256:2"}


class Engine:
    """The containers that there are, and what was done; ``at_work``: agents, and how often they are still asked in vain."""

    def __init__(self) -> None:
        self.here: dict[str, Container] = {}
        self.at_work: dict[str, int] = {}
        self.deeds: list[str] = []
        self.broken = False

    def make(self, agent_id: str, sandbox: Sandbox, image_id: str = "") -> None:
        """As a turn of hers would have made it."""
        found = image_id or IMAGES[sandbox.image]
        self.here[agent_id] = Container(agent_id, f"id-{agent_id}", found, {MARK: sandbox.mark})

    def all(self) -> list[Container]:
        return [self.here[agent_id] for agent_id in sorted(self.here)]

    def image_id(self, image: str) -> str:
        return IMAGES.get(image, "")

    def remove(self, container: Container) -> None:
        self.deeds.append(f"remove {container.agent_id}")
        if self.broken:
            raise ContainersError("the container engine could not remove it")
        del self.here[container.agent_id]

    def hold(self, agent_id: str, _seconds: int) -> bool:
        left = self.at_work.get(agent_id, 0)
        self.at_work[agent_id] = left - 1
        self.deeds.append(f"{'hold' if left <= 0 else 'ask'} {agent_id}")
        return left <= 0

    def release(self, agent_id: str) -> None:
        self.deeds.append(f"release {agent_id}")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    monkeypatch.setattr(_agent_sandbox, "Containers", lambda _gateway, _docker_host: engine)
    monkeypatch.setattr(_agent_sandbox, "_POLL_SECONDS", 0)
    return engine


@pytest.fixture
def sandboxes(tmp_path: Path, engine: Engine) -> AgentSandboxes:
    """Of two agents of a gateway that is stopped, who have no sandbox yet."""
    gateway = offline_gateway(tmp_path)
    state = Path(gateway.state_dir)
    Roster(gateway).apply(
        {
            name: {
                "name": name,
                "workspace": str(state / "workspaces" / name),
                "agentDir": str(state / "agents" / name),
            }
            for name in ("coach-anna", "coach-ben")
        }
    )
    return AgentSandboxes(gateway)


def run_it(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    """Have gateways run that serve whatever their rosters say."""
    state = UnitState("active", "running", 7, "success", 0)
    answers: dict[str, Any] = {
        "unit_state": lambda _self: state,
        "ready": lambda _self: True,
        "served": lambda self: Served(True, True, Roster(self).entries(), []),
        "rpc": lambda _self, _method: {"plugins": {"loaded": [GUARD]}},
        "hold": lambda _self, agent_id, seconds: engine.hold(agent_id, seconds),
        "release": lambda _self, agent_id: engine.release(agent_id),
    }
    for name, answer in answers.items():
        patch.setattr(OfflineGateway, name, answer)


@pytest.fixture
def running(sandboxes: AgentSandboxes, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> AgentSandboxes:
    """The same, and the gateway runs."""
    run_it(engine, monkeypatch)
    return sandboxes


def files(sandboxes: AgentSandboxes) -> dict[str, bytes]:
    """What is written down."""
    place = Path(sandboxes.gateway.config_dir)
    return {path.name: path.read_bytes() for path in place.iterdir() if path.name != "lock"}


def four_shots(sandboxes: AgentSandboxes, engine: Engine, wanted: Sandbox | None) -> Outcome:
    """Check, apply, apply again, check again: prediction and deed are alike, and nothing is done twice."""

    def have(check: bool) -> Outcome:
        if wanted is None:
            return sandboxes.take_away(wait=0, check=check)
        return sandboxes.reconcile(wanted, wait=0, check=check)

    before, here = files(sandboxes), dict(engine.here)
    predicted = have(True)
    assert (files(sandboxes), engine.here) == (before, here)
    done = have(False)
    assert done == predicted
    after, here = files(sandboxes), dict(engine.here)
    for check in (False, True):
        assert have(check) == NOTHING
        assert (files(sandboxes), engine.here) == (after, here)
    return done


@pytest.mark.parametrize("state", ["sandboxes", "running"])
def test_the_life_of_sandboxes(state: str, engine: Engine, request: pytest.FixtureRequest) -> None:
    sandboxes: AgentSandboxes = request.getfixturevalue(state)
    reloads = int(state == "running")
    first = four_shots(sandboxes, engine, A_SANDBOX)
    assert (first.updated, first.recreated, first.reloads) == (["coach-anna", "coach-ben"], [], reloads)
    assert Sandbox.load(sandboxes.gateway) == A_SANDBOX
    for agent_id, entry in sandboxes.roster.entries().items():
        assert {name: entry[name] for name in _sandbox.KEYS} == A_SANDBOX.entry(sandboxes.gateway, agent_id)
        assert entry["name"] == agent_id
    engine.make("coach-anna", A_SANDBOX)
    engine.make("coach-ben", A_SANDBOX)
    assert four_shots(sandboxes, engine, A_SANDBOX).changed is False
    second = four_shots(sandboxes, engine, ANOTHER)
    assert second.recreated == ["coach-anna", "coach-ben"] and second.reloads == reloads
    assert [part["after_header"] for part in second.diff] == ["sandbox", "containers"]
    assert engine.here == {}


@pytest.mark.parametrize(
    "stale",
    [
        ("coach-anna", ANOTHER, "sha256:1"),
        ("coach-anna", A_SANDBOX, "sha256:2"),
        ("coach-of-before", ANOTHER, "sha256:2"),
    ],
)
def test_only_what_is_another_is_taken_away(
    running: AgentSandboxes, engine: Engine, stale: tuple[str, Sandbox, str]
) -> None:
    """By what it was made of or by its image; also of an agent who is paused."""
    running.reconcile(A_SANDBOX, wait=0)
    engine.make("coach-ben", A_SANDBOX)
    engine.make(*stale)
    done = four_shots(running, engine, A_SANDBOX)
    assert (done.changed, done.updated, done.recreated, done.reloads) == (True, [], [stale[0]], 0)
    assert engine.here.keys() == {"coach-ben"}
    assert engine.deeds == [f"{deed} {stale[0]}" for deed in ("hold", "remove", "release")]


def test_one_that_has_lost_its_workspace_is_taken_away(running: AgentSandboxes, engine: Engine) -> None:
    running.reconcile(A_SANDBOX, wait=0)
    for agent_id in ("coach-anna", "coach-ben"):
        engine.make(agent_id, A_SANDBOX)
    engine.here["coach-ben"] = engine.here["coach-ben"]._replace(lost=True)
    done = four_shots(running, engine, A_SANDBOX)
    assert (done.changed, done.updated, done.recreated) == (True, [], ["coach-ben"])
    assert engine.here.keys() == {"coach-anna"}


def test_who_is_at_work_is_waited_for_and_nobody_waits_for_her(
    running: AgentSandboxes, engine: Engine
) -> None:
    for agent_id in ("coach-anna", "coach-ben"):
        engine.make(agent_id, A_SANDBOX)
    engine.at_work["coach-anna"] = 3
    done = running.reconcile(ANOTHER, wait=60)
    assert (done.recreated, done.busy) == (["coach-anna", "coach-ben"], [])
    of_ben = [f"{deed} coach-ben" for deed in ("hold", "remove", "release")]
    assert engine.deeds[:4] == ["ask coach-anna", *of_ben]
    assert engine.deeds[4:] == [f"{deed} coach-anna" for deed in ("ask", "ask", "hold", "remove", "release")]


def test_who_does_not_end_is_busy_and_done_by_the_next_run(running: AgentSandboxes, engine: Engine) -> None:
    for agent_id in ("coach-anna", "coach-ben"):
        engine.make(agent_id, A_SANDBOX)
    engine.at_work["coach-anna"] = 2
    first = running.reconcile(ANOTHER, wait=0)
    assert (first.changed, first.recreated, first.busy) == (True, ["coach-ben"], ["coach-anna"])
    still = running.reconcile(ANOTHER, wait=0)
    assert (still.changed, still.recreated, still.busy) == (False, [], ["coach-anna"])
    assert engine.here.keys() == {"coach-anna"}
    last = running.reconcile(ANOTHER, wait=0)
    assert (last.changed, last.recreated, last.busy) == (True, ["coach-anna"], [])


@pytest.fixture
def had(tmp_path: Path) -> Sandbox:
    """A sandbox of an engine that is there."""
    (tmp_path / "docker.sock").touch()
    return replace(A_SANDBOX, docker_host=f"unix://{tmp_path / 'docker.sock'}")


@pytest.mark.parametrize("state", ["sandboxes", "running"])
def test_the_end_of_sandboxes(
    state: str, engine: Engine, had: Sandbox, request: pytest.FixtureRequest
) -> None:
    sandboxes: AgentSandboxes = request.getfixturevalue(state)
    before = files(sandboxes)["agents.json"]
    assert four_shots(sandboxes, engine, None) == NOTHING
    sandboxes.reconcile(had, wait=0)
    engine.make("coach-anna", had)
    done = four_shots(sandboxes, engine, None)
    assert (done.updated, done.recreated) == (["coach-anna", "coach-ben"], ["coach-anna"])
    assert [part["before_header"] for part in done.diff] == ["sandbox", "containers"]
    assert files(sandboxes)["agents.json"] == before
    assert engine.here == {} and Sandbox.load(sandboxes.gateway) is None


def test_who_is_at_work_keeps_what_there_is_to_go_on_with(
    running: AgentSandboxes, engine: Engine, had: Sandbox
) -> None:
    running.reconcile(had, wait=0)
    for agent_id in ("coach-anna", "coach-ben"):
        engine.make(agent_id, had)
    engine.at_work["coach-anna"] = 1
    first = running.take_away(wait=0)
    assert (first.changed, first.recreated, first.busy) == (True, ["coach-ben"], ["coach-anna"])
    assert Sandbox.load(running.gateway) == had
    last = running.take_away(wait=0)
    assert (last.changed, last.recreated, last.busy) == (True, ["coach-anna"], [])
    assert Sandbox.load(running.gateway) is None


def test_without_the_guard_they_are_taken_away_all_the_same(
    running: AgentSandboxes, engine: Engine, had: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.reconcile(had, wait=0)
    engine.make("coach-anna", had)
    monkeypatch.setattr(OfflineGateway, "rpc", lambda _self, _method: {"plugins": {"loaded": []}})
    assert four_shots(running, engine, None).recreated == ["coach-anna"]
    assert engine.deeds == ["remove coach-anna"]


def test_of_a_gateway_that_is_not_ready_nobody_is_known_to_be_idle(
    running: AgentSandboxes, engine: Engine, had: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.reconcile(had, wait=0)
    engine.make("coach-anna", had)
    answers = iter([None, None, None, True])
    monkeypatch.setattr(_sandbox, "is_guarded", lambda _gateway: next(answers))
    first = running.take_away(wait=0)
    assert (first.recreated, first.busy, engine.deeds) == ([], ["coach-anna"], [])
    assert running.take_away(wait=60).recreated == ["coach-anna"]
    assert engine.deeds == [f"{deed} coach-anna" for deed in ("hold", "remove", "release")]


def test_an_engine_that_is_gone_has_no_containers(
    running: AgentSandboxes, engine: Engine, had: Sandbox
) -> None:
    running.reconcile(had, wait=0)
    engine.make("coach-anna", had)
    Path(had.docker_host.removeprefix("unix://")).unlink()
    done = four_shots(running, engine, None)
    assert done.updated == ["coach-anna", "coach-ben"] and done.recreated == []


def test_an_engine_that_fails_holds_nobody(running: AgentSandboxes, engine: Engine) -> None:
    running.reconcile(A_SANDBOX, wait=0)
    engine.make("coach-anna", ANOTHER)
    engine.broken = True
    with pytest.raises(ContainersError):
        running.reconcile(A_SANDBOX, wait=0)
    assert engine.deeds[-1] == "release coach-anna"
    engine.broken = False
    assert running.reconcile(A_SANDBOX, wait=0).recreated == ["coach-anna"]


def test_without_the_image_nothing_is_written(running: AgentSandboxes, engine: Engine) -> None:
    running.reconcile(A_SANDBOX, wait=0)
    engine.make("coach-anna", A_SANDBOX)
    before = files(running)
    missing = replace(A_SANDBOX, image="claw-sandbox:3")
    with pytest.raises(
        ContainersError, match="there is no image claw-sandbox:3 on the machine, so nothing was"
    ):
        running.reconcile(missing, wait=0)
    assert files(running) == before and engine.here.keys() == {"coach-anna"}
    # The task before would have built it.
    assert running.reconcile(missing, wait=0, check=True).recreated == ["coach-anna"]


def test_without_the_guard_nothing_is_written(
    running: AgentSandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OfflineGateway, "rpc", lambda _self, _method: {"plugins": {"loaded": []}})
    before = files(running)
    with pytest.raises(_sandbox.GatewayError, match="nobody is given tools"):
        running.reconcile(A_SANDBOX, wait=0)
    assert files(running) == before


@pytest.mark.parametrize("first", [True, False])
def test_a_roster_that_is_refused_takes_the_descriptor_back(
    sandboxes: AgentSandboxes, engine: Engine, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    if not first:
        sandboxes.reconcile(A_SANDBOX, wait=0)
        engine.make("coach-anna", A_SANDBOX)
    before = files(sandboxes)
    monkeypatch.setattr(OfflineGateway, "validate", lambda _self, **_files: ["agents: no"])
    with pytest.raises(RosterError, match="OpenClaw would refuse the new roster"):
        sandboxes.reconcile(ANOTHER, wait=0)
    assert files(sandboxes) == before
    assert engine.deeds == []
