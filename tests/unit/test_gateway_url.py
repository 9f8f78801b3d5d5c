"""Where Django reaches a gateway by default: told and looked at in the same words, by names and addresses of both families."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.claw.fleet.tests.unit.plugins.cli import COLLECTIONS, Ansible

ROLES = COLLECTIONS / "ansible_collections" / "claw" / "fleet" / "roles"
URLS = {
    "box": ({}, "http://box:8080/gw"),
    "a-name": ({"ansible_host": "machine.example.com"}, "http://machine.example.com:8080/gw"),
    "four": ({"ansible_host": "192.0.2.1"}, "http://192.0.2.1:8080/gw"),
    "six": ({"ansible_host": "2001:db8::1", "proxy_port": 8081}, "http://[2001:db8::1]:8081/gw"),
    "2001:db8::2": ({}, "http://[2001:db8::2]:8080/gw"),
    "in-brackets": ({"ansible_host": "[2001:db8::1]"}, "http://[2001:db8::1]:8080/gw"),
    "a-tunnel": ({"ansible_host": "2001:db8::1", "tunnel_kind": "quick"}, ""),
}


def words() -> dict[str, str]:
    """What the roles say."""
    defaults: dict[str, str] = yaml.safe_load((ROLES / "coaches" / "defaults" / "main.yml").read_text())
    looks: list[dict[str, Any]] = yaml.safe_load((ROLES / "doctor" / "tasks" / "look.yml").read_text())
    (doctor,) = (task["vars"]["doctor_url"] for task in looks if "doctor_url" in task.get("vars", {}))
    return {"coaches": defaults["coaches_gateway_url"], "doctor": doctor}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Of each host, by one run."""
    place = tmp_path_factory.mktemp("urls")
    ansible = Ansible(place)
    write = {"dest": f"{place}/{{{{ inventory_hostname }}}}.json", "content": "{{ told | to_json }}"}
    names = {"coaches_gateway": "gw", "doctor_gateway": "gw", "ansible_python_interpreter": sys.executable}
    play = {
        "hosts": "all",
        "connection": "local",
        "gather_facts": False,
        "vars": {**names, "told": words()},
        "tasks": [{"ansible.builtin.copy": write}],
    }
    inventory = ansible.write(
        "hosts.json", {"all": {"hosts": {name: given for name, (given, _) in URLS.items()}}}
    )
    done = ansible.run("playbook", "-i", inventory, ansible.write("plays.json", [play]))
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: json.loads(Path(place / f"{name}.json").read_text()) for name in URLS}


@pytest.mark.parametrize("host", URLS)
def test_where_a_gateway_is_reached(told: dict[str, dict[str, str]], host: str) -> None:
    assert told[host] == {"coaches": URLS[host][1], "doctor": URLS[host][1]}
