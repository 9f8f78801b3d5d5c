"""What the doctor's role makes of what was found on several hosts."""

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


STALE = {"code": "sandbox-stale", "severity": "warning", "gateway": "gw-b", "agent": "coach-anna", "unit": "",
         "sentence": "It is so.", "evidence": "", "fix": "f", "remedies": ["sandbox"]}  # fmt: skip


@pytest.mark.parametrize(
    ("build", "at_it"), [("each", ["gw-a", "gw-b"]), ("once", ["gw-a", "gw-b", "gw-elsewhere"])]
)
def test_who_makes_the_image_for_a_gateway_is_at_it_too(tmp_path: Path, build: str, at_it: list[str]) -> None:
    ansible = Ansible(tmp_path)
    hosts = {
        "gw-a": {"ansible_host": "box", "sandbox_engine": "docker", "found": []},
        "gw-b": {"ansible_host": "box", "sandbox_engine": "docker", "found": [STALE]},
        "gw-bare": {"ansible_host": "box", "found": []},
        "gw-elsewhere": {"ansible_host": "other", "sandbox_engine": "docker", "found": []},
    }
    everybody = {
        "gateways": {"hosts": hosts},
        "control": {"hosts": {"control": {"ansible_host": "box", "found": []}}},
    }
    tasks = [
        {"ansible.builtin.set_fact": {"doctor_found": {"findings": "{{ found }}"}}},
        {
            "ansible.builtin.include_role": {"name": "claw.fleet.doctor", "tasks_from": "report", "public": True},
            "vars": {"doctor_fail_on": "never"},
        },
        {
            "ansible.builtin.copy": {
                "content": "{{ doctor_remedies | to_json }}", "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}.remedies", "mode": "0600",
            }
        },
    ]  # fmt: skip
    here = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    plays = [{"hosts": "all", "connection": "local", "gather_facts": False, "vars": here, "tasks": tasks}]
    done = ansible.run(
        "playbook",
        "-e",
        f"sandbox_build={build}",
        "-i",
        ansible.write("hosts.yml", everybody),
        ansible.write("play.yml", plays),
    )
    assert done.returncode == 0, done.stdout
    told = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.remedies")}
    assert len(told) == 5
    assert sorted(name for name, remedies in told.items() if remedies == ["sandbox"]) == at_it
    assert [name for name, remedies in told.items() if remedies not in ([], ["sandbox"])] == []
