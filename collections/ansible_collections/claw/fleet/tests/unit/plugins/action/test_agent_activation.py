# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom a machine is asked about for first turns."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.claw.fleet.plugins.action.agent_activation import ActionModule
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import row
from ansible_collections.claw.fleet.tests.unit.plugins.run_action import run_action


def run(*rows: dict[str, Any]) -> dict[str, Any]:
    return run_action(ActionModule, {"gateway": "gw-a", "agents": list(rows)})


def test_nobody_is_due_and_no_machine_is_asked() -> None:
    rows = [
        row(1, status="active"),
        row(2, wanted="paused"),
        row(3, wanted="removed"),
        row(4, error={"step": "agent", "reason": "because"}),
    ]
    result = run(*rows)
    assert result["changed"] is False
    assert [found["agent_id"] for found in result["results"]] == [given["agent_id"] for given in rows]


def test_who_is_due_is_for_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def execute(self: ActionModule, module_args: dict[str, Any], **_rest: Any) -> dict[str, Any]:
        asked.append(module_args)
        return {"changed": True, "results": module_args["agents"]}

    monkeypatch.setattr(ActionModule, "_execute_module", execute)
    assert run(row(1, status="active"), row(2))["changed"] is True
    assert [found["agent_id"] for found in asked[0]["agents"]] == ["coach-1", "coach-2"]
    assert asked[0]["timeout"] == 120


def test_a_list_that_is_none_is_refused() -> None:
    with pytest.raises(AnsibleActionFail):
        run_action(ActionModule, {"gateway": "gw-a", "agents": [{"pk": 1}, {"pk": 1}]})
