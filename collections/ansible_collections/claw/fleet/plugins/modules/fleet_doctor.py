#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_doctor
short_description: Find and name what is wrong with a gateway and its machine
version_added: 0.1.0
description:
  - Looks at the machine, the gateway and its agents, and compares them with what the app says of them. Each fault that is known
    has a code, which stays the same, and a page of its own in the project's C(docs/doctor/).
  - It only looks. Where the gateway is down because OpenClaw refused its config, OpenClaw validates a copy of it, which is taken
    away again.
  - The app is asked by the controller alone, so the service token never reaches the machine. Secrets are compared by their SHA-256
    and are in no finding.
  - A check that cannot look is a finding itself, and so is a machine that cannot be reached. None stops the others.
  - The machine's half is M(claw.fleet.fleet_doctor_look). To be run as root.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.django
  - claw.fleet.doctor
  - claw.fleet.attributes
  - claw.fleet.attributes.info_module
options:
  api_url:
    description:
      - As for other modules. Without it the app is not asked, and what depends on it is not looked at.
    required: false
  api_token:
    description:
      - As for other modules.
    required: false
  unclaimed:
    description: Whether to look at coaches whom no gateway has claimed, too. Of several gateways one has to.
    type: bool
    default: false
  fail_on:
    description: Of which severity a finding has to be for the module to fail. The result is the same.
    type: str
    choices: [error, warning, note, never]
    default: error
"""

EXAMPLES = r"""
- name: What is wrong with this gateway
  claw.fleet.fleet_doctor:
    api_url: https://app.example.com/api/companion/v1/
    api_token: "{{ service_token }}"
    gateway: gw-a
    url: https://gateways.example.com/gw-a
    fail_on: never
  register: doctor_found
"""

RETURN = r"""
findings:
  description: What was found, the worst first; empty if nothing is wrong.
  returned: always
  type: list
  elements: dict
  sample: []
  contains:
    code:
      description: The name of the fault, which stays the same.
      type: str
    severity:
      description: V(error), V(warning) or V(note).
      type: str
    gateway:
      description: The gateway that was looked at.
      type: str
    agent:
      description: The agent it is about, if it is about one.
      type: str
    unit:
      description: The unit it is about, if it is about one.
      type: str
    sentence:
      description: What is wrong.
      type: str
    evidence:
      description: What it was told by, without secrets.
      type: str
    fix:
      description: What to do.
      type: str
    remedies:
      description: What the playbook C(claw.fleet.fleet_doctor) does about it with C(--tags fix). Empty where that is not safe.
      type: list
      elements: str
counts:
  description: How many findings there are of each severity.
  returned: always
  type: dict
  sample: {error: 0, warning: 0, note: 0}
table:
  description: The findings for people, in lines.
  returned: always
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import DJANGO_ARGUMENT_SPEC
from ansible_collections.claw.fleet.plugins.module_utils._doctor import MACHINE_OPTIONS
from ansible_collections.claw.fleet.plugins.module_utils._findings_code import SEVERITIES

ARGUMENT_SPEC: dict[str, Any] = {
    **DJANGO_ARGUMENT_SPEC,
    "api_url": {**DJANGO_ARGUMENT_SPEC["api_url"], "required": False},
    "api_token": {**DJANGO_ARGUMENT_SPEC["api_token"], "required": False},
    **MACHINE_OPTIONS,
    "fail_on": {"type": "str", "choices": [*SEVERITIES, "never"], "default": "error"},
    "unclaimed": {"type": "bool", "default": False},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.fail_json(
        msg="claw.fleet.fleet_doctor begins on the controller, by its action plugin of the same name."
    )


if __name__ == "__main__":
    main()
