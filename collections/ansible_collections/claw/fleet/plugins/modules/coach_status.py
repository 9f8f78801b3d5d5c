#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: coach_status
short_description: Claim coaches in Django for a gateway, and write back what became of them
version_added: 0.1.0
description:
  - The first and the last step of provisioning. It takes rows as the inventory plugin
    P(claw.fleet.coaches#inventory) gives them, and returns them with what Django answered, for the next step
    to take.
  - With O(claim) it checks every row, then claims those coaches for the gateway that nobody holds. A coach
    whom the gateway holds already costs no request. A coach who turns out to be another gateway's gets an
    C(error), and nothing is written about her here.
  - With O(activating) it marks the coaches whose agents are about to take their first turn.
  - With neither it writes back the outcome. A row with an C(error) becomes status C(error) with the reason.
    Any other row gets the status that her C(wanted) comes to rest in (C(active), C(paused) or C(removed)) and
    the generation that was acted on. What Django has already is not written again.
  - A row that already has an C(error) is carried past, except that its error is written back.
  - A fault of the list itself, or a Django that does not answer, fails the task.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.django
  - claw.fleet.attributes
  - claw.fleet.attributes.controller
attributes:
  check_mode:
    support: full
    details:
      - Nothing is written. Whether another gateway claims a coach in the meantime cannot be predicted.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  coaches:
    description:
      - Rows of coaches, from C(coaches_list) or from the C(results) of another step.
      - A row that cannot be used is in error by itself. A list with the same C(pk) twice, or with a row that
        has neither C(pk) nor C(agent_id), fails the task.
    type: list
    elements: dict
    required: true
  claim:
    description: The name of the gateway to claim the coaches for.
    type: str
  activating:
    description: Whether to mark the coaches whose agents have not taken their first turn yet.
    type: bool
    default: false
  failure:
    description:
      - What stopped a step for all coaches. Written as the reason of every coach who is due and has no error of
        her own, so that nobody waits in Django without being told.
    type: str
  fail_on_error:
    description: Whether the task fails, after all is written, if any row has an C(error). It names each.
    type: bool
    default: false
seealso:
  - plugin: claw.fleet.coaches
    plugin_type: inventory
  - module: claw.fleet.gateway_registration
"""

EXAMPLES = r"""
- name: Claim the coaches of this gateway
  claw.fleet.coach_status:
    api_url: https://app.example.com/api/companion/v1/
    api_token: "{{ service_token }}"
    coaches: "{{ coaches_list }}"
    claim: "{{ gateway_name }}"
  register: coaches_claimed

- name: Write back what became of them, and fail if there is anything to tell
  claw.fleet.coach_status:
    api_url: https://app.example.com/api/companion/v1/
    api_token: "{{ service_token }}"
    coaches: "{{ coaches_served.results }}"
    fail_on_error: true
"""

RETURN = r"""
results:
  description: The rows, in their order, with what Django answered.
  returned: always
  type: list
  elements: dict
  sample:
    - pk: 12
      agent_id: coach-anna
      name: Anna
      vars: {}
      wanted: running
      generation: 3
      status: provisioning
      observed_generation: 2
      reason: ""
      gateway: gw-a
      proposed_gateway: gw-a
      key_id: ""
      key_sha256: ""
      key_generation: 0
      key_wanted_generation: 1
  contains:
    error:
      description: What went wrong with this coach, if anything did.
      returned: when a step failed for this coach
      type: dict
      contains:
        step:
          description: The step that failed, such as C(row), C(claim) or C(status).
          type: str
        reason:
          description: What happened and what to do, in a sentence.
          type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import DJANGO_ARGUMENT_SPEC

ARGUMENT_SPEC: dict[str, Any] = {
    **DJANGO_ARGUMENT_SPEC,
    "coaches": {"type": "list", "elements": "dict", "required": True},
    "claim": {"type": "str"},
    "activating": {"type": "bool", "default": False},
    "failure": {"type": "str"},
    "fail_on_error": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.fail_json(
        msg="claw.fleet.coach_status runs on the controller, by its action plugin of the same name."
    )


if __name__ == "__main__":
    main()
