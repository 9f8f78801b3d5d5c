#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_secrets
short_description: Have a gateway's secrets in their files
version_added: 0.1.0
description:
  - Each secret is a file of the gateway's own user in its state directory, mode 0400, that the gateway's config refers
    to. They are written as that user, so that nothing planted there can redirect a write.
  - The gateway's token is made here, once, from the system's random source, unless one is given.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
options:
  gateway:
    description: Name of the gateway.
    type: str
    required: true
  token:
    description: The token to use instead of one made here. Left alone if not given and there is one.
    type: str
  provider_keys:
    description:
      - The API key of each model provider, by the provider's name. Keys of providers that are not named are removed.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Names the files, never their content.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: The gateway has its secrets
  claw.fleet.gateway_secrets:
    gateway: gw-a
    provider_keys:
      openai: "{{ vault_openai_key }}"
"""

RETURN = r"""
files:
  description: The files of the secrets.
  returned: success
  type: list
  elements: str
  sample: [/var/lib/claw/gw-a/token, /var/lib/claw/gw-a/provider-openai.key]
"""

import re
import secrets
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    DEFAULT_CONFIG_ROOT,
    Gateway,
    GatewayError,
)

_KEY_FILE = re.compile(r"provider-.+\.key")
_TOKEN_BYTES = 24


def reconcile(
    gateway: Gateway, token: str | None, keys: dict[str, Any], check: bool
) -> tuple[list[str], list[str]]:
    """Have the files; what was changed (or would be), and all of them."""
    state, owner = Path(gateway.state_dir), gateway.owner
    wanted = {f"provider-{name}.key": str(key).encode() for name, key in keys.items()}
    changed: list[str] = []
    with _durable.as_user(*owner):
        found = _durable.read(state / "token", root=state)
        if token:
            wanted["token"] = token.encode()
        elif not (found or b"").strip():
            wanted["token"] = secrets.token_hex(_TOKEN_BYTES).encode()
        for name, data in wanted.items():
            changed += [name] if _have(state / name, data, owner, state, check) else []
        if "token" not in wanted and _attributes_differ(state / "token", owner, state):
            changed.append("token")
            if not check:
                _durable.set_attributes(state / "token", mode=0o400, owner=owner, root=state)
        for name in _durable.list_dir(state, root=state.parent):
            if _KEY_FILE.fullmatch(name) and name not in wanted:
                changed.append(f"{name} (removed)")
                if not check:
                    _durable.remove(state / name, root=state)
    return sorted(changed), sorted(str(state / name) for name in {*wanted, "token"})


def _have(path: Path, data: bytes, owner: _durable.Owner, root: Path, check: bool) -> bool:
    if _durable.read(path, root=root) == data and not _attributes_differ(path, owner, root):
        return False
    if not check:
        _durable.write(path, data, mode=0o400, owner=owner, root=root)
    return True


def _attributes_differ(path: Path, owner: _durable.Owner, root: Path) -> bool:
    found = _durable.inspect(path, root=root)
    return found is None or found.mode != 0o400 or found.owner != owner


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "gateway": {"type": "str", "required": True},
            "token": {"type": "str", "no_log": True},
            "provider_keys": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    name, token, keys = (module.params[option] for option in ("gateway", "token", "provider_keys"))
    if module.check_mode and not (Path(DEFAULT_CONFIG_ROOT) / name / "gateway.json").exists():
        # The tasks before this one would have made the gateway.
        changed = sorted(["token", *(f"provider-{provider}.key" for provider in keys)])
        module.exit_json(
            changed=True, files=[], diff={"before": "", "after": "".join(f"{x}\n" for x in changed)}
        )
    try:
        gateway = Gateway.load(name)
        with _durable.lock(gateway.lock_path):
            changed, files = reconcile(gateway, token, keys, module.check_mode)
    except (GatewayError, _durable.DurableError) as error:
        module.fail_json(msg=str(error))
    after = "".join(f"{entry}\n" for entry in changed)
    module.exit_json(changed=bool(changed), files=files, diff={"before": "", "after": after})


if __name__ == "__main__":
    main()
