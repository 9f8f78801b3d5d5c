# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs an action plugin as the task executor does, with a connection that nothing may use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ansible.plugins.action import ActionBase


def run_action(action: type[ActionBase], args: dict[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """What the action returns for these arguments."""
    task = SimpleNamespace(args=args, check_mode=check_mode, async_val=0, action=action.__module__)
    unused = SimpleNamespace(
        _shell=SimpleNamespace(tmpdir="unused"), _play_context=SimpleNamespace(no_log=False)
    )
    result: dict[str, Any] = action(task, unused, SimpleNamespace(no_log=False), None, None, None).run(
        None, {}
    )
    return result
