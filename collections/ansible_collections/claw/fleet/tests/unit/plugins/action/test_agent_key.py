# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller between a machine with keys and Django."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.action.agent_key import ActionModule
from ansible_collections.claw.fleet.plugins.module_utils._coach import check_rows
from ansible_collections.claw.fleet.plugins.module_utils._keys import FINAL, PENDING, Keys
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import TOKEN, CoachList, refuse, row
from ansible_collections.claw.fleet.tests.unit.plugins.offline import offline_gateway
from ansible_collections.claw.fleet.tests.unit.plugins.run_action import run_action


class Machine:
    """Does what claw.fleet.agent_key_file does, in this process; ``calls`` are its arguments."""

    def __init__(self, place: Path) -> None:
        self.keys = Keys(offline_gateway(place))
        self.calls: list[dict[str, Any]] = []

    def execute(
        self, action: Any, module_name: str, module_args: dict[str, Any], task_vars: Any
    ) -> dict[str, Any]:
        assert module_name == "claw.fleet.agent_key_file"
        self.calls.append(module_args)
        if "registered" in module_args:
            wrong = self.keys.conclude(module_args["registered"], module_args["revoked"])
            return {"wrong": wrong, "changed": True}
        assert action._play_context.no_log == module_args["reveal"], "a key would be printed at -vvv"
        results, changed = self.keys.prepare(
            check_rows(module_args["agents"]),
            state=module_args["state"],
            api_url=module_args["coach_api_url"],
            rotate=module_args["rotate"],
            reveal=module_args["reveal"],
            check=action._task.check_mode,
        )
        return {"results": results, "changed": changed}

    def secret(self, agent_id: str = "coach-1", name: str = FINAL) -> str:
        path = Path(self.keys.gateway.state_dir) / "credentials" / agent_id / name
        return str(json.loads(path.read_text())["api_key"])


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)

    def execute(action: ActionModule, **words: Any) -> dict[str, Any]:
        return machine.execute(action, **words)

    monkeypatch.setattr(ActionModule, "_execute_module", execute)
    return machine


def run(coach_list: CoachList, *rows: dict[str, Any], check: bool = False, **args: Any) -> dict[str, Any]:
    access = {"api_url": coach_list.url, "api_token": TOKEN, "retries": 0}
    coaches = [dict(item) for item in rows]
    return run_action(
        ActionModule, {**access, "gateway": "gw-a", "agents": coaches, **args}, check_mode=check
    )


def test_four_shots(machine: Machine, coach_list: CoachList) -> None:
    predicted = run(coach_list, row(1), check=True)
    assert coach_list.requests == []
    assert predicted["changed"] is True
    assert predicted["results"][0]["actions"] == ["made key"]

    done = run(coach_list, row(1))
    (coach,) = done["results"]
    assert (done["changed"], coach["actions"]) == (True, [f"made key {coach['key_id']}"])
    sent = {field: coach[field] for field in ("key_id", "key_sha256", "key_generation")}
    assert coach_list.writes == [("POST", "internal/set-key/coach-1/", sent)]
    assert len(machine.calls) == 3

    for check in (False, True):
        again = run(coach_list, coach, check=check)
        assert (again["changed"], again["diff"]) == (False, [])
    assert len(coach_list.requests) == 1
    assert len(machine.calls) == 5


def test_neither_the_key_nor_the_service_token_goes_where_it_does_not_belong(
    machine: Machine, coach_list: CoachList
) -> None:
    done = run(coach_list, row(1))
    told = json.dumps([done, coach_list.requests, machine.calls], default=str)
    assert machine.secret() not in told
    assert TOKEN not in json.dumps(machine.calls)


def test_the_key_itself_is_sent_where_the_app_wants_it(machine: Machine, coach_list: CoachList) -> None:
    done = run(coach_list, row(1), api={"send": "plaintext"})
    assert coach_list.writes[0][2]["api_key"] == machine.secret()
    assert machine.secret() not in json.dumps(done)


def test_what_django_refuses_is_that_coachs_error_and_stays_pending(
    machine: Machine, coach_list: CoachList
) -> None:
    coach_list.faults = [refuse(404, "No such agent.")]
    done = run(coach_list, row(1), row(2))
    assert "No such agent" in done["results"][0]["error"]["reason"]
    assert done["results"][1]["key_id"]
    pending = machine.secret(name=PENDING)
    again = run(coach_list, row(1), done["results"][1])
    assert again["results"][0]["actions"] == [f"promoted key {again['results'][0]['key_id']}"]
    assert machine.secret() == pending


def test_a_django_that_is_gone_ends_it_with_what_was_done(machine: Machine, coach_list: CoachList) -> None:
    coach_list.faults = [None, refuse(500)]
    done = run(coach_list, row(1), row(2), row(3))
    assert done["failed"] is True
    assert "Nothing was done for coach-2 and those after." in done["msg"]
    assert [bool(item["key_id"]) for item in done["results"]] == [True, False, False]
    assert machine.secret("coach-1")
    assert len(coach_list.requests) == 2


def test_a_key_is_revoked_before_its_files_go(machine: Machine, coach_list: CoachList) -> None:
    (coach,) = run(coach_list, row(1))["results"]
    coach_list.faults = [refuse(500)]
    gone = {**coach, "wanted": "removed"}
    assert run(coach_list, gone)["failed"] is True
    assert machine.secret()

    done = run(coach_list, gone)
    assert done["results"][0]["actions"][-1] == "revoked key"
    assert (done["results"][0]["key_id"], done["results"][0]["key_sha256"]) == ("", "")
    with pytest.raises(FileNotFoundError):
        machine.secret()
    assert coach_list.writes[-1] == ("DELETE", "internal/set-key/coach-1/", None)
    requests = len(coach_list.requests)
    assert run(coach_list, done["results"][0])["changed"] is False
    assert len(coach_list.requests) == requests


def test_a_row_in_error_is_carried_past(machine: Machine, coach_list: CoachList) -> None:
    failed = row(1, error={"step": "claim", "reason": "because"})
    done = run(coach_list, failed)
    assert (done["results"], done["changed"]) == ([failed], False)
    assert coach_list.requests == []


def test_the_diff_shows_ids_and_the_beginning_of_hashes(machine: Machine, coach_list: CoachList) -> None:
    done = run(coach_list, row(1))
    (change,) = done["diff"]
    coach = done["results"][0]
    assert change["before"] == {"key_id": "", "key_sha256": "", "key_generation": 0}
    assert change["after"] == {
        "key_id": coach["key_id"],
        "key_sha256": coach["key_sha256"][:12],
        "key_generation": 1,
    }


def test_the_key_before_stays_good_until_the_new_one_is_in_its_place(
    machine: Machine, coach_list: CoachList
) -> None:
    first, other = run(coach_list, row(1), row(2))["results"]
    coach_list.requests.clear()
    predicted = run(coach_list, first, other, rotate=["coach-1"], check=True)
    assert predicted["changed"] and coach_list.requests == []
    done = run(coach_list, first, other, rotate=["coach-1"])
    assert done["changed"] and done["results"][1] == {**other}
    assert done["results"][0]["key_sha256"] != first["key_sha256"]
    assert done["results"][0]["key_generation"] == first["key_generation"]
    assert [(path, body["former_seconds"]) for _verb, path, body in coach_list.writes] == [
        ("internal/set-key/coach-1/", 120),
        ("internal/set-key/coach-1/", 5),
    ]
    assert not run(coach_list, *done["results"])["changed"]


def test_a_rotation_that_was_cut_off_goes_on_with_the_same_key(
    machine: Machine, coach_list: CoachList
) -> None:
    (coach,) = run(coach_list, row(1))["results"]
    coach_list.faults = [refuse(500)]
    assert run(coach_list, coach, rotate=["coach-1"])["failed"]
    pending = machine.secret(name=PENDING)
    done = run(coach_list, coach, rotate=["coach-1"])
    assert done["changed"] and machine.secret() == pending


def test_the_key_before_is_not_forgotten_where_the_run_ended_after_registration(
    machine: Machine, coach_list: CoachList, monkeypatch: pytest.MonkeyPatch
) -> None:
    (coach,) = run(coach_list, row(1))["results"]
    with monkeypatch.context() as patch:
        patch.setattr(Keys, "conclude", lambda *args: {"coach-1": "the machine went away"})
        failed = run(coach_list, coach, rotate=["coach-1"])["results"][0]
    assert "went away" in failed["error"]["reason"]
    assert coach_list.writes[-1][2]["former_seconds"] == 120
    now = {**coach, **{field: failed[field] for field in ("key_id", "key_sha256", "key_generation")}}
    assert run(coach_list, now)["changed"]
    assert coach_list.writes[-1][2]["former_seconds"] == 5
