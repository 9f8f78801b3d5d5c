#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_registration
short_description: Tell Django how a gateway is reached
version_added: 0.1.0
description:
  - Django asks a coach's agent through her gateway, so it has to know the gateway's address and token, and
    how many coaches it takes.
  - Reads what Django has and writes only what differs. Django never gives a token out, so tokens are compared
    by their SHA-256. One that M(claw.fleet.gateway_token) has announced is known.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.django
  - claw.fleet.attributes
  - claw.fleet.attributes.controller
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Of the token the first characters of its SHA-256 are shown.
  idempotent:
    support: full
options:
  name:
    description: The name of the gateway.
    type: str
    required: true
  url:
    description:
      - Where Django reaches the gateway, without C(/v1). A slash at its end makes no difference.
      - If it is not given, it stays as it is in Django, where M(claw.fleet.tunnel_url) or a person sets it.
    type: str
  token:
    description: The gateway's token.
    type: str
    required: true
  capacity:
    description: How many coaches the gateway may hold. If it is not given, it stays as it is in Django.
    type: int
seealso:
  - module: claw.fleet.coach_status
"""

EXAMPLES = r"""
- name: Django knows the way to this gateway
  claw.fleet.gateway_registration:
    api_url: https://app.example.com/api/companion/v1/
    api_token: "{{ service_token }}"
    name: gw-a
    url: https://gateways.example.com/gw-a
    token: "{{ gateway_token }}"
    capacity: 100
"""

RETURN = r"""
gateway:
  description: What Django knows of the gateway, or would know after a run without check mode.
  returned: success
  type: dict
  contains:
    name:
      description: The name of the gateway.
      type: str
    url:
      description: Its address, without a slash at its end.
      type: str
    capacity:
      description: How many coaches it may hold. V(null) where check mode cannot know Django's default.
      type: int
  sample:
    name: gw-a
    url: https://gateways.example.com/gw-a
    capacity: 100
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import DJANGO_ARGUMENT_SPEC

ARGUMENT_SPEC: dict[str, Any] = {
    **DJANGO_ARGUMENT_SPEC,
    "name": {"type": "str", "required": True},
    "url": {"type": "str"},
    "token": {"type": "str", "required": True, "no_log": True},
    "capacity": {"type": "int"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.fail_json(
        msg="claw.fleet.gateway_registration runs on the controller, by its action plugin of the same name."
    )


if __name__ == "__main__":
    main()
