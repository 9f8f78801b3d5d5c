# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor looks at, in turn.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

from ansible_collections.claw.fleet.plugins.module_utils import (
    _doctor_agents,
    _doctor_gateway,
    _doctor_machine,
    _doctor_ways,
    _doctor_words,
)
from ansible_collections.claw.fleet.plugins.module_utils._doctor import Check, Finding, Patient, examine

_MACHINE: dict[str, Check] = {
    "the disks": _doctor_machine.disks,
    "what localhost is": _doctor_machine.localhost,
    "the reconciler": _doctor_machine.reconciler,
    "the units that have failed": _doctor_machine.failed_units,
    "the files of the fleet's units": _doctor_machine.edited_units,
    "the firewall": _doctor_ways.firewall,
    "the proxy": _doctor_ways.proxy,
    "the tunnel": _doctor_ways.tunnel,
    "the sandboxes' way out": _doctor_ways.egress,
}
_GATEWAY: dict[str, Check] = {
    "the gateway's descriptor": _doctor_gateway.descriptor,
    "the gateway's state": _doctor_gateway.state,
    "the gateway's process": _doctor_gateway.process,
    "what the gateway said": _doctor_words.said,
    "the gateway's jobs": _doctor_words.jobs,
    "the gateway's port": _doctor_gateway.port,
    "the gateway's unit": _doctor_gateway.units,
    "the gateway's environment": _doctor_gateway.environment,
    "the gateway's config": _doctor_gateway.config,
    "the gateway's secrets": _doctor_gateway.secret_files,
    "the gateway's endpoints": _doctor_gateway.endpoints,
    "the gateway's guard": _doctor_gateway.guard,
    "what the app knows of the gateway": _doctor_gateway.app,
    "the names of hosts": _doctor_machine.names,
    "the roster": _doctor_agents.records,
    "the agents' directories": _doctor_agents.directories,
    "OpenClaw's databases": _doctor_agents.stores,
    "whose directories there are": _doctor_agents.strangers,
    "owners and modes": _doctor_agents.owners,
    "what the gateway serves": _doctor_agents.served,
    "the coaches": _doctor_agents.coaches,
    "the coaches' keys": _doctor_agents.keys,
    "the fleet's own files in workspaces": _doctor_agents.files,
    "the proxy's files": _doctor_ways.proxy_files,
    "the way through the proxy": _doctor_ways.proxy_leads,
    "where the tunnel leads": _doctor_ways.tunnel_leads,
    "the sandboxes": _doctor_ways.sandboxes,
}


def look(patient: Patient, *, machine: bool) -> list[Finding]:
    """All that is found of a gateway (none where the patient has no name) and, with ``machine``, of its machine."""
    return examine(patient, {**(_MACHINE if machine else {}), **(_GATEWAY if patient.name else {})})
