# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be written down about a coach in Django: which of the fleet's fields, and with which request.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils._coach import (
    Row,
    check_rows,
    error,
    has_error,
    needs_activation,
    settled_status,
    shown,
)
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import Client

FLEET_FIELDS = ("gateway", "status", "observed_generation", "reason")
"""The fields of a row that are the fleet's to write."""
_MAX_REASON = 2000


class Plan(NamedTuple):
    """A request for one coach: the step it belongs to, the fields as they will be, and how to send it."""

    step: str
    predicted: dict[str, Any]
    send: Callable[[Client], Row]


Planner = Callable[[Row], "Plan | None"]
"""Says what is to be written about a row, or None where nothing is."""


def plan_claim(row: Row, gateway: str) -> Plan | None:
    """To be this gateway's. A coach whom another one holds gets "error" and is left to it."""
    if has_error(row) or row["gateway"] == gateway:
        return None
    if row["gateway"]:
        row["error"] = error("claim", f"Gateway {shown(row['gateway'])} holds this coach; leave her to it.")
        return None
    if row["wanted"] == "removed":
        return None
    begins = ("pending", "error", "removed") if row["wanted"] == "running" else ("pending", "error")
    predicted = {"gateway": gateway}
    if row["status"] in begins:
        predicted.update(status="provisioning", reason="")
    return Plan("claim", predicted, lambda client: _claimed(row, client.claim(row["pk"], gateway)))


def _claimed(row: Row, answer: Row) -> Row:
    """The row as it is now: nothing has been done for it yet, so people's latest wishes are what counts."""
    return check_rows([{**row, **answer}])[0]


def plan_activating(row: Row) -> Plan | None:
    """To be marked as one who is about to speak for the first time."""
    if not needs_activation(row) or row["status"] == "activating" or row["pk"] is None:
        return None
    return _plan_write(row, {"status": "activating", "reason": ""})


def plan_outcome(row: Row) -> Plan | None:
    """To be as what was done for her has made her, or in error."""
    if row["pk"] is None or (
        row["gateway"] and row["gateway"] != row.get("proposed_gateway", row["gateway"])
    ):
        # Nobody knows where to write it, or it is for the gateway that holds her to say how she is.
        return None
    if has_error(row):
        reason = f"{row['error']['step']}: {row['error']['reason']}"[:_MAX_REASON]
        return _plan_write(row, {"status": "error", "reason": reason})
    outcome = {
        "status": settled_status(row["wanted"]),
        "reason": "",
        "observed_generation": row["generation"],
    }
    if row["wanted"] == "removed":
        return _plan_write(row, outcome, releases=True)
    return _plan_write(row, outcome)


def _plan_write(row: Row, fields: dict[str, Any], releases: bool = False) -> Plan | None:
    predicted = {**fields, "gateway": None} if releases else fields
    if all(row[field] == value for field, value in predicted.items()):
        return None

    def send(client: Client) -> Row:
        answer = client.write_status(
            row["pk"],
            gateway=row["gateway"],
            status=fields["status"],
            reason=fields["reason"],
            observed_generation=fields.get("observed_generation"),
        )
        # What people have changed since is for the next run; this one carries on with what it acted on.
        return {**row, **{field: answer.get(field, row[field]) for field in FLEET_FIELDS}}

    return Plan("status", predicted, send)
