#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: agent_sandbox
short_description: Have the sandboxes of a gateway's agents as they are wanted
version_added: 0.1.0
description:
  - Writes down what the tools of this gateway's agents run in, which M(claw.fleet.openclaw_agent) makes part of each entry
    of the roster, and brings the entries that are there to it in one write, without a restart.
  - Then each container that was made of something else, or of another image, is taken away while its agent is idle; her
    next turn gets another, with the same workspace. A turn that begins in that moment waits for it. An agent who is at
    work for longer than O(wait) keeps hers until the next run, and is told of as busy.
  - With O(state=absent) the entries lose their sandboxes, and with them the agents their tools; then the containers go, and
    what was written down. It fails where an agent was at work for longer than O(wait), and the next run goes on.
  - Nothing is changed if the image is not on the machine, if the gateway runs without the plugin that guards its agents'
    tools, or if the gateway does not take the roster.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
  - claw.fleet.gateway
attributes:
  check_mode:
    support: full
    details:
      - Whether an agent will be idle is not foreseen; containers that are to go count as recreated.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description: Whether agents have sandboxes.
    type: str
    choices: [present, absent]
    default: present
  engine:
    description: What the containers are of.
    type: str
    choices: [docker, podman]
    default: docker
  docker_host:
    description: The container engine, as a URL.
    type: str
    default: unix:///run/docker.sock
  image:
    description: The image, with its tag. Tags are taken to mean the same image forever. Required with O(state=present).
    type: str
  network:
    description: The network that they are in, in the engine's words.
    type: str
    default: claw-sandbox
  dns:
    description: The DNS servers that they are told of.
    type: list
    elements: str
    default: []
  memory:
    description: What the processes of one may use of memory at most, in the engine's words.
    type: str
    default: 512m
  cpus:
    description: How many processors it may keep busy.
    type: float
    default: 1.0
  pids:
    description: How many processes and threads it may have.
    type: int
    default: 128
  file_bytes:
    description: How large a file may become that is written in it.
    type: int
    default: 104857600
  scratch:
    description: The size of C(/tmp), C(/var/tmp) and C(/run) each, which are in memory and count as such.
    type: str
    default: 64m
  tools:
    description: The tools that an agent has, by OpenClaw's names. Required with O(state=present).
    type: list
    elements: str
  credentials_dir:
    description: Where the directory with the coach's key is seen in it, below C(/run).
    type: str
    default: /run/credentials
  idle_hours:
    description:
      - After how many hours without use it is taken away until the next turn. The gateway looks for such ones when any of
        its agents has a turn, at most every five minutes.
    type: int
    default: 4
  age_days:
    description: After how many days it is replaced in any case.
    type: int
    default: 7
  wait:
    description: Seconds to wait for agents who are at work, all together.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Every agent's tools run in the new image, at her next turn
  claw.fleet.agent_sandbox:
    gateway: gw-a
    image: claw-sandbox:3f0c9a5be1d27704
    dns: [172.29.240.1]
    tools: [edit, exec, ls, read, write]

- name: No agent has tools any more
  claw.fleet.agent_sandbox:
    gateway: gw-a
    state: absent
"""

RETURN = r"""
updated:
  description: Agents whose entry in the roster has another sandbox now.
  returned: success
  type: list
  elements: str
  sample: [coach-anna]
recreated:
  description: Agents whose container was taken away, or in check mode would be; the next turn gets another.
  returned: success
  type: list
  elements: str
  sample: [coach-anna]
busy:
  description: Agents who were at work all the time, and keep theirs until the next run.
  returned: success
  type: list
  elements: str
  sample: []
reloads:
  description: How often the running gateway had to read its roster anew, 0 or 1.
  returned: success
  type: int
  sample: 1
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._agent_sandbox import (
    NOTHING,
    AgentSandboxes,
    Outcome,
    predicted_for_a_new_gateway,
)
from ansible_collections.claw.fleet.plugins.module_utils._containers import ContainersError
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    DEFAULT_CONFIG_ROOT,
    Gateway,
    GatewayError,
)
from ansible_collections.claw.fleet.plugins.module_utils._roster import RosterError
from ansible_collections.claw.fleet.plugins.module_utils._sandbox import Sandbox

ARGUMENT_SPEC: dict[str, Any] = {
    "gateway": {"type": "str", "required": True},
    "config_root": {"type": "path", "default": DEFAULT_CONFIG_ROOT},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "engine": {"type": "str", "choices": ["docker", "podman"], "default": "docker"},
    "docker_host": {"type": "str", "default": "unix:///run/docker.sock"},
    "image": {"type": "str"},
    "network": {"type": "str", "default": "claw-sandbox"},
    "dns": {"type": "list", "elements": "str", "default": []},
    "memory": {"type": "str", "default": "512m"},
    "cpus": {"type": "float", "default": 1.0},
    "pids": {"type": "int", "default": 128},
    "file_bytes": {"type": "int", "default": 104857600},
    "scratch": {"type": "str", "default": "64m"},
    "tools": {"type": "list", "elements": "str"},
    "credentials_dir": {"type": "str", "default": "/run/credentials"},
    "idle_hours": {"type": "int", "default": 4},
    "age_days": {"type": "int", "default": 7},
    "wait": {"type": "int", "default": 120},
}


def run(module: AnsibleModule) -> Outcome:
    """Do it, or say what would be done."""
    params = module.params
    descriptor = Path(params["config_root"]) / params["gateway"] / "gateway.json"
    if params["state"] == "absent":
        if not descriptor.exists():
            return NOTHING
        gateway = Gateway.load(params["gateway"], params["config_root"])
        return AgentSandboxes(gateway).take_away(wait=params["wait"], check=module.check_mode)
    wanted = Sandbox.of(params)
    if module.check_mode and not descriptor.exists():
        # The tasks before this one would have made the gateway.
        return predicted_for_a_new_gateway(wanted)
    gateway = Gateway.load(params["gateway"], params["config_root"])
    return AgentSandboxes(gateway).reconcile(wanted, wait=params["wait"], check=module.check_mode)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC,
        required_if=[("state", "present", ["image", "tools"])],
        supports_check_mode=True,
    )
    try:
        outcome = run(module)
    except (ContainersError, GatewayError, RosterError, _durable.DurableError) as error:
        module.fail_json(msg=str(error))
    if outcome.busy:
        late = (
            f"{', '.join(outcome.busy)} on {module.params['gateway']} had turns that did not end within "
            f"{module.params['wait']} s"
        )
        if module.params["state"] == "absent":
            module.fail_json(
                msg=f"{late}, so the sandboxes are not all gone. Run again when the turns have ended.",
                **outcome._asdict(),
            )
        module.warn(f"{late}, and keep the sandbox they have. Run again, and they get the new one when idle.")
    module.exit_json(**outcome._asdict())


if __name__ == "__main__":
    main()
