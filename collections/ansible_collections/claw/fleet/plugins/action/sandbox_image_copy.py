# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of claw.fleet.sandbox_image_copy: it has the image between two machines."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.claw.fleet.plugins.modules.sandbox_image_copy import ARGUMENT_SPEC
from ansible_collections.claw.fleet.plugins.plugin_utils.actions import place_on_machine


class ActionModule(ActionBase):
    """Fetch the image of a machine that has it, or send it to one that lacks it."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        args: dict[str, Any] = {**self.validate_argument_spec(ARGUMENT_SPEC)[1], "archive": None}
        archive = _archive(args["image"], args["id"])
        if args["state"] == "saved":
            return self._save(args, archive, variables)
        found = self._module(args, variables)
        if found.get("failed") or found["present"] or self._task.check_mode:
            return found
        if not archive.exists():
            raise AnsibleActionFail(
                f"{args['image']} is not on the controller; have it saved by a task before, on a machine that has it"
            )
        with place_on_machine(self) as directory:
            remote = self._connection._shell.join_path(directory, archive.name)
            self._transfer_file(str(archive), remote)
            return self._module({**args, "archive": remote}, variables)

    def _save(self, args: dict[str, Any], archive: Path, variables: dict[str, Any]) -> dict[str, Any]:
        if archive.exists() or self._task.check_mode:
            return {"changed": False, "present": True, "removed": []}
        host = self._task.delegate_to or variables.get("inventory_hostname")
        Display().display(f"{host}: fetching {args['image']} to the controller")
        with place_on_machine(self) as directory:
            remote = self._connection._shell.join_path(directory, archive.name)
            found = self._module({**args, "archive": remote}, variables)
            if not found.get("failed"):
                # Two hosts may come here at once; whole is what has the name.
                partial = archive.with_suffix(f".{os.getpid()}")
                self._connection.fetch_file(remote, str(partial))
                partial.replace(archive)
            return found

    def _module(self, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module(
            module_name="claw.fleet.sandbox_image_copy", module_args=args, task_vars=variables
        )
        return found


def _archive(image: str, image_id: str) -> Path:
    """Where it is on the controller; Ansible removes this directory when it ends."""
    name = hashlib.sha256(f"{image} {image_id}".encode()).hexdigest()[:16]
    return Path(str(constants.DEFAULT_LOCAL_TMP)) / f"{name}.tar.gz"
