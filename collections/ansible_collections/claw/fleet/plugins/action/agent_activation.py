# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of claw.fleet.agent_activation: a machine is asked only where somebody may be due."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.module_utils._activation import is_due
from ansible_collections.claw.fleet.plugins.modules.agent_activation import ARGUMENT_SPEC
from ansible_collections.claw.fleet.plugins.plugin_utils.actions import plain_rows


class ActionModule(ActionBase):
    """Run the module, or say at once that nobody is due."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        rows = plain_rows(args["agents"])
        if not any(is_due(row, set()) for row in rows):
            return {**result, "results": rows, "changed": False}
        return {
            **result,
            **self._execute_module(
                module_name="claw.fleet.agent_activation",
                module_args={**args, "agents": rows},
                task_vars=task_vars,
            ),
        }
