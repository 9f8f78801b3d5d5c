#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: openclaw_tree
short_description: Have OpenClaw and its Node on a machine, exactly as a lock file pins them
version_added: 0.1.0
description:
  - Makes C(ROOT/VERSION-HASH) of a C(package.json) and a C(package-lock.json), where HASH is the beginning of the lock
    file's SHA-256. npm checks each package against the integrity that the lock file holds; install scripts do not run.
  - The tree appears at its place only when it is complete, and is never changed there. Any number of runs may make
    it at the same time.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
options:
  lock_dir:
    description: The directory on the controller that holds C(package.json) and C(package-lock.json).
    type: path
    required: true
  version:
    description: The version of OpenClaw that is wanted. Refused unless it is the one the lock file pins.
    type: str
    required: true
  root:
    description: Where trees are kept on the machine.
    type: path
    default: /opt/claw/openclaw
  install_from:
    description:
      - V(registry) runs npm on the machine.
      - V(controller) runs npm on the controller, once, and ships the result.
    type: str
    choices: [registry, controller]
    default: registry
  npm:
    description: The npm of the machine, for O(install_from=registry).
    type: str
    default: npm
  npm_environment:
    description: Environment variables for npm, wherever it runs, such as C(NODE_EXTRA_CA_CERTS).
    type: dict
    default: {}
  controller_npm:
    description:
      - The npm of the controller, for O(install_from=controller), 10 or newer.
      - If it is not given, the one beside the Python that runs Ansible, else the one on the C(PATH).
    type: path
  build_dir:
    description: Where the controller keeps what it built, for O(install_from=controller).
    type: path
    default: ~/.cache/claw.fleet/openclaw
  machine:
    description: Names the machine among all, so that several hosts that are one machine get one shipment.
    type: str
  package:
    description: The content of C(package.json). Filled in by the controller from O(lock_dir).
    type: str
  lock:
    description: The content of C(package-lock.json). Filled in by the controller from O(lock_dir).
    type: str
  archive:
    description: The shipment on the machine. Filled in by the controller for O(install_from=controller).
    type: path
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Names the tree.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: OpenClaw is there at the version of our lock file
  claw.fleet.openclaw_tree:
    lock_dir: "{{ playbook_dir }}/openclaw"
    version: 2026.9.6
    install_from: controller
"""

RETURN = r"""
tree:
  description: The directory.
  returned: always
  type: str
  sample: /opt/claw/openclaw/2026.9.6-d1e213b2f36c
node:
  description: The Node binary in it.
  returned: always
  type: str
entry:
  description: What Node runs.
  returned: always
  type: str
arch:
  description: The machine's processor in npm's words.
  returned: always
  type: str
  sample: x64
present:
  description: Whether the tree was there before.
  returned: always
  type: bool
"""

import platform
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils import _tree
from ansible_collections.claw.fleet.plugins.module_utils._command import CommandError
from ansible_collections.claw.fleet.plugins.module_utils._durable import DurableError


def have_tree(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """What the module returns."""
    if params["package"] is None or params["lock"] is None:
        raise _tree.TreeError(
            "the controller sent no lock file; call this module by its full name, claw.fleet.openclaw_tree"
        )
    lock = _tree.read_lock(params["package"].encode(), params["lock"].encode())
    arch = _tree.ARCHITECTURES.get(platform.machine())
    if arch is None or arch not in lock.node:
        raise _tree.TreeError(
            f"the lock file pins no Node for this machine's processor, {platform.machine()}"
        )
    tree = _tree.Tree(Path(params["root"]) / lock.name, arch)
    present = tree.present
    if not present and not check_mode:
        if params["install_from"] == "registry":
            npm, environment = [params["npm"]], {k: str(v) for k, v in params["npm_environment"].items()}
            _tree.build(tree, lock, npm, environment, foreign=False, private_cache=True)
        elif params["archive"]:
            _tree.unpack(tree, lock, Path(params["archive"]))
    made = not present and (check_mode or tree.present)
    return {
        "changed": made,
        "present": present,
        "tree": str(tree.path),
        "node": str(tree.node),
        "entry": str(tree.entry),
        "arch": arch,
        "diff": {
            "before": f"{tree.path}\n" if present else "",
            "after": f"{tree.path}\n" if present or made else "",
        },
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "lock_dir": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/opt/claw/openclaw"},
            "install_from": {"type": "str", "choices": ["registry", "controller"], "default": "registry"},
            "npm": {"type": "str", "default": "npm"},
            "npm_environment": {"type": "dict", "default": {}},
            "controller_npm": {"type": "path"},
            "build_dir": {"type": "path", "default": "~/.cache/claw.fleet/openclaw"},
            "machine": {"type": "str"},
            "package": {"type": "str"},
            "lock": {"type": "str"},
            "archive": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**have_tree(module.params, module.check_mode))
    except (_tree.TreeError, CommandError, DurableError, OSError) as error:
        module.fail_json(msg=f"OpenClaw is not installed: {error}")


if __name__ == "__main__":
    main()
