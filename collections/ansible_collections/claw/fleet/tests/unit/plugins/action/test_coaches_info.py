# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look says that nothing is to be done exactly where the steps that it stands for would do and tell nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.action import (
    agent_key,
    coach_status,
    coaches_info,
    gateway_registration,
)
from ansible_collections.claw.fleet.plugins.module_utils._agents import Agents
from ansible_collections.claw.fleet.plugins.module_utils._coach import Row
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    Gateway,
    GatewayError,
    GatewayUnreachable,
    Served,
)
from ansible_collections.claw.fleet.plugins.module_utils._keys import FINAL, PENDING
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import UnitState
from ansible_collections.claw.fleet.plugins.module_utils._workspace import owned_files
from ansible_collections.claw.fleet.plugins.modules import coaches_info_look
from ansible_collections.claw.fleet.tests.unit.plugins.action.test_agent_key import Machine
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import TOKEN, CoachList, refuse, row
from ansible_collections.claw.fleet.tests.unit.plugins.offline import OfflineGateway
from ansible_collections.claw.fleet.tests.unit.plugins.run_action import run_action
from hypothesis import given, settings
from hypothesis import strategies as st

GATEWAY_TOKEN = "0f" * 24
COACHES = (1, 2, 3)
FILES = [
    {"src": "SOUL.md.j2", "dest": "SOUL.md", "owner": "agent"},
    {"src": "AGENTS.md.j2", "dest": "AGENTS.md", "owner": "fleet"},
]


class Serving(OfflineGateway):
    """Runs, and serves what is on disk, but for what a test says."""

    runs = True
    serves = True

    def unit_state(self) -> UnitState:
        if not Serving.runs:
            return UnitState("inactive", "dead", 0, "success", 0)
        return UnitState("active", "running", os.getpid(), "success", 0)

    def ready(self) -> bool:
        return True

    def wait_ready(self, timeout: float) -> UnitState:
        return self.unit_state()

    def rpc(self, method: str, params: Mapping[str, Any] | None = None, **_options: Any) -> Any:
        """Nobody has a scheduled job."""
        return {"jobs": []}

    def served(self) -> Served:
        if not Serving.serves:
            raise GatewayUnreachable("it says nothing")
        roster = Path(self.roster)
        return Served(True, True, json.loads(roster.read_text()) if roster.exists() else {}, [])


class World:
    """A machine, its gateway and Django, with three coaches for whom everything has been done."""

    def __init__(self, place: Path, django: CoachList, patch: pytest.MonkeyPatch) -> None:
        Serving.runs = Serving.serves = True
        self.machine = Machine(place)
        offline = self.machine.keys.gateway
        self.gateway = Serving(**{field.name: getattr(offline, field.name) for field in fields(offline)})
        self.machine.keys.gateway = self.gateway
        self.django = django
        self.state = Path(self.gateway.state_dir)
        self.template = "1"
        self.asked = 0
        world = self

        def execute(action: Any, **words: Any) -> Any:
            return world.execute(action, **words)

        for action in (agent_key.ActionModule, coaches_info.ActionModule):
            patch.setattr(action, "_execute_module", execute)
        # Its own files, in the place of what templates would give.
        patch.setattr(coaches_info, "Templates", lambda *_given: SimpleNamespace(render=self.contents))
        patch.setattr(Gateway, "load", lambda *_given: self.gateway)
        Path(self.gateway.token_file).write_text(f"{GATEWAY_TOKEN}\n")
        django.rows.clear()
        django.gateways.clear()
        django.add(*(row(number) for number in COACHES))
        self.steps()
        assert self.steps() is False

    def rows(self) -> list[Row]:
        return list(map(dict, self.django.rows.values()))

    def contents(self, rows: list[Row]) -> dict[str, dict[str, str]]:
        return {
            coach["agent_id"]: {file["dest"]: f"{coach['name']} {self.template}" for file in FILES}
            for coach in rows
            if coach["wanted"] == "running"
        }

    def look(self, *, check: bool = False, **args: Any) -> dict[str, Any]:
        given = {
            "gateway": "gw-a",
            "coaches": self.rows(),
            "url": "http://m:8080/gw-a",
            "capacity": 50,
            "token_file": self.gateway.token_file,
            "workspace_files": FILES,
            **args,
        }
        return self._run(coaches_info.ActionModule, check=check, **given)

    def execute(self, action: Any, module_name: str, module_args: dict[str, Any], task_vars: Any) -> Any:
        if module_name != "claw.fleet.coaches_info_look":
            return self.machine.execute(action, module_name, module_args, task_vars)
        self.asked += 1
        assert TOKEN not in json.dumps(module_args), "the service token would be on the machine"
        defaults = {name: spec.get("default") for name, spec in coaches_info_look.ARGUMENT_SPEC.items()}
        try:
            return coaches_info_look.look({**defaults, **module_args})
        except GatewayError as error:
            return {"failed": True, "msg": str(error)}

    def steps(self) -> bool:
        """What the role does where the look says that there is something; whether any step did, warned or wrote anything."""
        manifest = Path(self.gateway.config_dir) / "manifest.json"
        recorded = manifest.read_bytes() if manifest.exists() else b""
        registered = self._run(
            gateway_registration.ActionModule,
            name="gw-a",
            url="http://m:8080/gw-a",
            capacity=50,
            token=GATEWAY_TOKEN,
        )
        claimed = self._run(coach_status.ActionModule, coaches=self.rows(), claim="gw-a")
        keyed = self._run(agent_key.ActionModule, gateway="gw-a", agents=claimed["results"])
        files = owned_files({"workspace_files": FILES, "contents": self.contents(keyed["results"])})
        served = Agents(self.gateway).reconcile(keyed["results"], files)
        marked = self._run(coach_status.ActionModule, coaches=served.results, activating=True)
        outcome = self._run(coach_status.ActionModule, coaches=marked["results"], fail_on_error=True)
        changed = any(step["changed"] for step in (registered, claimed, keyed, marked, outcome))
        failed = bool(outcome.get("failed")) or not served.served
        wrote = manifest.read_bytes() != recorded
        return bool(changed or served.changed or served.warnings or failed or wrote)

    def _run(self, action: type[ActionBase], *, check: bool = False, **args: Any) -> dict[str, Any]:
        access = {"api_url": self.django.url, "api_token": TOKEN, "retries": 0}
        return run_action(action, {**access, **args}, check_mode=check)


@pytest.fixture
def world(tmp_path: Path, coach_list: CoachList, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, coach_list, monkeypatch)


def test_nothing_is_to_be_done_where_all_is_done(world: World) -> None:
    requests = len(world.django.requests)
    for check in (False, True):
        seen = world.look(check=check)
        assert (seen["settled"], seen["reason"], seen["changed"]) == (True, "", False)
        assert GATEWAY_TOKEN not in str(seen)
    assert [method for method, *_rest in world.django.requests[requests:]] == ["GET"] * 2


def of_a_row(**values: Any) -> Callable[[World], None]:
    return lambda world: world.django.rows[2].update(values)


def of_a_file(change: Callable[[Path], object], *parts: str) -> Callable[[World], None]:
    return lambda world: change(world.state.joinpath(*parts)) and None


def another_template(world: World) -> None:
    world.template = "2"


def another_entry(world: World) -> None:
    roster = Path(world.gateway.roster)
    entries = json.loads(roster.read_text())
    entries["coach-2"]["name"] = "Somebody"
    roster.write_text(json.dumps(entries))


def of_django(**values: Any) -> Callable[[World], None]:
    return lambda world: world.django.gateways["gw-a"].update(values)


def stopped(_world: World) -> None:
    Serving.runs = False


KEYS = ("credentials", "coach-2")


def what_was_hers_is_the_fleets(world: World) -> None:
    """Somebody changed a file, and changed it to what a newer template makes of it."""
    world.template = "3"
    path = world.state / "workspaces" / "coach-2" / "AGENTS.md"
    path.write_text(world.contents(world.rows())["coach-2"]["AGENTS.md"])


CHANGES: dict[str, Callable[[World], None]] = {
    "another name": of_a_row(name="Zoe"),
    "a new generation": of_a_row(generation=2),
    "paused": of_a_row(wanted="paused"),
    "removed": of_a_row(wanted="removed"),
    "in error": of_a_row(status="error", reason="something"),
    "a reason that is left": of_a_row(reason="something"),
    "another's": of_a_row(gateway="gw-b"),
    "nobody's": of_a_row(gateway=None),
    "a bad row": of_a_row(name="a\nb"),
    "another key is wanted": of_a_row(key_wanted_generation=2),
    "Django has another key": of_a_row(key_sha256="ab" * 32),
    "the key is gone": of_a_file(Path.unlink, *KEYS, FINAL),
    "the key is open": of_a_file(lambda path: path.chmod(0o644), *KEYS, FINAL),
    "a key is pending": of_a_file(
        lambda path: path.with_name(PENDING).write_bytes(path.read_bytes()), *KEYS, FINAL
    ),
    "the key is broken": of_a_file(lambda path: path.write_text("{"), *KEYS, FINAL),
    "a workspace is gone": of_a_file(shutil.rmtree, "workspaces", "coach-2"),
    "a workspace is open": of_a_file(lambda path: path.chmod(0o755), "workspaces", "coach-2"),
    "a file of the fleet is gone": of_a_file(Path.unlink, "workspaces", "coach-2", "AGENTS.md"),
    "a file of the fleet is hers": of_a_file(
        lambda path: path.write_text("mine"), "workspaces", "coach-2", "AGENTS.md"
    ),
    "a file of the agent is hers": of_a_file(
        lambda path: path.write_text("mine"), "workspaces", "coach-2", "SOUL.md"
    ),
    "another template": another_template,
    "a file was made equal by hand": what_was_hers_is_the_fleets,
    "the manifest is gone": lambda world: (Path(world.gateway.config_dir) / "manifest.json").unlink(),
    "another entry": another_entry,
    "the gateway is stopped": stopped,
    "another URL": of_django(url="http://n"),
    "another capacity": of_django(capacity=1),
    "another token": of_django(token_sha256="ab" * 32),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_look_and_the_steps_agree(world: World, change: str) -> None:
    CHANGES[change](world)
    settled = world.look()["settled"]
    assert world.look(check=True)["settled"] is settled
    assert world.steps() is not settled


@settings(max_examples=25)
@given(changes=st.lists(st.sampled_from(sorted(CHANGES)), max_size=3))
def test_the_look_and_the_steps_agree_of_all_that_has_happened(
    tmp_path_factory: pytest.TempPathFactory, no_authorities: None, changes: list[str]
) -> None:
    with CoachList().serving() as django, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        world = World(tmp_path_factory.mktemp("world"), django, patch)
        for change in changes:
            with suppress(FileNotFoundError):
                CHANGES[change](world)
        settled = world.look()["settled"]
        assert world.steps() is not settled


def test_what_people_want_is_seen_without_the_machine(world: World) -> None:
    CHANGES["a new generation"](world)
    seen = world.look()
    assert seen["reason"] == "Something is wanted of 1 of 3 coaches."
    assert world.asked == 0


def test_a_new_key_for_somebody_here_is_something_to_do(world: World) -> None:
    assert world.look(rotate=["coach-2", "coach-9"])["reason"] == "New keys are wanted for coach-2."
    assert world.look(rotate=["coach-9"])["settled"]


def test_an_empty_list_is_never_settled(world: World) -> None:
    assert world.look(coaches=[])["settled"] is False


def test_an_agent_too_many_counts_where_the_list_is_the_whole_truth(world: World) -> None:
    del world.django.rows[3]
    assert world.look()["settled"] is True
    assert world.look(purge=True)["settled"] is False


def test_what_is_only_told_is_told(world: World) -> None:
    another_template(world)
    del world.django.rows[3]
    seen = world.look()
    assert (seen["settled"], seen["unlisted"]) == (True, ["coach-3"])
    assert seen["outdated"] == {"coach-1": ["AGENTS.md"], "coach-2": ["AGENTS.md"]}


def test_a_gateway_that_does_not_say_so_does_not_serve(world: World) -> None:
    Serving.serves = False
    assert world.look()["reason"] == "Something on the machine is to be set right."


def test_what_cannot_be_seen_is_something_to_do(world: World) -> None:
    Path(world.gateway.token_file).unlink()
    assert "token is not there" in world.look()["reason"]
    Path(world.gateway.token_file).write_text(GATEWAY_TOKEN)
    world.django.faults.append(refuse(503))
    seen = world.look()
    assert seen["settled"] is False
    assert "503" in seen["reason"]
