#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: agent_adoption
short_description: Take over the agents of a gateway that was set up by other hands
version_added: 0.1.0
description:
  - Copies what the coaches' agents have on an OpenClaw gateway that the fleet did not make (workspaces, memories,
    sessions, keys) to a gateway of the fleet on the same machine. Nothing of the former gateway is changed, so it can
    be started again as it was.
  - A key stays the one that Django knows, so nothing that uses it notices. It leaves the workspace, where the agent
    could read it, for the agent's credentials directory.
  - A coach is taken over once. What became of her since is never written over.
  - Symbolic links, hard links and special files are not followed and not copied; a warning names them.
  - The former gateway must be stopped, except in check mode.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.gateway
  - claw.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Names the files that are copied, without their content.
  idempotent:
    support: full
options:
  agents:
    description:
      - Rows of coaches, as the inventory gives them. Those whose agent the former gateway does not have are left out
        of the result.
    type: list
    elements: dict
    required: true
  state_dir:
    description: The former gateway's state directory, such as C(/home/operator/.openclaw).
    type: path
    required: true
  config:
    description: The former gateway's config, where it is not C(openclaw.json) in O(state_dir).
    type: path
  key_file:
    description: The file in a workspace that holds the agent's key as JSON.
    type: str
    default: .credentials.json
  key_field:
    description: The field of that file with the key.
    type: str
    default: api_key
  coach_api_url:
    description: The API that a coach's key opens, as the agent reaches it.
    type: str
    required: true
seealso:
  - module: claw.fleet.openclaw_agent
  - module: claw.fleet.agent_key
"""

EXAMPLES = r"""
- name: The agents' things are copied
  claw.fleet.agent_adoption:
    gateway: gw-a
    agents: "{{ coaches_list }}"
    state_dir: /home/operator/.openclaw
    coach_api_url: https://app.example.com/api/companion/v1/
  register: adopted
"""

RETURN = r"""
results:
  description: The rows of the coaches whose agents the former gateway has, or had when they were taken over.
  returned: success
  type: list
  elements: dict
  contains:
    actions:
      description: What was done, or in check mode would be.
      returned: when something was done
      type: list
      elements: str
      sample: [took over 14 files (913408 bytes) from /home/operator/ws/anna and /home/operator/.openclaw/agents/anna]
    error:
      description: What went wrong with this coach, if anything did.
      returned: when a step failed for this coach
      type: dict
      contains:
        step:
          description: The step that failed, here V(adoption).
          type: str
        reason:
          description: What happened and what to do, in a sentence.
          type: str
unlisted:
  description: Agents of the former gateway that are no coach's; they stay where they are.
  returned: success
  type: list
  elements: str
  sample: [operator]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._adoption import Adoption, AdoptionError
from ansible_collections.claw.fleet.plugins.module_utils._coach import CoachListError
from ansible_collections.claw.fleet.plugins.module_utils._durable import DurableError, lock
from ansible_collections.claw.fleet.plugins.module_utils._former import FormerError, FormerGateway
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    DEFAULT_CONFIG_ROOT,
    Gateway,
    GatewayError,
)

ARGUMENT_SPEC: dict[str, Any] = {
    "gateway": {"type": "str", "required": True},
    "config_root": {"type": "path", "default": DEFAULT_CONFIG_ROOT},
    "agents": {"type": "list", "elements": "dict", "required": True},
    "state_dir": {"type": "path", "required": True},
    "config": {"type": "path"},
    "key_file": {"type": "str", "default": ".credentials.json", "no_log": False},
    "key_field": {"type": "str", "default": "api_key", "no_log": False},
    "coach_api_url": {"type": "str", "required": True},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    # What was given is large and in the results already.
    invocation = {"module_args": {"gateway": params["gateway"], "state_dir": params["state_dir"]}}
    try:
        gateway = Gateway.load(params["gateway"], params["config_root"])
        gateway.require_state()
        adoption = Adoption(
            gateway,
            FormerGateway(params["state_dir"], params["config"]),
            key_file=params["key_file"],
            key_field=params["key_field"],
        )
        with lock(gateway.lock_path):
            done = adoption.adopt(params["agents"], api_url=params["coach_api_url"], check=module.check_mode)
    except (AdoptionError, CoachListError, DurableError, FormerError, GatewayError) as error:
        module.fail_json(msg=str(error), invocation=invocation)
    result = done._asdict()
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result, invocation=invocation)


if __name__ == "__main__":
    main()
