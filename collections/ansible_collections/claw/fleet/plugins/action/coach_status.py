# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of claw.fleet.coach_status, on the controller.

For each row a planner says which of the fleet's fields should change and with which request; rows whose
fields already are so cost nothing. The rest is the same for all: predict in check mode, send otherwise, take
down the answer, and compare before and after.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.module_utils._coach import (
    CoachListError,
    Row,
    check_rows,
    error,
    gateway_name,
    has_error,
    is_due,
)
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import ApiError, Client, OptionsError
from ansible_collections.claw.fleet.plugins.modules.coach_status import ARGUMENT_SPEC
from ansible_collections.claw.fleet.plugins.plugin_utils.status_plans import (
    FLEET_FIELDS,
    Planner,
    plan_activating,
    plan_claim,
    plan_outcome,
)


class ActionModule(ActionBase):
    """Claim, mark or write back the rows of a list."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self.validate_argument_spec(
            ARGUMENT_SPEC, mutually_exclusive=[["claim", "activating", "failure"]]
        )[1]
        try:
            rows = check_rows(args["coaches"])
            client = Client.of(args)
            planner = _planner(args["claim"], args["activating"])
        except (CoachListError, OptionsError) as exc:
            raise AnsibleActionFail(str(exc)) from None
        if args["claim"]:
            for row in rows:
                row["proposed_gateway"] = args["claim"]
        if args["failure"]:
            for row in rows:
                if is_due(row) and not has_error(row):
                    row["error"] = error("run", args["failure"])
        result.update(_carry_out(rows, planner, client, check_mode=self._task.check_mode))
        bad = [row for row in result["results"] if has_error(row)]
        if not result.get("failed") and bad and args["fail_on_error"]:
            result.update(failed=True, msg=_summary(bad, len(rows)))
        return result


def _planner(claim: str | None, activating: bool) -> Planner:
    if claim is not None:
        try:
            gateway_name(claim)
        except ValueError as exc:
            raise OptionsError(f"claim {exc}.") from None
        return lambda row: plan_claim(row, claim)
    return plan_activating if activating else plan_outcome


def _carry_out(rows: list[Row], planner: Planner, client: Client, *, check_mode: bool) -> dict[str, Any]:
    """Go through the rows in order. A Django that does not answer ends it; what was done before is told."""
    results: list[Row] = []
    diffs: list[dict[str, Any]] = []
    failure: dict[str, Any] = {}
    for row in rows:
        plan = None if failure else planner(row)
        if not plan:
            results.append(row)
            continue
        try:
            after = {**row, **plan.predicted} if check_mode else plan.send(client)
        except ApiError as exc:
            results.append(_refused(row, plan.step, exc) if exc.of_row else row)
            if not exc.of_row:
                failure = {
                    "failed": True,
                    "msg": f"{exc} Nothing was written for {_who(row)} and those after.",
                }
            continue
        results.append(after)
        diffs.extend(_difference(row, after))
    return {"results": results, "changed": bool(diffs), "diff": diffs, **failure}


def _refused(row: Row, step: str, exc: ApiError) -> Row:
    """The row with Django's refusal in it; an error that was there before says more and stays."""
    refused = dict(row)
    if step == "claim" and exc.status == 409:
        refused["gateway"] = exc.detail.get("gateway") or None
    if not has_error(row):
        refused["error"] = error(step, str(exc))
    return refused


def _difference(before: Row, after: Row) -> list[dict[str, Any]]:
    old, new = ({field: row[field] for field in FLEET_FIELDS} for row in (before, after))
    if old == new:
        return []
    return [{"before_header": _who(before), "after_header": _who(after), "before": old, "after": new}]


def _who(row: Row) -> str:
    return f"{row['agent_id'] or 'a coach'} (pk {row['pk']})"


def _summary(bad: list[Row], total: int) -> str:
    lines = [f"{_who(row)}: {row['error']['step']}: {row['error']['reason']}" for row in bad]
    return "\n".join([f"{len(bad)} of {total} coaches could not be served; the others were.", *lines])
