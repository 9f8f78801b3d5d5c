#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_token
short_description: Give a running gateway another token
version_added: 0.1.0
description:
  - The new token is made on the gateway's machine and pending there; Django gets to know it and tries it from now on
    where the gateway refuses the one before; the gateway takes it, without a restart and without a turn being disturbed,
    and is proven to refuse the one before; Django forgets that one. So no request is lost on the way.
  - What an interrupted run left pending is carried to its end by the next one. A retry never makes another token.
  - A gateway that Django does not know is not told to it.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.django
  - claw.fleet.attributes
  - claw.fleet.gateway
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Of the token before, the first characters of its SHA-256 are shown.
  idempotent:
    support: partial
    details:
      - Without O(token), and without O(max_age_days), each run makes a new token.
options:
  token:
    description: The token to use instead of one made on the machine. Nothing is done where the gateway has it.
    type: str
  max_age_days:
    description: How many days old a token has to be to be replaced by one made on the machine. V(0) replaces any.
    type: int
    default: 0
seealso:
  - module: claw.fleet.gateway_secrets
  - module: claw.fleet.gateway_registration
"""

EXAMPLES = r"""
- name: The gateway has a token that is younger than a month
  claw.fleet.gateway_token:
    api_url: https://app.example.com/api/companion/v1/
    api_token: "{{ service_token }}"
    gateway: gw-a
    max_age_days: 30
"""

RETURN = r"""
token_sha256:
  description: The hash of the token that counts now. In check mode, of the one that counts until then.
  returned: success
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import DJANGO_ARGUMENT_SPEC

ARGUMENT_SPEC: dict[str, Any] = {
    **DJANGO_ARGUMENT_SPEC,
    "gateway": {"type": "str", "required": True},
    "config_root": {"type": "path", "default": "/etc/claw"},
    "token": {"type": "str", "no_log": True},
    "max_age_days": {"type": "int", "default": 0},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.fail_json(
        msg="claw.fleet.gateway_token runs by its action plugin, which calls claw.fleet.gateway_token_file."
    )


if __name__ == "__main__":
    main()
