#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: tunnel_token_file
short_description: The file of the token by which a machine's tunnel is known to the app
version_added: 0.1.0
description:
  - The machine's half of M(claw.fleet.tunnel_token), which calls it and is what you want. It knows nothing of the app, and the
    token never leaves the machine.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  tunnel_dir:
    description: Where the role P(claw.fleet.tunnel#role) has put what it knows. In it, the token is in C(token).
    type: path
    default: /etc/claw-tunnel
  renew:
    description: The hash of a token that is good no more. If it is that of the one there is, another is made.
    type: str
    default: ""
seealso:
  - module: claw.fleet.tunnel_token
"""

EXAMPLES = r"""
- name: See which gateways of the machine are behind its tunnel
  claw.fleet.tunnel_token_file:
  check_mode: true
"""

RETURN = r"""
token_sha256:
  description: The token's hash. Empty in check mode where there is none yet.
  returned: success
  type: str
gateways:
  description: The gateways of this machine that have a way through the tunnel.
  returned: success
  type: list
  elements: str
"""

import hashlib
import secrets
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._tunnel import CONFIG_DIR, GATEWAYS, TOKEN

_BYTES = 32


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "tunnel_dir": {"type": "path", "default": CONFIG_DIR},
            "renew": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["tunnel_dir"])
    try:
        token = (_durable.read(directory / TOKEN) or b"").decode("ascii", "replace").strip()
        changed = not token or _sha256(token) == module.params["renew"]
        if changed and not module.check_mode:
            token = secrets.token_urlsafe(_BYTES)
            _durable.write(directory / TOKEN, f"{token}\n".encode(), mode=0o600)
    except _durable.DurableError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=changed,
        token_sha256=_sha256(token) if token else "",
        gateways=sorted(place.stem for place in (directory / GATEWAYS).glob("*.json")),
    )


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


if __name__ == "__main__":
    main()
