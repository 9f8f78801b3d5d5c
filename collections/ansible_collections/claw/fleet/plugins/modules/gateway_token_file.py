#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_token_file
short_description: The steps of a gateway's new token on its machine
version_added: 0.1.0
description:
  - What M(claw.fleet.gateway_token) calls on the gateway's machine. It is of no use by itself.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
  - claw.fleet.gateway
options:
  step:
    description:
      - With V(prepare) a new token is pending afterwards, or the one that an interrupted run has left is. With V(use)
        the gateway takes the pending one and refuses the one before. With V(finish) nothing is pending any more.
    type: str
    choices: [prepare, use, finish]
    required: true
  token:
    description: The token to use instead of one made here.
    type: str
  max_age_days:
    description: How many days old a token has to be to be replaced by one made here.
    type: int
    default: 0
attributes:
  check_mode:
    support: full
    details:
      - With O(step=prepare) alone.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - Each step, once it is done, does nothing more; the first begins anew where nothing is pending.
"""

EXAMPLES = r"""
- name: A new token is pending
  claw.fleet.gateway_token_file:
    gateway: gw-a
    step: prepare
  no_log: true
"""

RETURN = r"""
pending:
  description: The token that is pending; empty if none is, and in check mode.
  returned: with O(step=prepare)
  type: str
due:
  description: Whether something is to be done.
  returned: with O(step=prepare)
  type: bool
replaces:
  description: Whether another token will count in the end.
  returned: with O(step=prepare)
  type: bool
token_sha256:
  description: The hash of the token that the gateway's config refers to.
  returned: success
  type: str
"""

import hashlib
import secrets
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayError
from ansible_collections.claw.fleet.plugins.module_utils._gateway_secrets import (
    TOKEN_BYTES,
    SecretFiles,
    take,
)

_DAY_SECONDS = 86400


def prepare(files: SecretFiles, token: str | None, max_age_days: int, check: bool) -> dict[str, Any]:
    """Have the new token pending, where one is due."""
    with _durable.as_user(*files.gateway.owner):
        current, pending = files.read(files.token), files.read(files.pending)
        if not current:
            raise GatewayError(f"{files.token} is absent or empty; run the role claw.fleet.gateway first")
        if pending and token and pending not in (token, current):
            # It never came to be in force; the operator wants another one by now.
            pending = ""
        if pending:
            due = True
        elif token:
            due = token != current
        else:
            due = time.time() - Path(files.token).stat().st_mtime >= max_age_days * _DAY_SECONDS
        changed = due and not pending
        if changed and not check:
            pending = token or secrets.token_hex(TOKEN_BYTES)
            files.have(files.pending, pending, check=False)
    # One that is in force already has yet to be settled with Django, and that is all.
    replaces = due and (token or pending) != current
    return {"changed": changed, "due": due, "replaces": replaces, "pending": "" if check else pending}


def use(files: SecretFiles) -> dict[str, Any]:
    """Have the gateway take the pending token, and refuse the one before."""
    with _durable.as_user(*files.gateway.owner):
        pending = files.read(files.pending)
        if not pending:
            raise GatewayError(f"{files.pending} is absent: another run has finished this one. Run again.")
        replaced = files.replace_token(pending, check=False)
    return {"changed": take(files.gateway, check=False) or replaced}


def finish(files: SecretFiles) -> dict[str, Any]:
    """Nothing is pending any more."""
    with _durable.as_user(*files.gateway.owner):
        there = bool(files.read(files.pending))
        files.remove(files.pending)
    return {"changed": there}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "gateway": {"type": "str", "required": True},
            "config_root": {"type": "path", "default": "/etc/claw"},
            "step": {"type": "str", "choices": ["prepare", "use", "finish"], "required": True},
            "token": {"type": "str", "no_log": True},
            "max_age_days": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        gateway = Gateway.load(params["gateway"], params["config_root"])
        files = SecretFiles(gateway)
        with _durable.lock(gateway.lock_path):
            if params["step"] == "prepare":
                told = prepare(files, params["token"], params["max_age_days"], module.check_mode)
            elif module.check_mode:
                told = {"changed": False}
            else:
                told = use(files) if params["step"] == "use" else finish(files)
            digest = hashlib.sha256(gateway.token().encode()).hexdigest()
    except (GatewayError, _durable.DurableError) as error:
        module.fail_json(msg=str(error))
    # AnsibleModule hides values of no_log options in what it returns, also where they are meant to be told.
    module.no_log_values.discard(told.get("pending"))
    module.exit_json(**told, token_sha256=digest)


if __name__ == "__main__":
    main()
