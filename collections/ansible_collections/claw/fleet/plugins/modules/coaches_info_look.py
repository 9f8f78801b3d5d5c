#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: coaches_info_look
short_description: Whether anything is to be done for the coaches of a gateway, as far as its machine knows
version_added: 0.1.0
description:
  - The machine's half of M(claw.fleet.coaches_info), which calls it and is what you want. It knows nothing of Django and
    never gets its token.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
  - claw.fleet.attributes.info_module
  - claw.fleet.gateway
  - claw.fleet.workspace
  - claw.fleet.workspace.rendered
options:
  agents:
    description: Rows of coaches.
    type: list
    elements: dict
    required: true
  coach_api_url:
    description: The base of the coach API, which is written beside each key.
    type: str
    required: true
  token_file:
    description: The file of the gateway's token.
    type: path
    required: true
  purge:
    description: Whether agents that have no row in O(agents) are one thing too much.
    type: bool
    default: false
  max_removals:
    description: How many agents may be removed in one run.
    type: int
seealso:
  - module: claw.fleet.coaches_info
"""

EXAMPLES = r"""
- name: See whether anything is to be done on this machine
  claw.fleet.coaches_info_look:
    gateway: gw-a
    agents: "{{ coaches_list }}"
    coach_api_url: https://app.example.com/api/companion/v1/
    token_file: /var/lib/claw/gw-a/token
"""

RETURN = r"""
settled:
  description: Whether keys and agents are as they should be, and the gateway serves these agents.
  returned: success
  type: bool
  sample: true
unlisted:
  description: Agents in the roster without a row in O(agents), which are left alone.
  returned: success
  type: list
  elements: str
  sample: []
outdated:
  description: Files that a changed template would make different, by agent. They are written once something is wanted of her coach.
  returned: success
  type: dict
  sample:
    coach-anna: [AGENTS.md]
token_sha256:
  description: The SHA-256 of the gateway's token, as hexadecimal digits.
  returned: success
  type: str
  sample: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b
"""

import hashlib
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._agents import ERRORS, Agents
from ansible_collections.claw.fleet.plugins.module_utils._coach import check_rows
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    DEFAULT_CONFIG_ROOT,
    Gateway,
    GatewayError,
)
from ansible_collections.claw.fleet.plugins.module_utils._keys import Keys
from ansible_collections.claw.fleet.plugins.module_utils._workspace import (
    RENDERED_OPTIONS,
    WORKSPACE_OPTIONS,
    owned_files,
)

ARGUMENT_SPEC: dict[str, Any] = {
    "gateway": {"type": "str", "required": True},
    "config_root": {"type": "path", "default": DEFAULT_CONFIG_ROOT},
    "agents": {"type": "list", "elements": "dict", "required": True},
    "coach_api_url": {"type": "str", "required": True},
    "token_file": {"type": "path", "required": True},
    "purge": {"type": "bool", "default": False},
    "max_removals": {"type": "int"},
    **WORKSPACE_OPTIONS,
    **RENDERED_OPTIONS,
}


def look(params: dict[str, Any]) -> dict[str, Any]:
    """What is returned; the errors of keys, agents, roster and gateway where something cannot be seen."""
    gateway = Gateway.load(params["gateway"], params["config_root"])
    gateway.require_state()
    token = _durable.read(Path(params["token_file"]))
    if token is None:
        raise GatewayError(
            f"{params['token_file']} is not there. Run the playbook site for this machine again."
        )
    rows = check_rows(params["agents"])
    seen = Agents(gateway).look(
        rows, owned_files(params), purge=params["purge"], max_removals=params["max_removals"]
    )
    settled = seen.settled and Keys(gateway).are_settled(rows, params["coach_api_url"])
    return {**seen._asdict(), "settled": settled, "token_sha256": hashlib.sha256(token.strip()).hexdigest()}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    # What was given is large, and none of it is news.
    invocation = {"module_args": {"gateway": module.params["gateway"], "purge": module.params["purge"]}}
    try:
        found = look(module.params)
    except ERRORS as error:
        module.fail_json(msg=str(error), invocation=invocation)
    module.exit_json(changed=False, **found, invocation=invocation)


if __name__ == "__main__":
    main()
