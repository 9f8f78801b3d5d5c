#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_doctor_look
short_description: Look at a gateway and its machine for the doctor
version_added: 0.1.0
description:
  - The machine's half of M(claw.fleet.fleet_doctor), which calls it and is what you want. It knows the app by what it is told, and
    never gets its token.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.doctor
  - claw.fleet.attributes
  - claw.fleet.attributes.info_module
options:
  app:
    description: What the app knows of the gateway, with hashes of secrets; empty if it knows no such. Not given if that is not known.
    type: dict
  rows:
    description: The app's rows of the gateway's coaches. Not given if they are not known.
    type: list
    elements: dict
seealso:
  - module: claw.fleet.fleet_doctor
"""

EXAMPLES = r"""
- name: Look at a gateway without asking the app
  claw.fleet.fleet_doctor_look:
    gateway: gw-a
"""

RETURN = r"""
findings:
  description: What was found, as M(claw.fleet.fleet_doctor) tells it.
  returned: always
  type: list
  elements: dict
  sample: []
now:
  description: The machine's clock when it was asked, in seconds since the epoch.
  returned: always
  type: float
  sample: 1790000000.5
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils import _doctor, _doctor_round

ARGUMENT_SPEC: dict[str, Any] = {
    **_doctor.MACHINE_OPTIONS,
    "app": {"type": "dict"},
    "rows": {"type": "list", "elements": "dict"},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    now, params = time.time(), module.params
    given = _doctor.Given(
        app=params["app"],
        rows=params["rows"],
        url=params["url"],
        coach_api_url=params["coach_api_url"],
        dns_hosts=params["dns_hosts"],
        proxy_port=params["proxy_port"],
        files=params["files"],
        patience=params["ready_timeout"],
    )
    patient = _doctor.Patient(params["gateway"], params["config_root"], given)
    found = _doctor_round.look(patient, machine=params["machine"])
    module.exit_json(
        changed=False,
        now=now,
        findings=[_doctor.told(finding, params["gateway"]) for finding in found],
        # What was given is large, and none of it is news.
        invocation={"module_args": {"gateway": params["gateway"]}},
    )


if __name__ == "__main__":
    main()
