# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another token for a gateway, between its machine and Django; the gateway that takes it is a real one elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.claw.fleet.plugins.action.gateway_token import ActionModule
from ansible_collections.claw.fleet.plugins.module_utils._gateway_secrets import SecretFiles
from ansible_collections.claw.fleet.plugins.modules import gateway_token_file
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import TOKEN, CoachList, refuse
from ansible_collections.claw.fleet.tests.unit.plugins.offline import offline_gateway
from ansible_collections.claw.fleet.tests.unit.plugins.run_action import run_action

FIRST = "0f" * 24


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Machine:
    """Does what claw.fleet.gateway_token_file does, in this process; dies before a step when told to."""

    def __init__(self, place: Path) -> None:
        self.files = SecretFiles(offline_gateway(place))
        self.files.have(self.files.token, FIRST, check=False)
        self.steps: list[str] = []
        self.dies_at = ""

    def execute(self, action: Any, module_name: str, module_args: dict[str, Any]) -> dict[str, Any]:
        assert module_name == "claw.fleet.gateway_token_file"
        assert action._play_context.no_log, "a token would be printed at -vvv"
        step = module_args["step"]
        if step == self.dies_at:
            return {"failed": True, "msg": "no answer", "pending": self.read("token.pending")}
        self.steps.append(step)
        if step == "prepare":
            told = gateway_token_file.prepare(
                self.files, module_args["token"], module_args["max_age_days"], action._task.check_mode
            )
        else:
            told = {"use": gateway_token_file.use, "finish": gateway_token_file.finish}[step](self.files)
        return {**told, "token_sha256": sha256(self.read("token"))}

    def read(self, name: str) -> str:
        return self.files.read(self.files.state / name)

    def names(self) -> set[str]:
        return {path.name for path in self.files.state.iterdir()}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)

    def execute(action: ActionModule, *, task_vars: Any, **words: Any) -> dict[str, Any]:
        return machine.execute(action, **words)

    monkeypatch.setattr(ActionModule, "_execute_module", execute)
    return machine


@pytest.fixture
def django(coach_list: CoachList) -> CoachList:
    """A Django that knows the gateway and its token."""
    coach_list.gateways["gw-a"] = {"capacity": 9, "token_sha256": sha256(FIRST), "next_token_sha256": ""}
    return coach_list


def run(coach_list: CoachList, *, check_mode: bool = False, **args: Any) -> dict[str, Any]:
    access = {"api_url": coach_list.url, "api_token": TOKEN, "retries": 0}
    return run_action(ActionModule, {**access, "gateway": "gw-a", **args}, check_mode=check_mode)


def known(coach_list: CoachList) -> tuple[str, str]:
    gateway = coach_list.gateways["gw-a"]
    return gateway["token_sha256"], gateway["next_token_sha256"]


def test_four_times(machine: Machine, django: CoachList) -> None:
    predicted = run(django, check_mode=True)
    assert machine.names() == {"token"} and django.requests == []
    done = run(django)
    new = machine.read("token")
    assert (done["changed"], done["diff"]) == (True, predicted["diff"])
    assert new != FIRST and machine.names() == {"token"}
    assert known(django) == (sha256(new), "") == (done["token_sha256"], "")
    assert [body for _verb, _path, body in django.writes] == [{"next_token": new}, {"token": new}]
    assert machine.steps == ["prepare", "prepare", "use", "finish"]
    for token in (FIRST, new):
        assert token not in str([predicted, done])
    writes = len(django.writes)
    for check_mode in (False, True):
        again = run(django, check_mode=check_mode, max_age_days=1)
        assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"]
    assert len(django.writes) == writes and machine.read("token") == new


@pytest.mark.parametrize("step", ["use", "finish", "announced", "settled"])
def test_killed_between_steps_the_next_run_goes_on_with_the_same_token(
    machine: Machine, django: CoachList, step: str
) -> None:
    if step == "announced":
        django.faults = [None, refuse(500)]
    elif step == "settled":
        django.faults = [None, None, refuse(500)]
    else:
        machine.dies_at = step
    with pytest.raises(AnsibleActionFail) as caught:
        run(django)
    pending = machine.read("token.pending")
    assert pending and pending not in str(caught.value)
    # At every moment Django has the token that the gateway takes.
    assert sha256(machine.read("token")) in known(django)
    machine.dies_at = ""
    assert run(django, check_mode=True, max_age_days=9)["changed"]
    assert run(django, max_age_days=9)["changed"]
    assert machine.read("token") == pending and machine.names() == {"token"}
    assert known(django) == (sha256(pending), "")
    assert not run(django, max_age_days=9)["changed"]


def test_a_given_token_is_taken_once(machine: Machine, django: CoachList) -> None:
    given = "ab" * 24
    assert run(django, token=given)["changed"]
    assert machine.read("token") == given and known(django) == (sha256(given), "")
    assert not run(django, token=given)["changed"]
    assert not run(django, token=given, check_mode=True)["changed"]


@pytest.mark.parametrize("step", ["use", "finish"])
def test_a_given_token_comes_after_what_an_earlier_run_has_begun(
    machine: Machine, django: CoachList, step: str
) -> None:
    machine.dies_at = step
    with pytest.raises(AnsibleActionFail):
        run(django)
    machine.dies_at = ""
    assert run(django, token="ab" * 24)["changed"]
    assert machine.read("token") == "ab" * 24 and machine.names() == {"token"}
    assert known(django) == (sha256("ab" * 24), "")


def test_a_django_that_keeps_one_token_is_told_before_anything_is_lost(
    machine: Machine, django: CoachList
) -> None:
    # It takes the request, and ignores what it does not know.
    django.faults = [None, lambda handler: handler.answer(200, {"token_sha256": sha256(FIRST)})]
    with pytest.raises(AnsibleActionFail, match="next_token"):
        run(django)
    assert machine.read("token") == FIRST


def test_a_gateway_that_django_does_not_know_is_not_told_to_it(
    machine: Machine, coach_list: CoachList
) -> None:
    assert run(coach_list)["changed"]
    assert machine.read("token") != FIRST and coach_list.writes == []
