"""What the doctor tells of hosts that its play has lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.claw.fleet.tests.unit.plugins.cli import Ansible

pytestmark = pytest.mark.slow


def test_a_host_that_was_never_looked_at_is_in_the_report(tmp_path: Path) -> None:
    ansible = Ansible(tmp_path)
    report = tmp_path / "report.json"
    tasks = [
        {
            "ansible.builtin.fail": {"msg": "there is no such variable"},
            "when": "inventory_hostname == 'gw-b'",
        },
        {"ansible.builtin.set_fact": {"doctor_found": {"findings": []}}},
        {
            "ansible.builtin.include_role": {"name": "claw.fleet.doctor", "tasks_from": "report"},
            "vars": {"doctor_report": str(report)},
        },
    ]
    plays = [{"hosts": "all", "connection": "local", "gather_facts": False, "tasks": tasks}]
    hosts = ansible.write("hosts.yml", {"all": {"hosts": {"gw-a": {}, "gw-b": {}}}})
    done = ansible.run("playbook", "-i", hosts, ansible.write("play.yml", plays))
    assert done.returncode != 0
    told = json.loads(report.read_text())
    assert told["counts"] == {"error": 1, "warning": 0, "note": 0}, done.stdout
    (found,) = told["findings"]
    assert (found["code"], found["gateway"], found["remedies"]) == ("machine-unreachable", "gw-b", [])
    assert "Nothing is known of gw-b" in done.stdout
