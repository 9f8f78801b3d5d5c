# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of claw.fleet.tunnel_token: the machine makes the token, the app is told its hash."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import ApiError, Client, OptionsError
from ansible_collections.claw.fleet.plugins.modules.tunnel_token import ARGUMENT_SPEC


class ActionModule(ActionBase):
    """Have the token on the machine, then its hash in the app."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        made = self._made(args, task_vars)
        if made.get("failed"):
            return {**result, **made}
        changed, digest = made["changed"], made["token_sha256"]
        gateways = sorted({*made["gateways"], *args["gateways"]})
        try:
            client = Client.of(args)
            known = _known(client, digest)
            before = sorted((known or {}).get("gateways") or [])
            differs = known is None or before != gateways
            if (
                differs
                and not self._task.check_mode
                and not _registered(client, digest, args["name"], gateways)
            ):
                # Somebody has revoked it, which is for good.
                made = self._made(args, task_vars, renew=digest)
                if made.get("failed"):
                    return {**result, **made}
                digest = made["token_sha256"]
                client.put_service_token(digest, args["name"], gateways)
        except (ApiError, OptionsError) as exc:
            raise AnsibleActionFail(str(exc)) from None
        header = f"what the app lets the {args['name']} say"
        return {
            **result,
            "changed": changed or differs,
            "token_sha256": digest,
            "gateways": gateways,
            "diff": {
                "before_header": header,
                "after_header": header,
                "before": _lines(before),
                "after": _lines(gateways),
            },
        }

    def _made(
        self, args: dict[str, Any], task_vars: dict[str, Any] | None, renew: str = ""
    ) -> dict[str, Any]:
        """The machine's half: that there is a token, and its hash."""
        told: dict[str, Any] = self._execute_module(
            module_name="claw.fleet.tunnel_token_file",
            module_args={"tunnel_dir": args["tunnel_dir"], "renew": renew},
            task_vars=task_vars,
        )
        return told


def _registered(client: Client, digest: str, name: str, gateways: list[str]) -> bool:
    """Register it; False if that was done before and somebody has revoked it."""
    try:
        client.put_service_token(digest, name, gateways)
    except ApiError as exc:
        if exc.status == 409:
            return False
        raise
    return True


def _known(client: Client, digest: str) -> dict[str, Any] | None:
    """What the app knows of the token, or None."""
    try:
        return client.service_token(digest) if digest else None
    except ApiError as exc:
        if exc.status == 404 and exc.of_row:
            return None
        raise


def _lines(gateways: list[str]) -> str:
    return "".join(f"where {name} is\n" for name in gateways)
