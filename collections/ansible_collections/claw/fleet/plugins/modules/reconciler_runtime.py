#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: reconciler_runtime
short_description: Have ansible-core and this collection on a control node, exactly as pinned
version_added: 0.1.0
description:
  - Makes C(ROOT/VERSION-HASH), a virtual environment with what a lock file pins and a collection, where VERSION is the
    collection's and HASH stands for the lock file, the collection's files and the node's Python. pip checks each
    package against the hashes that the lock file holds, and builds none itself.
  - A directory is used only if it was completed, and is never changed after that.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
options:
  lock:
    description: Requirements with hashes for pip, on the controller.
    type: path
    required: true
  collection:
    description:
      - A built collection on the controller, C(claw-fleet-VERSION.tar.gz).
      - If it is not given, the collection that this module is part of, as it is on the controller.
    type: path
  wheels:
    description: A directory on the controller with wheels. If it is given, pip asks no package index.
    type: path
  pip_environment:
    description: Environment variables for pip, such as C(PIP_INDEX_URL).
    type: dict
    default: {}
  root:
    description: Where versions are kept on the node.
    type: path
    default: /opt/claw/reconciler
  requirements:
    description: The content of O(lock). Filled in by the controller.
    type: str
  version:
    description: The version of the collection. Filled in by the controller.
    type: str
  files_sha256:
    description: What stands for the collection's files. Filled in by the controller.
    type: str
  shipment:
    description: The directory on the node with the built collection and the wheels. Filled in by the controller.
    type: path
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Names the directory.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: The pinned Ansible and the collection are there
  claw.fleet.reconciler_runtime:
    lock: "{{ playbook_dir }}/requirements.lock"
  register: reconciler_runtime
"""

RETURN = r"""
runtime:
  description: The directory.
  returned: always
  type: str
  sample: /opt/claw/reconciler/0.1.0-d1e213b2f36c
python:
  description: The Python of the virtual environment in it.
  returned: always
  type: str
collections:
  description: The collections path in it.
  returned: always
  type: str
present:
  description: Whether it was there before.
  returned: always
  type: bool
"""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils import _command, _durable

_LOCK_SECONDS = 900
_COMPLETE = "complete"


class RuntimeMissing(Exception):
    """It cannot be made; str() is a plain sentence."""


def have_runtime(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """What the module returns."""
    if params["requirements"] is None or params["files_sha256"] is None:
        raise RuntimeMissing(
            "the controller sent no lock file; call this module by its full name, claw.fleet.reconciler_runtime"
        )
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    pinned = "\0".join((params["requirements"], params["files_sha256"], python))
    digest = hashlib.sha256(pinned.encode()).hexdigest()
    runtime = Path(params["root"]) / f"{params['version']}-{digest[:12]}"
    present = (runtime / _COMPLETE).is_file()
    made = not present and (check_mode or params["shipment"] is not None)
    if made and not check_mode:
        _make(runtime, params)
    return {
        "changed": made,
        "present": present,
        "runtime": str(runtime),
        "python": str(runtime / "venv" / "bin" / "python"),
        "collections": str(runtime / "collections"),
        "diff": {
            "before": f"{runtime}\n" if present else "",
            "after": f"{runtime}\n" if present or made else "",
        },
    }


def _make(runtime: Path, params: dict[str, Any]) -> None:
    """Fill the directory. A virtual environment cannot be moved, so a last file says that it is complete."""
    runtime.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _durable.lock(runtime.parent / ".lock", timeout=_LOCK_SECONDS):
        if (runtime / _COMPLETE).is_file():
            return
        # Left by somebody who was killed.
        shutil.rmtree(runtime, ignore_errors=True)
        runtime.mkdir(mode=0o755)
        runtime.chmod(0o755)
        with tempfile.TemporaryDirectory(prefix="claw-runtime-") as home:
            # None of the node's own settings, of Ansible or of a user.
            settings = Path(home) / "ansible.cfg"
            settings.touch()
            environment = {**os.environ, "HOME": home, "LC_ALL": "C.UTF-8", "ANSIBLE_CONFIG": str(settings)}
            _install_packages(runtime, params, environment)
            _install_collection(runtime, params, environment)
        # Some thousand files: syncing everything once is cheaper than each by itself.
        os.sync()
        _durable.write(runtime / _COMPLETE, b"", mode=0o644)


def _install_packages(runtime: Path, params: dict[str, Any], environment: Mapping[str, str]) -> None:
    lock = runtime / "requirements.lock"
    _durable.write(lock, params["requirements"].encode(), mode=0o644)
    venv = runtime / "venv"
    _command.run([sys.executable, "-m", "venv", str(venv)], runtime, environment)
    command = [
        str(venv / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--no-cache-dir",
    ]
    command += ["--disable-pip-version-check", "--require-hashes", "--no-deps", "--only-binary=:all:"]
    if params["wheels"]:
        command += ["--no-index", "--find-links", params["shipment"]]
    settings = {name: str(value) for name, value in params["pip_environment"].items()}
    _command.run([*command, "--requirement", str(lock)], runtime, {**environment, **settings})


def _install_collection(runtime: Path, params: dict[str, Any], environment: Mapping[str, str]) -> None:
    tools, place = runtime / "venv" / "bin", runtime / "collections"
    archives = [str(path) for path in Path(params["shipment"]).glob("*.tar.gz")]
    command = [str(tools / "python"), str(tools / "ansible-galaxy"), "collection", "install", *archives]
    _command.run([*command, "--offline", "--no-deps", "--collections-path", str(place)], runtime, environment)
    # Who runs it cannot write here, and would compile it each time.
    _command.run([str(tools / "python"), "-m", "compileall", "-q", str(place)], runtime, environment)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "lock": {"type": "path", "required": True},
            "collection": {"type": "path"},
            "wheels": {"type": "path"},
            "pip_environment": {"type": "dict", "default": {}},
            "root": {"type": "path", "default": "/opt/claw/reconciler"},
            "requirements": {"type": "str"},
            "version": {"type": "str"},
            "files_sha256": {"type": "str"},
            "shipment": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**have_runtime(module.params, module.check_mode))
    except (RuntimeMissing, _command.CommandError, _durable.DurableError, OSError) as error:
        module.fail_json(msg=f"The reconciler is not installed: {error}")


if __name__ == "__main__":
    main()
