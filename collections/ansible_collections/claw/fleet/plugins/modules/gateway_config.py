#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_config
short_description: Have a gateway run with a config
version_added: 0.1.0
description:
  - Renders the gateway's own config and has the gateway run with it. The file is written only while the gateway is
    stopped; a gateway that is still in turns finishes them first.
  - Keys that the gateway or its operator added stay; keys that this module applied earlier and that are no longer
    wanted go. What is wanted is restored if somebody changed it.
  - A new config is validated by the gateway's own OpenClaw before anything is touched. If the gateway does not come up
    with it, the old one is put back and the task fails with the gateway's own words.
  - Nothing that differs, nothing touched. A gateway that does not run is started.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
options:
  gateway:
    description: Name of the gateway.
    type: str
    required: true
  config:
    description: The config, without secrets. Secrets are files that the config refers to.
    type: dict
    required: true
  inputs:
    description:
      - Files other than the config that the gateway reads when it starts. It is restarted if one differs from what it
        was started with.
    type: list
    elements: path
    default: []
  timeout:
    description: Seconds the gateway may take to be ready.
    type: int
    default: 240
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Literal secrets that somebody put into the file are not shown.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: The gateway runs with its config
  claw.fleet.gateway_config:
    gateway: gw-a
    config: "{{ gateway_config }}"
"""

RETURN = r"""
restarted:
  description: Whether the gateway was started, or stopped and started.
  returned: success
  type: bool
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils import _config, _durable
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    DEFAULT_CONFIG_ROOT,
    Gateway,
    GatewayError,
)
from ansible_collections.claw.fleet.plugins.module_utils._gateway_config import ConfigChange, ConfigFile
from ansible_collections.claw.fleet.plugins.module_utils._roster import Roster, RosterError


def run(module: AnsibleModule) -> ConfigChange:
    """Do it, or say what would be done."""
    name, wanted = module.params["gateway"], module.params["config"]
    if module.check_mode and not (Path(DEFAULT_CONFIG_ROOT) / name / "gateway.json").exists():
        # The tasks before this one would have made the gateway.
        return ConfigChange(True, True, {}, wanted)
    gateway = Gateway.load(name)
    roster = Roster(gateway)
    with roster.lock():
        # The config includes it.
        roster.create(check=module.check_mode)
        file = ConfigFile(gateway, wanted, module.params["inputs"], module.params["timeout"])
        change = file.apply(check=module.check_mode)
        if not module.check_mode:
            # It may have lost sight of its files, and is made to look.
            roster.apply(roster.entries())
        return change


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "gateway": {"type": "str", "required": True},
            "config": {"type": "dict", "required": True},
            "inputs": {"type": "list", "elements": "path", "default": []},
            "timeout": {"type": "int", "default": 240},
        },
        supports_check_mode=True,
    )
    try:
        change = run(module)
    except (GatewayError, RosterError, _durable.DurableError) as error:
        module.fail_json(msg=str(error))
    before, after = (
        _config.render(config).decode() if config else "" for config in (change.before, change.after)
    )
    module.exit_json(
        changed=change.changed, restarted=change.restarted, diff={"before": before, "after": after}
    )


if __name__ == "__main__":
    main()
