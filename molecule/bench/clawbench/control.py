"""A control node of the bench, which is the gateways' own machine: what the playbook that makes one is given.

control/node.json    the inventory in which it is one, with the role's variables
control/inventory/   the inventory that the node itself gets: the gateways as it reaches them, at the machine's address
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from clawbench.coachlist import API
from clawbench.hosts import Bench
from clawbench.shell import ROOT, write_private

DEMO = ROOT / "inventories" / "demo"


def furnish_control_node(bench: Bench, machine: str) -> None:
    """Write both."""
    address, place = bench.facts()["hosts"][machine], bench.state / "control"
    django = (bench.state / "coachlist.url-for-hosts").read_text().strip()
    directory = place / "inventory"
    (directory / "group_vars").mkdir(parents=True, exist_ok=True)
    hosts = yaml.safe_load((DEMO / "hosts.yml").read_text())["all"]["children"]["gateways"]["hosts"]
    gateways = {
        name: {**host, "ansible_host": address, "ansible_user": "operator"} for name, host in hosts.items()
    }
    _write(directory / "hosts.yml", {"gateways": {"hosts": gateways}})
    variables = {
        "coaches_coach_api_url": f"{django}{API}/",
        "coaches_gateway_url": f"http://{address}:8080/{{{{ inventory_hostname }}}}",
    }
    _write(directory / "group_vars" / "gateways.yml", variables)
    _write(directory / "list.coaches.yml", {"plugin": "claw.fleet.coaches"})
    known = (bench.state / "known_hosts").read_text().split()
    given = {
        "reconciler_inventory": str(directory),
        "reconciler_api_url": f"{django}{API}/",
        "reconciler_api_token": _content(bench.state / "service-token"),
        "reconciler_ssh_key": _content(bench.state / "id_ed25519") + "\n",
        "reconciler_known_hosts": [f"{address} {known[1]} {known[2]}"],
        # What pip trusts on the bench is what the machine trusts.
        "reconciler_pip_environment": {"PIP_CERT": "/etc/ssl/certs/ca-certificates.crt"},
    }
    node = {"control": {"hosts": {machine: {}}, "vars": given}}
    write_private(place / "node.json", json.dumps({"all": {"children": node}}, indent=2) + "\n")


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content))


def _content(path: Path) -> str:
    """What a file holds when a play begins; it may be another secret by then."""
    return f"{{{{ lookup('ansible.builtin.file', '{path}') }}}}"
