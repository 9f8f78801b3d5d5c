#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: agent_key_file
short_description: The key files of the coaches on a gateway's machine
version_added: 0.1.0
description:
  - The machine's half of M(claw.fleet.agent_key), which calls it and is what you want. It knows nothing of
    Django and never gets its token.
  - Without O(registered) it says for each row what is to be done, and has new keys pending. With it, it
    promotes the keys that Django has agreed to and removes those that Django has revoked.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  gateway:
    description: The name of the gateway on this machine.
    type: str
    required: true
  config_root:
    description: The directory that holds a directory for each gateway of this machine.
    type: path
    default: /etc/claw
  agents:
    description: Rows of coaches.
    type: list
    elements: dict
    default: []
  state:
    description: Whether each coach is to have a key, a new key or none.
    type: str
    choices: [present, rotated, absent]
    default: present
  rotate:
    description: The agents who get a new key also with O(state=present).
    type: list
    elements: str
    default: []
  coach_api_url:
    description: The base of the coach API, which is written beside each key.
    type: str
  reveal:
    description: Whether to return the keys that Django is yet to get. Then they leave the machine.
    type: bool
    default: false
  registered:
    description: The ids of the keys that Django has agreed to, by agent.
    type: dict
  revoked:
    description: The agents whose keys Django has revoked.
    type: list
    elements: str
    default: []
seealso:
  - module: claw.fleet.agent_key
"""

EXAMPLES = r"""
- name: See what is to be done about a coach's key
  claw.fleet.agent_key_file:
    gateway: gw-a
    agents: "{{ coaches_list }}"
    coach_api_url: https://app.example.com/api/companion/v1/
  check_mode: true
"""

RETURN = r"""
results:
  description: The rows, each with C(key), which says what is to be done about it.
  returned: without O(registered)
  type: list
  elements: dict
wrong:
  description: What went wrong, by agent.
  returned: with O(registered)
  type: dict
  sample: {}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._coach import CoachListError, check_rows
from ansible_collections.claw.fleet.plugins.module_utils._durable import DurableError
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    DEFAULT_CONFIG_ROOT,
    Gateway,
    GatewayError,
)
from ansible_collections.claw.fleet.plugins.module_utils._keys import Keys

ARGUMENT_SPEC: dict[str, Any] = {
    "gateway": {"type": "str", "required": True},
    "config_root": {"type": "path", "default": DEFAULT_CONFIG_ROOT},
    "agents": {"type": "list", "elements": "dict", "default": []},
    "state": {"type": "str", "choices": ["present", "rotated", "absent"], "default": "present"},
    "rotate": {"type": "list", "elements": "str", "default": []},
    "coach_api_url": {"type": "str"},
    "reveal": {"type": "bool", "default": False},
    "registered": {"type": "dict"},
    "revoked": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC,
        supports_check_mode=True,
        required_one_of=[["coach_api_url", "registered"]],
    )
    params = module.params
    # What was given is large and in the results already.
    invocation = {"module_args": {"gateway": params["gateway"], "state": params["state"]}}
    result: dict[str, Any] = {"changed": False}
    try:
        gateway = Gateway.load(params["gateway"], params["config_root"])
        gateway.require_state()
        keys = Keys(gateway)
        if params["registered"] is None:
            result["results"], result["changed"] = keys.prepare(
                check_rows(params["agents"]),
                state=params["state"],
                api_url=params["coach_api_url"],
                rotate=params["rotate"],
                reveal=params["reveal"],
                check=module.check_mode,
            )
        else:
            registered, revoked = params["registered"], params["revoked"]
            result["changed"] = bool(registered or revoked)
            result["wrong"] = {} if module.check_mode else keys.conclude(registered, revoked)
    except (CoachListError, DurableError, GatewayError) as error:
        module.fail_json(msg=str(error), invocation=invocation)
    module.exit_json(**result, invocation=invocation)


if __name__ == "__main__":
    main()
