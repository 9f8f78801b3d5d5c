# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The token of a machine's tunnel: made there, its hash made known for the machine's gateways alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.claw.fleet.plugins.action.tunnel_token import ActionModule
from ansible_collections.claw.fleet.plugins.modules import tunnel_token_file
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import TOKEN, CoachList, refuse
from ansible_collections.claw.fleet.tests.unit.plugins.run_action import run_action


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a machine's tunnel; the module runs in this process, and says what it would say."""

    class Module:
        def __init__(self, **_spec: Any) -> None:
            self.params = Module.given
            self.check_mode = Module.checking

        checking = False
        given: dict[str, Any] = {}  # noqa: RUF012 - what the last call gave

        def exit_json(self, **told: Any) -> None:
            raise Told(told)

        def fail_json(self, msg: str) -> None:
            raise Told({"failed": True, "msg": msg})

    class Told(Exception):
        pass

    def execute(
        action: ActionModule, module_name: str, module_args: dict[str, Any], **_more: Any
    ) -> dict[str, Any]:
        assert (module_name, module_args["tunnel_dir"]) == ("claw.fleet.tunnel_token_file", str(tmp_path))
        Module.given = module_args
        Module.checking = action._task.check_mode
        with pytest.raises(Told) as told:
            tunnel_token_file.main()
        found: dict[str, Any] = told.value.args[0]
        return found

    monkeypatch.setattr(tunnel_token_file, "AnsibleModule", Module)
    monkeypatch.setattr(ActionModule, "_execute_module", execute)
    (tmp_path / "gateways.d").mkdir()
    return tmp_path


def run(coach_list: CoachList, machine: Path, *gateways: str, check_mode: bool = False) -> dict[str, Any]:
    access = {"api_url": coach_list.url, "api_token": TOKEN, "retries": 0}
    given = {**access, "name": "tunnel of m", "gateways": list(gateways), "tunnel_dir": str(machine)}
    return run_action(ActionModule, given, check_mode=check_mode)


def behind_it(machine: Path, *gateways: str) -> None:
    for name in gateways:
        (machine / "gateways.d" / f"{name}.json").write_text('{"hostname": ""}')


def test_four_times(coach_list: CoachList, machine: Path) -> None:
    predicted = run(coach_list, machine, "gw-a", check_mode=True)
    assert not (machine / "token").exists() and coach_list.service_tokens == {}
    behind_it(machine, "gw-a")
    done = run(coach_list, machine, "gw-a")
    assert (
        (done["changed"], done["diff"]) == (predicted["changed"], predicted["diff"]) == (True, done["diff"])
    )
    token = (machine / "token").read_text().strip()
    assert (machine / "token").stat().st_mode & 0o777 == 0o600 and len(token) >= 43
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert coach_list.scopes == {digest: ["gw-a"]} and coach_list.service_tokens == {digest: True}
    for check_mode in (False, True):
        assert not run(coach_list, machine, "gw-a", check_mode=check_mode)["changed"]
    assert token not in json.dumps(done) + json.dumps(coach_list.requests)


def test_one_more_gateway_is_added_and_one_that_is_not_in_this_run_stays(
    coach_list: CoachList, machine: Path
) -> None:
    behind_it(machine, "gw-a", "gw-b")
    run(coach_list, machine, "gw-b")
    behind_it(machine, "gw-c")
    told = run(coach_list, machine, "gw-c")
    assert told["changed"] and told["gateways"] == ["gw-a", "gw-b", "gw-c"]
    assert list(coach_list.scopes.values()) == [["gw-a", "gw-b", "gw-c"]]


def test_one_that_was_revoked_is_replaced(coach_list: CoachList, machine: Path) -> None:
    behind_it(machine, "gw-a")
    run(coach_list, machine, "gw-a")
    former = (machine / "token").read_text()
    (digest,) = coach_list.service_tokens
    coach_list.service_tokens[digest] = False
    assert run(coach_list, machine, "gw-a", check_mode=True)["changed"]
    assert (machine / "token").read_text() == former
    assert run(coach_list, machine, "gw-a")["changed"]
    assert (machine / "token").read_text() != former
    assert [good for good in coach_list.service_tokens.values() if good] == [True]
    assert not run(coach_list, machine, "gw-a")["changed"]


def test_a_run_that_ended_before_the_app_knew_is_carried_on(coach_list: CoachList, machine: Path) -> None:
    behind_it(machine, "gw-a")
    coach_list.faults = [refuse(503)]
    with pytest.raises(AnsibleActionFail, match="503"):
        run(coach_list, machine, "gw-a")
    token = (machine / "token").read_text()
    assert run(coach_list, machine, "gw-a")["changed"]
    assert (machine / "token").read_text() == token
    assert list(coach_list.scopes.values()) == [["gw-a"]]
