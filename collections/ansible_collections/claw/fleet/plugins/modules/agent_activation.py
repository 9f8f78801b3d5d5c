#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: agent_activation
short_description: Let new agents take their first turn
version_added: 0.1.0
description:
  - That an agent is served does not say that it answers. This sends a message to each new agent through its
    gateway and waits for the answer. The turn is in a session of its own, C(activation), apart from the
    coach's conversations.
  - A turn is due for a row whose C(wanted) is V(running) and whose C(status) is not V(active), if the agent has
    not answered a first turn yet. An agent that is resumed, or had an error in between, needs no second one;
    an agent that was removed and comes back does.
  - An agent that does not answer puts its row in error, with the gateway's words. The others are not affected.
  - A row with an C(error) is carried past untouched.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
  - claw.fleet.gateway
attributes:
  check_mode:
    support: full
    details:
      - It tells which agents would take a turn, not what they would answer.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  agents:
    description:
      - Rows of coaches, from the C(results) of M(claw.fleet.openclaw_agent).
    type: list
    elements: dict
    required: true
  text:
    description: What the agent is told.
    type: str
    default: You have just been set up. Say hello to your coach in one sentence.
  expect:
    description: What the answer must contain. If it is not given, any answer but an empty one will do.
    type: str
  timeout:
    description: How many seconds a turn may take.
    type: int
    default: 120
  parallel:
    description: How many agents take their turn at the same time.
    type: int
    default: 2
seealso:
  - module: claw.fleet.openclaw_agent
  - module: claw.fleet.coach_status
"""

EXAMPLES = r"""
- name: Each new agent takes its first turn
  claw.fleet.agent_activation:
    gateway: gw-a
    agents: "{{ coaches_served.results }}"
  register: coaches_activated
"""

RETURN = r"""
results:
  description: The rows, in their order.
  returned: success
  type: list
  elements: dict
  contains:
    actions:
      description: What was done, or in check mode would be, after what earlier steps did.
      returned: when something was done
      type: list
      elements: str
      sample: [added, took its first turn]
    error:
      description: What went wrong with this coach, if anything did.
      returned: when a step failed for this coach
      type: dict
      contains:
        step:
          description: The step that failed, here V(activation).
          type: str
        reason:
          description: What happened and what to do, in a sentence.
          type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._activation import Activation
from ansible_collections.claw.fleet.plugins.module_utils._coach import CoachListError
from ansible_collections.claw.fleet.plugins.module_utils._durable import DurableError
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    DEFAULT_CONFIG_ROOT,
    Gateway,
    GatewayError,
)
from ansible_collections.claw.fleet.plugins.module_utils._manifest import ManifestError

ARGUMENT_SPEC: dict[str, Any] = {
    "gateway": {"type": "str", "required": True},
    "config_root": {"type": "path", "default": DEFAULT_CONFIG_ROOT},
    "agents": {"type": "list", "elements": "dict", "required": True},
    "text": {
        "type": "str",
        "default": "You have just been set up. Say hello to your coach in one sentence.",
    },
    "expect": {"type": "str"},
    "timeout": {"type": "int", "default": 120},
    "parallel": {"type": "int", "default": 2},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    # What was given is large and in the results already.
    invocation = {"module_args": {"gateway": params["gateway"], "timeout": params["timeout"]}}
    if params["parallel"] < 1 or params["timeout"] < 1:
        module.fail_json(msg="parallel and timeout must be at least 1.", invocation=invocation)
    try:
        outcome = Activation(
            Gateway.load(params["gateway"], params["config_root"]),
            text=params["text"],
            expect=params["expect"],
            timeout=params["timeout"],
            parallel=params["parallel"],
        ).run(params["agents"], check=module.check_mode)
    except (CoachListError, DurableError, GatewayError, ManifestError) as error:
        module.fail_json(msg=str(error), invocation=invocation)
    module.exit_json(results=outcome.results, changed=outcome.changed, invocation=invocation)


if __name__ == "__main__":
    main()
