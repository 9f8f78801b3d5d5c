#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_network
short_description: Have the network that sandboxes are in, which leads nowhere
version_added: 0.1.0
description:
  - A network of the machine's container engine in which containers reach neither each other nor anything outside it
    (C(internal), no communication between containers, no IPv6). What they may reach all the same is for the machine to
    say, which has the first address of the network; the role P(claw.fleet.egress#role) does that.
  - A network of that name with other settings is made anew if no container is attached to it, and refused otherwise.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  name:
    description: The network's name.
    type: str
    default: claw-sandbox
  bridge:
    description: The name of its interface on the machine.
    type: str
    default: clw0
  subnet:
    description:
      - Its addresses, a private IPv4 network that neither the machine nor another network of the engine uses.
      - A bridge carries about a thousand containers, so a V(/22) is as much as can be used.
    type: str
    required: true
  docker_host:
    description: The container engine, as a URL.
    type: str
    default: unix:///run/docker.sock
"""

EXAMPLES = r"""
- name: Sandboxes have a network
  claw.fleet.sandbox_network:
    subnet: 172.29.240.0/22
"""

RETURN = r"""
id:
  description: The engine's id of the network; empty in check mode if it would be made.
  returned: success
  type: str
gateway:
  description: The machine's address in it.
  returned: success
  type: str
  sample: 172.29.240.1
recreated:
  description: Whether there was a network of this name with other settings.
  returned: success
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._engine import end_with
from ansible_collections.claw.fleet.plugins.module_utils._sandbox_network import (
    NetworkError,
    Networks,
    Wanted,
    settings_of,
)


def reconcile(networks: Networks, wanted: Wanted, check: bool) -> dict[str, Any]:
    """Have the network; what was done, or would be."""
    network = networks.find(wanted.name)
    before = settings_of(network.attrs) if network else {}
    changed = before != wanted.settings
    if changed:
        networks.refuse_conflicts(wanted, network)
        if network and (members := networks.members(network)):
            differs = sorted(name for name, value in wanted.settings.items() if before.get(name) != value)
            raise NetworkError(
                f"it is there with other settings ({', '.join(differs)}) and has containers attached "
                f"({', '.join(members)}): remove them, then run again, and it is made anew"
            )
        if not check:
            if network:
                networks.remove(network)
            network = networks.create(wanted)
    return {
        "changed": changed,
        "id": network.id if network and not (changed and check) else "",
        "gateway": wanted.gateway,
        "recreated": changed and before != {},
        "diff": {"before": _lines(before), "after": _lines(wanted.settings)},
    }


def _lines(settings: dict[str, Any]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in sorted(settings.items()))


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "claw-sandbox"},
            "bridge": {"type": "str", "default": "clw0"},
            "subnet": {"type": "str", "required": True},
            "docker_host": {"type": "str", "default": "unix:///run/docker.sock"},
        },
        supports_check_mode=True,
    )
    params = module.params

    def run() -> dict[str, Any]:
        wanted = Wanted.of(params["name"], params["bridge"], params["subnet"])
        return reconcile(Networks(params["docker_host"]), wanted, module.check_mode)

    end_with(module, params["name"], NetworkError, run)


if __name__ == "__main__":
    main()
