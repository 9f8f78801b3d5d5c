# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of claw.fleet.coaches_info: from what costs nothing to see, to what a machine is asked for."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.module_utils._coach import Row, has_error, is_due
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import ApiError, Client, OptionsError
from ansible_collections.claw.fleet.plugins.modules import coaches_info, coaches_info_look
from ansible_collections.claw.fleet.plugins.plugin_utils.actions import plain_rows
from ansible_collections.claw.fleet.plugins.plugin_utils.registrations import Registration
from ansible_collections.claw.fleet.plugins.plugin_utils.status_plans import (
    plan_activating,
    plan_claim,
    plan_outcome,
)
from ansible_collections.claw.fleet.plugins.plugin_utils.workspace_templates import Templates

_TOLD = ("unlisted", "outdated", "warnings", "deprecations", "ansible_facts")


class ActionModule(ActionBase):
    """Look for the first thing that is to be done."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self.validate_argument_spec(coaches_info.ARGUMENT_SPEC)[1]
        rows = plain_rows(args["coaches"])
        try:
            reason = _wanted(rows, args["gateway"], args["rotate"])
            reason = reason or self._seen(rows, args, task_vars or {}, result)
        except (AnsibleActionFail, ApiError, OptionsError) as exc:
            reason = str(exc)
        return {**result, "changed": False, "settled": not reason, "reason": reason}

    def _seen(
        self, rows: list[Row], args: dict[str, Any], task_vars: dict[str, Any], result: dict[str, Any]
    ) -> str:
        """What the templates, the machine and then Django say that there is to do; what else is told, into ``result``."""
        contents = Templates(self, args, task_vars).render(rows)
        if any(map(has_error, rows)):
            return "A file cannot be rendered for each of the coaches."
        given = {name: args[name] for name in coaches_info_look.ARGUMENT_SPEC if name in args}
        given.update(agents=rows, contents=contents, coach_api_url=args["coach_api_url"] or args["api_url"])
        found = self._execute_module(
            module_name="claw.fleet.coaches_info_look", module_args=given, task_vars=task_vars
        )
        if found.get("failed"):
            return f"The machine could not say: {found.get('msg', '')}"
        result.update({name: found[name] for name in _TOLD if name in found})
        if not found["settled"]:
            return "Something on the machine is to be set right."
        known = Registration.ask(
            Client.of(args),
            args["gateway"],
            url=args["url"],
            capacity=args["capacity"],
            token_sha256=found["token_sha256"],
        )
        return "Django is to be told the way to the gateway." if known.differs else ""


def _wanted(rows: list[Row], gateway: str, rotate: list[str]) -> str:
    """What the rows alone say that there is to do."""
    if not rows:
        return "There is no coach in the list."
    anew = sorted({row["agent_id"] for row in rows} & set(rotate))
    if anew:
        return f"New keys are wanted for {', '.join(anew)}."
    due = sum(not _is_settled({**row, "proposed_gateway": gateway}, gateway) for row in rows)
    return f"Something is wanted of {due} of {len(rows)} coaches." if due else ""


def _is_settled(row: Row, gateway: str) -> bool:
    plans = (plan_claim(row, gateway), plan_activating(row), plan_outcome(row))
    return not any(plans) and not is_due(row) and not has_error(row)
