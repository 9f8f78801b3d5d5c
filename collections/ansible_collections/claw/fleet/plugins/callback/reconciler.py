# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run changed and what failed, for a program to read."""

from __future__ import annotations

DOCUMENTATION = r"""
name: reconciler
type: stdout
short_description: One line of JSON for each change and each failure
version_added: 0.1.0
author: claw.fleet contributors (@claw-fleet)
description:
  - What the role P(claw.fleet.reconciler#role) reads of the playbooks it runs. A run that changes nothing prints
    nothing.
  - Each line is an object with C(kind) (V(changed), V(failed) or V(unreachable)), C(host), C(task) and C(msg).
    Of a result it holds the message alone, and nothing of a task with C(no_log).
"""

import json
from typing import Any

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """Prints lines."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "claw.fleet.reconciler"

    def v2_runner_on_ok(self, result: Any) -> None:
        """Tell a change."""
        self._handle_warnings(result.result)
        if result.result.get("changed"):
            self._tell("changed", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Tell a failure, also one that is rescued: what the rescue says comes after it."""
        self._handle_warnings(result.result)
        if not ignore_errors:
            self._tell("failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Tell that a host did not answer."""
        self._handle_warnings(result.result)
        self._tell("unreachable", result)

    def _tell(self, kind: str, result: Any) -> None:
        found = result.result
        said = (
            "" if kind == "changed" else str(found.get("msg") or found.get("censored") or "It says no more.")
        )
        line = {"kind": kind, "host": result.host.get_name(), "task": result.task.get_name(), "msg": said}
        self._display.display(json.dumps(line))
