# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of claw.fleet.openclaw_agent: rendering each coach's files."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.modules.openclaw_agent import ARGUMENT_SPEC
from ansible_collections.claw.fleet.plugins.plugin_utils.actions import plain_rows
from ansible_collections.claw.fleet.plugins.plugin_utils.workspace_templates import Templates


class ActionModule(ActionBase):
    """Render on the controller, then do everything else in one call of the module."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        rows = plain_rows(args["agents"])
        args["contents"] = Templates(self, args, task_vars or {}).render(rows)
        args["agents"] = rows
        result.update(
            self._execute_module(
                module_name="claw.fleet.openclaw_agent", module_args=args, task_vars=task_vars
            )
        )
        return result
