#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: coaches_info
short_description: Whether anything is to be done for the coaches of a gateway
version_added: 0.1.0
description:
  - Looks at all that M(claw.fleet.gateway_registration), M(claw.fleet.coach_status), M(claw.fleet.agent_key),
    M(claw.fleet.openclaw_agent) and M(claw.fleet.agent_activation) would look at, with their own eyes, in one call of the
    machine, and says whether any of them would have something to do or to tell. A play that skips them then is as good as
    one that runs them, and costs a third.
  - A coach of whom something is wanted, or with an C(error), is something to do. The machine is not asked then.
  - What cannot be seen, because a machine, a template or Django is at fault, is something to do as well. Those modules tell
    what is wrong, in the step that it is in the way of.
  - A list without coaches is never settled, because it may be one that was lost.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.django
  - claw.fleet.attributes
  - claw.fleet.attributes.info_module
  - claw.fleet.gateway
  - claw.fleet.workspace
options:
  coaches:
    description: Rows of coaches, from C(coaches_list) of the inventory.
    type: list
    elements: dict
    required: true
  rotate:
    description: The ids of agents who are to get a new key in this run.
    type: list
    elements: str
    default: []
  coach_api_url:
    description:
      - The base of the coach API as agents reach it, which is written beside each key. If it is not given, it is O(api_url).
    type: str
  url:
    description: Where Django reaches the gateway. If it is not given, it is not looked at.
    type: str
  token_file:
    description: The file of the gateway's token on its machine.
    type: path
    required: true
  capacity:
    description: How many coaches the gateway may hold. If it is not given, it is not looked at.
    type: int
  purge:
    description: Whether agents that have no row in O(coaches) are one thing too much.
    type: bool
    default: false
  max_removals:
    description: How many agents may be removed in one run, as for M(claw.fleet.openclaw_agent).
    type: int
seealso:
  - module: claw.fleet.coaches_info_look
  - module: claw.fleet.openclaw_agent
"""

EXAMPLES = r"""
- name: See whether anything is to be done
  claw.fleet.coaches_info:
    api_url: https://app.example.com/api/companion/v1/
    api_token: "{{ service_token }}"
    gateway: gw-a
    coaches: "{{ coaches_list }}"
    url: https://gateways.example.com/gw-a
    token_file: /var/lib/claw/gw-a/token
    workspace_files:
      - {src: SOUL.md.j2, dest: SOUL.md, owner: agent}
  register: coaches_seen
"""

RETURN = r"""
settled:
  description: Whether there is nothing to do, and the gateway serves these agents.
  returned: success
  type: bool
  sample: false
unlisted:
  description: Agents in the roster without a row in O(coaches), which are left alone.
  returned: when the machine was asked
  type: list
  elements: str
  sample: []
outdated:
  description: Files that a changed template would make different, by agent. They are written once something is wanted of her coach.
  returned: when the machine was asked
  type: dict
  sample:
    coach-anna: [AGENTS.md]
reason:
  description: What there is to do, in a sentence; empty if nothing is.
  returned: success
  type: str
  sample: Something is wanted of 2 of 100 coaches.
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import DJANGO_ARGUMENT_SPEC
from ansible_collections.claw.fleet.plugins.module_utils._gateway import DEFAULT_CONFIG_ROOT
from ansible_collections.claw.fleet.plugins.module_utils._workspace import WORKSPACE_OPTIONS

ARGUMENT_SPEC: dict[str, Any] = {
    **DJANGO_ARGUMENT_SPEC,
    "gateway": {"type": "str", "required": True},
    "config_root": {"type": "path", "default": DEFAULT_CONFIG_ROOT},
    "coaches": {"type": "list", "elements": "dict", "required": True},
    "rotate": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "coach_api_url": {"type": "str"},
    "url": {"type": "str"},
    "token_file": {"type": "path", "required": True, "no_log": False},
    "capacity": {"type": "int"},
    "purge": {"type": "bool", "default": False},
    "max_removals": {"type": "int"},
    **WORKSPACE_OPTIONS,
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.fail_json(
        msg="claw.fleet.coaches_info runs on the controller, by its action plugin of the same name."
    )


if __name__ == "__main__":
    main()
