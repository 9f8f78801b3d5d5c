#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: agent_key
short_description: Give each coach's agent its key to the coach API
version_added: 0.1.0
description:
  - A key is made on the gateway's machine and never leaves it. It is first written as pending, then the
    controller registers its SHA-256 in Django, then it is promoted to C(.credentials.json) in the coach's
    directory below C(credentials) in the gateway's state directory, for her agent's command line to read.
  - What an interrupted run left pending is adopted by the next one. A retry never makes another key.
  - A key is made anew when C(key_wanted_generation) of the row is above the generation of the key on disk. The one
    before stays good until the new one is in its place and some seconds longer, where the app knows C(former_seconds).
  - The key of a coach whose C(wanted) is V(removed) is revoked in Django, and then its files are removed.
  - Where nothing is to be changed, Django is not asked.
  - A row with an C(error) is carried past untouched.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.django
  - claw.fleet.attributes
  - claw.fleet.gateway
attributes:
  check_mode:
    support: full
    details:
      - The id of a key that would be made is not known.
  diff_mode:
    support: full
    details:
      - Keys are shown by their ids and the first digits of their hashes.
  idempotent:
    support: partial
    details:
      - Not with O(state=rotated) or O(rotate), which make a new key each time.
options:
  agents:
    description:
      - Rows of coaches, from C(coaches_list) of the inventory or from the C(results) of another step.
    type: list
    elements: dict
    required: true
  state:
    description:
      - With V(present) each coach has a key that Django knows. With V(rotated) each gets a new one. With
        V(absent) none has one.
    type: str
    choices: [present, rotated, absent]
    default: present
  rotate:
    description:
      - The ids of agents who get a new key also with O(state=present), one that was asked for by this and not by
        C(key_wanted_generation). A coach who is wanted removed gets none.
    type: list
    elements: str
    default: []
  coach_api_url:
    description:
      - The base of the coach API as agents reach it, which is written beside the key. If it is not given, it
        is O(api_url).
    type: str
seealso:
  - module: claw.fleet.agent_key_file
  - module: claw.fleet.openclaw_agent
  - module: claw.fleet.coach_status
"""

EXAMPLES = r"""
- name: Each coach has a key
  claw.fleet.agent_key:
    api_url: https://app.example.com/api/companion/v1/
    api_token: "{{ service_token }}"
    gateway: gw-a
    agents: "{{ coaches_claimed.results }}"
  register: coaches_keyed

- name: One coach gets another key
  claw.fleet.agent_key:
    api_url: https://app.example.com/api/companion/v1/
    api_token: "{{ service_token }}"
    gateway: gw-a
    agents: "{{ coaches_list | selectattr('agent_id', 'eq', 'coach-anna') }}"
    state: rotated
"""

RETURN = r"""
results:
  description: The rows, in their order, with the id, hash and generation of the key that counts now.
  returned: always
  type: list
  elements: dict
  contains:
    key_id:
      description: The id of the key, which is no secret.
      type: str
      sample: 5f0c27d1a94e
    key_sha256:
      description: The hash by which Django knows the key.
      type: str
      sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    key_generation:
      description: The generation that was asked for when the key was made.
      type: int
      sample: 1
    actions:
      description: What was done, or in check mode would be, after what earlier steps did.
      returned: when something was done
      type: list
      elements: str
      sample: [made key 5f0c27d1a94e]
    error:
      description: What went wrong with this coach, if anything did.
      returned: when a step failed for this coach
      type: dict
      contains:
        step:
          description: The step that failed, here V(key).
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
    "gateway": {"type": "str", "required": True},
    "config_root": {"type": "path", "default": "/etc/claw"},
    "agents": {"type": "list", "elements": "dict", "required": True},
    "state": {"type": "str", "choices": ["present", "rotated", "absent"], "default": "present"},
    "rotate": {"type": "list", "elements": "str", "default": []},
    "coach_api_url": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.fail_json(
        msg="claw.fleet.agent_key runs by its action plugin, which calls claw.fleet.agent_key_file."
    )


if __name__ == "__main__":
    main()
