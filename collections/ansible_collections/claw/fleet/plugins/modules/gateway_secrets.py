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
  - A gateway that runs has what is new in them at once, without a restart and without a turn being disturbed. What the
    former content of a file opened is not touched here. Before a gateway's token changes, Django has to know the new
    one, which is for M(claw.fleet.gateway_token) to see to.
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
reloaded:
  description: Whether the running gateway was made to read its secrets anew.
  returned: success
  type: bool
"""

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
from ansible_collections.claw.fleet.plugins.module_utils._gateway_secrets import (
    TOKEN_BYTES,
    SecretFiles,
    take,
)


def reconcile(
    gateway: Gateway, token: str | None, keys: dict[str, Any], check: bool
) -> tuple[list[str], list[str]]:
    """Have the files; what was changed (or would be), and all of them."""
    files = SecretFiles(gateway)
    wanted = {f"provider-{name}.key": str(key) for name, key in keys.items()}
    changed: list[str] = []
    with _durable.as_user(*gateway.owner):
        if not token and not files.read(files.token):
            token = secrets.token_hex(TOKEN_BYTES)
        for name, key in wanted.items():
            changed += [name] if files.have(files.state / name, key, check=check) else []
        if files.replace_token(token, check=check) if token else files.set_token_right(check=check):
            changed.append("token")
        for name in files.provider_keys():
            if name not in wanted:
                changed.append(f"{name} (removed)")
                if not check:
                    files.remove(files.state / name)
    return sorted(changed), sorted(str(files.state / name) for name in {*wanted, "token"})


def predicted(gateway: Gateway, token: str | None, keys: dict[str, Any]) -> dict[Path, bytes | None]:
    """What the files will hold."""
    files = SecretFiles(gateway)
    will: dict[Path, bytes | None] = {files.state / name: None for name in files.provider_keys()}
    will |= {files.state / f"provider-{name}.key": str(key).encode() for name, key in keys.items()}
    return will | ({files.token: token.encode()} if token else {})


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
            changed=True,
            files=[],
            reloaded=False,
            diff={"before": "", "after": "".join(f"{x}\n" for x in changed)},
        )
    try:
        gateway = Gateway.load(name)
        gateway.require_state()
        with _durable.lock(gateway.lock_path):
            changed, files = reconcile(gateway, token, keys, module.check_mode)
            reloaded = take(gateway, check=module.check_mode, instead=predicted(gateway, token, keys))
    except (GatewayError, _durable.DurableError) as error:
        module.fail_json(msg=str(error))
    done = [*changed, *(["read anew by the gateway"] if reloaded else [])]
    module.exit_json(
        changed=bool(done),
        files=files,
        reloaded=reloaded,
        diff={"before": "", "after": "".join(f"{entry}\n" for entry in done)},
    )


if __name__ == "__main__":
    main()
