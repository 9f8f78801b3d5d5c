#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: tunnel_token
short_description: The token by which a machine's tunnel is known to the app
version_added: 0.1.0
description:
  - Each machine with a tunnel has a token of its own, made there, which may say where the machine's own gateways are
    and nothing else. The app gets its SHA-256, by the fleet's service token, which stays on the controller.
  - A machine that lost its token gets another. The one before is revoked in the app's admin.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.django
  - claw.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  name:
    description: What the app's admin shows the token as.
    type: str
    required: true
  gateways:
    description:
      - The gateways of the machine that this run has just given a way through the tunnel, or in check mode would. Those that
        have one from before are known on the machine.
    type: list
    elements: str
    default: []
  tunnel_dir:
    description: Where the role P(claw.fleet.tunnel#role) has put what it knows, on the machine.
    type: path
    default: /etc/claw-tunnel
"""

EXAMPLES = r"""
- name: The app lets the machine say where its gateways are
  claw.fleet.tunnel_token:
    api_url: https://app.example.com/api/companion/v1/
    api_token: "{{ lookup('ansible.builtin.file', '/etc/claw-controller/service-token') }}"
    name: tunnel of machine1
    gateways: [gw-a, gw-b]
"""

RETURN = r"""
token_sha256:
  description: The token's hash. Empty in check mode where there is none yet.
  returned: success
  type: str
gateways:
  description: The gateways that it is good for.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import DJANGO_ARGUMENT_SPEC

ARGUMENT_SPEC: dict[str, Any] = {
    **DJANGO_ARGUMENT_SPEC,
    "name": {"type": "str", "required": True},
    "gateways": {"type": "list", "elements": "str", "default": []},
    "tunnel_dir": {"type": "path", "default": "/etc/claw-tunnel"},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.fail_json(msg="claw.fleet.tunnel_token runs by its action plugin of the same name.")


if __name__ == "__main__":
    main()
