# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of claw.fleet.fleet_doctor: it asks the app, and is there where the machine is not."""

from __future__ import annotations

import re
import time
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.module_utils import _doctor, _doctor_agents, _doctor_machine
from ansible_collections.claw.fleet.plugins.module_utils._coach import CoachListError, check_rows
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import ApiError, Client, OptionsError
from ansible_collections.claw.fleet.plugins.module_utils._findings import CODES
from ansible_collections.claw.fleet.plugins.modules.fleet_doctor import ARGUMENT_SPEC

_FIELDS = (
    "agent_id", "wanted", "generation", "status", "observed_generation", "reason",
    "key_sha256", "key_generation", "key_wanted_generation",
)  # fmt: skip
_UNAUTHORIZED = (401, 403)
_MOST_LOOKS = 3
_NOT_ROOT = re.compile(
    r"\b(?:Missing|Incorrect) \w+ password|waiting for (?:become success|privilege escalation)|\bsudoers\b"
    r"|\b(?:sudo|su|doas): (?!unable to resolve)|\bnot allowed to (?:run|execute)\b"
)
"""How Ansible says it, and the programs themselves: there is no class of error for it."""


class ActionModule(ActionBase):
    """Ask the app, look on the machine, and tell both."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        # On a machine without a gateway it is the host's name that people know.
        gateway = args["gateway"] or str((task_vars or {}).get("inventory_hostname") or "")
        found, looked = self._look(args, gateway, task_vars)
        findings = _doctor.sorted_by_weight([*(_doctor.told(finding, gateway) for finding in found), *looked])
        result |= {
            "changed": False,
            "findings": findings,
            "counts": _doctor.counted(findings),
            "table": _doctor.table(findings),
        }
        if bad := _doctor.failing(findings, args["fail_on"]):
            result |= {"failed": True, "msg": f"The doctor found {', '.join(bad)}."}
        return result

    def _look(
        self, args: dict[str, Any], gateway: str, task_vars: Any
    ) -> tuple[list[_doctor.Finding], list[dict[str, Any]]]:
        """What is wrong with asking the app, and what is found on the machine beside what it said.

        The app may be told of something after it was asked and before the machine is looked at. Where the two differ it is asked
        once more, and if it says otherwise by now, the machine is looked at again.
        """
        options = {name: args[name] for name in _doctor.MACHINE_OPTIONS}
        given, found = _of_app(args)
        for looks in range(1, _MOST_LOOKS + 1):
            looked = self._on_machine({**options, **given}, gateway, task_vars)
            if looks == _MOST_LOOKS or not any(CODES[finding["code"]].beside_app for finding in looked):
                break
            anew = _of_app(args)
            if anew == (given, found):
                break
            given, found = anew
        return found, looked

    def _on_machine(self, options: dict[str, Any], gateway: str, task_vars: Any) -> list[dict[str, Any]]:
        before = time.time()
        try:
            answer = self._execute_module(
                module_name="claw.fleet.fleet_doctor_look",
                module_args=options,
                task_vars=task_vars,
            )
        except AnsibleError as error:
            # Also what is no failure of a connection: nothing was run there.
            return [_doctor.told(_not_looked_at(str(error), away=True), gateway)]
        if answer.get("failed") or answer.get("unreachable") or "findings" not in answer:
            words = f"{answer.get('msg') or ''} {answer.get('module_stderr') or ''} {answer.get('exception') or ''}"
            found = _not_looked_at(words, away=bool(answer.get("unreachable")))
            return [_doctor.told(found, gateway)]
        clock = _doctor_machine.clock(answer["now"], before, time.time()) if options["machine"] else ()
        return [_doctor.told(finding, gateway) for finding in clock] + [
            {**finding, "gateway": gateway} for finding in answer["findings"]
        ]


def _not_looked_at(words: str, *, away: bool) -> _doctor.Finding:
    """What is said of a machine on which the doctor's other half could not do its work."""
    if _NOT_ROOT.search(words):
        return _doctor.Finding("machine-refuses", "The machine does not let the doctor become root.", words)
    if away:
        return _doctor.Finding("machine-unreachable", "The machine cannot be reached.", words)
    return _doctor.Finding("check-failed", "The doctor could not look at the machine.", words)


def _of_app(args: dict[str, Any]) -> tuple[dict[str, Any], list[_doctor.Finding]]:
    """What the app knows of the gateway and its coaches, and what is wrong with asking."""
    if not args["api_url"] or not args["gateway"]:
        return {"app": None, "rows": None}, []
    try:
        client = Client.of({**args, "api_token": args["api_token"] or ""})
        known = client.gateway(args["gateway"])
        pages = client.coaches({"gateway": args["gateway"]})
        rows = check_rows(pages.rows if pages else [])
        nobodys = client.coaches({"gateway": "none"}) if args["unclaimed"] else None
        unclaimed = check_rows(nobodys.rows if nobodys else [])
    except (ApiError, OptionsError, CoachListError) as error:
        refused = getattr(error, "status", 0) in _UNAUTHORIZED
        code = "service-token-refused" if refused else "app-unreachable"
        sentence = (
            "The app refuses the fleet's service token." if refused else "The app does not answer the fleet."
        )
        return {"app": None, "rows": None}, [_doctor.Finding(code, sentence, str(error))]
    found = _doctor_agents.wishes(unclaimed)
    shown = {name: known.get(name) for name in ("url", "token_sha256", "next_token_sha256")} if known else {}
    # No names and nothing of what the coaches told: the machine has no use for it here.
    return {"app": shown, "rows": [{name: row[name] for name in _FIELDS} for row in rows]}, list(found)
