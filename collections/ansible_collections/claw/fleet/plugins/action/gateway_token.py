# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of claw.fleet.gateway_token: Django knows both tokens while the gateway goes from one to the other.

Whatever ends this in between, the next run goes on with the token that is pending on the machine.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import ApiError, Client, OptionsError
from ansible_collections.claw.fleet.plugins.modules.gateway_token import ARGUMENT_SPEC
from ansible_collections.claw.fleet.plugins.plugin_utils.actions import diff_of_secret


class ActionModule(ActionBase):
    """Prepare on the machine, announce in Django, use on the machine, settle in Django, finish on the machine."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        try:
            client = Client.of(args)
        except OptionsError as exc:
            raise AnsibleActionFail(str(exc)) from exc
        # What the machine answers holds the token, and connection plugins print it from -vvv on otherwise.
        self._play_context.no_log = self._connection._play_context.no_log = True
        prepared = self._step("prepare", args, task_vars)
        result |= {"changed": prepared["due"], "token_sha256": prepared["token_sha256"]}
        header = f"token of gateway {args['gateway']}"
        result["diff"] = diff_of_secret(header, prepared["token_sha256"], prepared["replaces"])
        if self._task.check_mode:
            return result
        while prepared["due"]:
            result["token_sha256"] = self._go_on(client, prepared["pending"], args, task_vars)
            # What an earlier run had left may not be the token that was given to this one.
            prepared = self._step("prepare", args, task_vars) if args["token"] else {"due": False}
        return result

    def _go_on(self, client: Client, token: str, args: dict[str, Any], task_vars: Any) -> str:
        """From a pending token to one that counts; its hash."""
        try:
            known = _announce(client, args["gateway"], token)
            digest: str = self._step("use", args, task_vars)["token_sha256"]
            if known:
                client.put_gateway(args["gateway"], token=token)
        except ApiError as exc:
            raise AnsibleActionFail(f"{exc} The new token is kept; run again to go on with it.") from None
        self._step("finish", args, task_vars)
        return digest

    def _step(self, step: str, args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        options = {name: args[name] for name in ("gateway", "config_root", "token", "max_age_days")}
        answer: dict[str, Any] = self._execute_module(
            module_name="claw.fleet.gateway_token_file",
            module_args={**options, "step": step},
            task_vars=task_vars,
        )
        if answer.get("failed") or answer.get("unreachable"):
            # What else it holds may be the token.
            said = answer.get("msg") or "the machine gave no answer"
            raise AnsibleActionFail(f"{step}: {said}")
        return answer


def _announce(client: Client, name: str, token: str) -> bool:
    """Have Django try this token beside the one it has; whether Django knows the gateway at all."""
    if client.gateway(name) is None:
        return False
    told = client.put_gateway(name, next_token=token)
    if hashlib.sha256(token.encode()).hexdigest() not in (
        told.get("token_sha256"),
        told.get("next_token_sha256"),
    ):
        raise AnsibleActionFail(
            f"Django did not take down the next token of gateway {name}, so requests would be lost while it changes. "
            "Its app has to know next_token and next_token_sha256, as the reference coach list does."
        )
    return True
