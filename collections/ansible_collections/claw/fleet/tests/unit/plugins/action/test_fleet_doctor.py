# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor on the controller: what it asks the app, what of that reaches the machine, and a machine that is away."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.claw.fleet.plugins.action.fleet_doctor import ActionModule
from ansible_collections.claw.fleet.plugins.module_utils import _doctor
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import TOKEN, CoachList, refuse, settled
from ansible_collections.claw.fleet.tests.unit.plugins.run_action import run_action


class Machine:
    """What the module on the machine is given, and what it answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[dict[str, Any]] = []
        self.answer: Any = {"findings": [], "now": time.time()}
        monkeypatch.setattr(ActionModule, "_execute_module", self._execute)

    def _execute(self, *, module_name: str, module_args: dict[str, Any], task_vars: Any) -> Any:
        assert module_name == "claw.fleet.fleet_doctor_look"
        self.given.append(module_args)
        answer = self.answer
        if isinstance(answer, Exception):
            raise answer  # pylint: disable=raising-bad-type
        return answer(module_args) if callable(answer) else answer


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def run(coach_list: CoachList, **args: Any) -> dict[str, Any]:
    access = {
        "api_url": coach_list.url,
        "api_token": TOKEN,
        "retries": 0,
        "gateway": "gw-a",
        "fail_on": "error",
    }
    result = run_action(ActionModule, {**access, **args})
    assert TOKEN not in str(result)
    return result


def codes(result: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in result["findings"]]


def test_the_machine_gets_hashes_and_neither_names_nor_tokens(
    coach_list: CoachList, machine: Machine
) -> None:
    coach_list.add(settled(1, "gw-a", agent_id="coach-anna", name="Anna", vars={"town": "Bern"}))
    coach_list.gateways["gw-a"] = {
        "name": "gw-a",
        "url": "http://m/gw-a",
        "token_sha256": "ab" * 32,
        "capacity": 1,
    }
    result = run(coach_list)
    assert (codes(result), result.get("failed", False)) == ([], False)
    (given,) = machine.given
    assert given["app"]["token_sha256"] == "ab" * 32
    assert [row["agent_id"] for row in given["rows"]] == ["coach-anna"]
    assert not {TOKEN, "Bern", "Anna"} & set(map(str, (*given["rows"][0].values(), *given.values())))
    assert "api_token" not in given and "api_url" not in given and TOKEN not in str(given)


def test_a_gateway_that_the_app_does_not_know_is_told_as_such(
    coach_list: CoachList, machine: Machine
) -> None:
    run(coach_list)
    assert machine.given[0]["app"] == {} and machine.given[0]["rows"] == []


def test_a_clock_that_is_wrong(coach_list: CoachList, machine: Machine) -> None:
    machine.answer["now"] = time.time() - 600
    assert codes(run(coach_list, fail_on="never")) == ["clock-wrong"]
    assert codes(run(coach_list, machine=False)) == []


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "service-token-refused"), (403, "service-token-refused"), (500, "app-unreachable")],
)
def test_an_app_that_refuses(coach_list: CoachList, machine: Machine, status: int, code: str) -> None:
    coach_list.faults = [refuse(status, "no")]
    result = run(coach_list)
    assert codes(result) == [code] and result["failed"] and code in result["msg"]
    assert machine.given[0]["app"] is None and machine.given[0]["rows"] is None


def test_an_app_that_is_not_to_be_asked(coach_list: CoachList, machine: Machine) -> None:
    assert codes(run(coach_list, api_url="")) == []
    assert coach_list.requests == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (AnsibleConnectionFailure("ssh: no route to host"), "machine-unreachable"),
        ({"unreachable": True, "msg": "no route"}, "machine-unreachable"),
        (
            {"failed": True, "msg": "MODULE FAILURE", "module_stderr": "sudo: a password is required"},
            "machine-refuses",
        ),
        (
            {
                "failed": True,
                "msg": "MODULE FAILURE",
                "module_stderr": "operator is not in the sudoers file.",
            },
            "machine-refuses",
        ),
        (AnsibleError("Missing sudo password"), "machine-refuses"),
        (AnsibleError("Incorrect sudo password"), "machine-refuses"),
        (AnsibleError("Premature end of stream waiting for become success."), "machine-refuses"),
        (
            AnsibleConnectionFailure("Timeout (12s) waiting for privilege escalation prompt: "),
            "machine-refuses",
        ),
        (
            {"failed": True, "msg": "x", "module_stderr": "sudo: unable to resolve host m\nKilled"},
            "check-failed",
        ),
        (AnsibleError("failed to transfer file"), "machine-unreachable"),
    ],
)
def test_a_machine_that_is_away(coach_list: CoachList, machine: Machine, answer: Any, code: str) -> None:
    machine.answer = answer
    result = run(coach_list, fail_on="never")
    assert codes(result) == [code] and "failed" not in result and "unreachable" not in result
    assert result["findings"][0]["evidence"]


def test_what_the_machine_found_is_told_by_weight(coach_list: CoachList, machine: Machine) -> None:
    common = {
        "gateway": "gw-a",
        "agent": "",
        "unit": "",
        "sentence": "It is so.",
        "evidence": "",
        "fix": "f",
        "remedies": [],
    }
    machine.answer = {
        "now": time.time(),
        "findings": [
            {**common, "code": "coach-waiting", "severity": "note"},
            {**common, "code": "disk-full", "severity": "error"},
        ],
    }
    result = run(coach_list)
    assert codes(result) == ["disk-full", "coach-waiting"]
    assert result["counts"] == {"error": 1, "warning": 0, "note": 1}
    assert result["failed"] and result["table"][0].startswith("error  disk-full")


class TestWhatTheAppIsToldMeanwhile:
    """Between asking it and looking on the machine."""

    def stale(self, code: str = "url-stale") -> dict[str, Any]:
        return _doctor.told(_doctor.Finding(code, "It is so."), "gw-a")

    def test_is_looked_at_again(self, coach_list: CoachList, machine: Machine) -> None:
        told = {"name": "gw-a", "url": "http://former/gw-a", "token_sha256": "ab" * 32, "capacity": 1}
        coach_list.gateways["gw-a"] = told

        def look(given: dict[str, Any]) -> dict[str, Any]:
            coach_list.gateways["gw-a"] = told | {"url": "http://now/gw-a"}
            wrong = given["app"]["url"] != "http://now/gw-a"
            return {"findings": [self.stale()] if wrong else [], "now": time.time()}

        machine.answer = look
        assert codes(run(coach_list)) == []
        assert [given["app"]["url"] for given in machine.given] == ["http://former/gw-a", "http://now/gw-a"]

    def test_is_told_where_it_stays_so(self, coach_list: CoachList, machine: Machine) -> None:
        coach_list.gateways["gw-a"] = {
            "name": "gw-a",
            "url": "http://former/gw-a",
            "token_sha256": "ab" * 32,
            "capacity": 1,
        }
        machine.answer["findings"] = [self.stale()]
        assert codes(run(coach_list, fail_on="never")) == ["url-stale"]
        assert len(machine.given) == 1

    def test_is_not_asked_for_what_the_machine_alone_has(
        self, coach_list: CoachList, machine: Machine
    ) -> None:
        run(coach_list)
        healthy = len(coach_list.requests)
        machine.answer["findings"] = [self.stale("disk-full")]
        run(coach_list, fail_on="never")
        assert len(coach_list.requests) == 2 * healthy

    def test_and_is_down_by_then(self, coach_list: CoachList, machine: Machine) -> None:
        def look(given: dict[str, Any]) -> dict[str, Any]:
            coach_list.faults = [refuse(500, "no")]
            return {"findings": [self.stale("key-mismatch")] if given["rows"] else [], "now": time.time()}

        coach_list.add(settled(1, "gw-a", agent_id="coach-anna"))
        machine.answer = look
        assert codes(run(coach_list, fail_on="never")) == ["app-unreachable"]

    def test_again_and_again_comes_to_an_end(self, coach_list: CoachList, machine: Machine) -> None:
        def look(given: dict[str, Any]) -> dict[str, Any]:
            coach_list.gateways["gw-a"] = {
                "name": "gw-a",
                "url": f"http://{len(machine.given)}/gw-a",
                "token_sha256": "ab" * 32,
                "capacity": 1,
            }
            return {"findings": [self.stale()], "now": time.time()}

        machine.answer = look
        assert codes(run(coach_list, fail_on="never")) == ["url-stale"]
        assert len(machine.given) == 3
