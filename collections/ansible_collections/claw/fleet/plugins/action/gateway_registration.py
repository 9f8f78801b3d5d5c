# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of claw.fleet.gateway_registration, on the controller."""

from __future__ import annotations

import hashlib
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.module_utils._coach import gateway_name
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import ApiError, Client, OptionsError
from ansible_collections.claw.fleet.plugins.modules.gateway_registration import ARGUMENT_SPEC
from ansible_collections.claw.fleet.plugins.plugin_utils.registrations import Registration

_HASH_SHOWN = 12


class ActionModule(ActionBase):
    """Compare and, where it differs, write."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        try:
            name = gateway_name(args["name"])
        except ValueError as exc:
            raise AnsibleActionFail(f"name {exc}.") from None
        if not args["token"].strip():
            raise AnsibleActionFail("token is empty; give the gateway's token, as its token file has it.")
        try:
            result.update(_register(Client.of(args), name, args, self._task.check_mode))
        except (ApiError, OptionsError) as exc:
            raise AnsibleActionFail(str(exc)) from None
        return result


def _register(client: Client, name: str, args: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    url, capacity, token = args["url"], args["capacity"], args["token"]
    digest = hashlib.sha256(token.encode()).hexdigest()
    found = Registration.ask(client, name, url=url, capacity=capacity, token_sha256=digest)
    told = {"name": name, **found.wanted}
    if found.differs and not check_mode:
        new_url = None if url is None else found.wanted["url"]
        new_token = None if found.announced else token
        told = client.put_gateway(name, url=new_url, token=new_token, capacity=capacity)
    return {
        "changed": found.differs,
        "gateway": {field: told.get(field) for field in ("name", "url", "capacity")},
        "diff": {
            "before_header": f"gateway {name} in Django",
            "after_header": f"gateway {name} in Django",
            "before": _shown(found.before) if found.known else "",
            "after": _shown(found.wanted),
        },
    }


def _shown(values: dict[str, Any]) -> dict[str, Any]:
    """The values for a diff; a token of 48 random digits cannot be found from some digits of its hash."""
    return {**values, "token_sha256": str(values["token_sha256"] or "")[:_HASH_SHOWN]}
