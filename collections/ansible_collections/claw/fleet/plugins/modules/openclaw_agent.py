#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: openclaw_agent
short_description: Bring the OpenClaw agents of a gateway to what their coaches want
version_added: 0.1.0
description:
  - Takes all rows of a gateway in one call. An agent that is to run gets its workspace files, its directories
    and its entry in the gateway's roster; one that is to pause leaves the roster and keeps its files; one that
    is to be removed leaves the roster, and its workspace, its own directory and its credentials are set aside
    below C(removed) in the gateway's state directory. Nothing is deleted.
  - The roster is written once, durably, after OpenClaw itself has found the new one valid, and never while
    the gateway starts. If the gateway runs, the module waits until it serves exactly what was written; if it
    does not, the old roster is put back and the task fails with the gateway's own words. A gateway that is
    stopped is not started.
  - Also where nothing is to be changed, a running gateway is asked whether it serves what is in the roster,
    so a run that was interrupted is made good by the next one.
  - Where the role P(claw.fleet.sandbox#role) has said what the tools of this gateway's agents run in, each entry has it;
    another image or other limits are one change of the roster. The container of an agent that is removed is taken away.
  - A row with an C(error) is carried past untouched, and the agent it has goes on being served.
  - An agent that was removed can come back with the same id and remembers nothing. A running gateway keeps
    the removed agent's database open, so such a row is in error until the gateway has been restarted, if the
    agent had taken a turn since the gateway was started.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
  - claw.fleet.gateway
  - claw.fleet.workspace
  - claw.fleet.workspace.rendered
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - One difference for each agent and file, and one for the roster.
  idempotent:
    support: full
options:
  agents:
    description:
      - Rows of coaches, from C(coaches_list) of the inventory or from the C(results) of another step. What is
        used is C(agent_id), C(name), C(vars), C(wanted) and C(error).
    type: list
    elements: dict
    required: true
  purge:
    description:
      - Whether agents in the roster that have no row in O(agents) are removed. Only right where O(agents)
        holds every coach of this gateway.
      - With an empty list, or one with rows that cannot be told, the task fails.
    type: bool
    default: false
  max_removals:
    description:
      - How many agents may be removed in this run. If more would be, nothing is changed and the task fails.
      - If it is not given, it is the larger of 5 and 5 % of the agents in the roster.
    type: int
seealso:
  - module: claw.fleet.agent_key
  - module: claw.fleet.agent_activation
  - module: claw.fleet.coach_status
"""

EXAMPLES = r"""
- name: Each coach has an agent
  claw.fleet.openclaw_agent:
    gateway: gw-a
    agents: "{{ coaches_keyed.results }}"
    workspace_files:
      - {src: SOUL.md.j2, dest: SOUL.md, owner: agent}
      - {src: AGENTS.md.j2, dest: AGENTS.md, owner: fleet}
    template_paths:
      - "{{ playbook_dir }}/files/templates"
  register: coaches_served

- name: The list is the whole truth, and twelve may go
  claw.fleet.openclaw_agent:
    gateway: gw-a
    agents: "{{ coaches_list }}"
    purge: true
    max_removals: 12
"""

RETURN = r"""
results:
  description: The rows, in their order, with what was done for each.
  returned: success
  type: list
  elements: dict
  contains:
    actions:
      description: What was done, or in check mode would be, after what earlier steps did.
      returned: when something was done
      type: list
      elements: str
      sample: [added, wrote AGENTS.md, seeded SOUL.md]
    conflicts:
      description: Files that are the fleet's and that somebody changed; they were left alone.
      returned: when there are any
      type: list
      elements: str
      sample: [AGENTS.md]
    outdated:
      description: Files that a changed template would make different; nothing is wanted of this coach, so they stay.
      returned: when there are any
      type: list
      elements: str
      sample: [AGENTS.md]
    error:
      description: What went wrong with this coach, if anything did.
      returned: when a step failed for this coach
      type: dict
      contains:
        step:
          description: The step that failed, here V(agent) or V(template).
          type: str
        reason:
          description: What happened and what to do, in a sentence.
          type: str
reloads:
  description: How often the running gateway had to read its roster anew, 0 or 1.
  returned: success
  type: int
  sample: 1
served:
  description:
    - Whether the gateway runs and proved that it serves these agents. In check mode, whether it runs.
  returned: success
  type: bool
  sample: true
stopped:
  description: How the gateway's last process ended, and where to look, if it does not run.
  returned: when nobody is served
  type: str
unlisted:
  description: Agents in the roster without a row in O(agents), which were left alone.
  returned: success
  type: list
  elements: str
  sample: []
purged:
  description: Agents without a row in O(agents), which were removed.
  returned: success
  type: list
  elements: str
  sample: []
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._agents import ERRORS, Agents
from ansible_collections.claw.fleet.plugins.module_utils._gateway import DEFAULT_CONFIG_ROOT, Gateway
from ansible_collections.claw.fleet.plugins.module_utils._workspace import (
    RENDERED_OPTIONS,
    WORKSPACE_OPTIONS,
    owned_files,
)

ARGUMENT_SPEC: dict[str, Any] = {
    "gateway": {"type": "str", "required": True},
    "config_root": {"type": "path", "default": DEFAULT_CONFIG_ROOT},
    "agents": {"type": "list", "elements": "dict", "required": True},
    "purge": {"type": "bool", "default": False},
    "max_removals": {"type": "int"},
    **WORKSPACE_OPTIONS,
    **RENDERED_OPTIONS,
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    # What was given is large and in the results already.
    invocation = {"module_args": {"gateway": params["gateway"], "purge": params["purge"]}}
    try:
        gateway = Gateway.load(params["gateway"], params["config_root"])
        gateway.require_state()
        outcome = Agents(gateway).reconcile(
            params["agents"],
            owned_files(params),
            purge=params["purge"],
            max_removals=params["max_removals"],
            check=module.check_mode,
        )
        stopped = {} if outcome.served else {"stopped": gateway.describe_end(gateway.unit_state())}
    except ERRORS as error:
        module.fail_json(msg=str(error), invocation=invocation)
    result = outcome._asdict() | stopped
    del result["recorded"]
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result, invocation=invocation)


if __name__ == "__main__":
    main()
