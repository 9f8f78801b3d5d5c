"""The gateway role's own look at what it was given: the message names the field, the value and the cure."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from ansible_collections.claw.fleet.tests.unit.plugins.cli import DEBIAN, Ansible, play

KEY = "sk-never-to-be-seen"
PROVIDER = {"api": "openai-completions", "base_url": "https://m.example.com", "api_key": KEY, "models": ["m"]}


# What is given, and what is said of it.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an old Python": (
        {"machine": {"python_version": "3.9.2"}},
        "box runs modules with Python 3.9.2, and they need 3.11 or later. Give ansible_python_interpreter",
    ),
    "another distribution": (
        {"machine": {"distribution": "Ubuntu", "distribution_version": "22.04"}},
        "box is Ubuntu 22.04 on x86_64 with systemd. A gateway needs Debian 12 or 13",
    ),
    "an api that is none": (
        {"provider": {"api": "smoke-signals"}},
        "x cannot be used: api is 'smoke-signals'; it must be one of openai-comp",
    ),
    "an address that is none": (
        {"provider": {"base_url": "m.example.com"}},
        "x cannot be used: base_url is 'm.example.com'; it must be a URL",
    ),
    "an empty key": ({"provider": {"api_key": " "}}, "x cannot be used: api_key is empty; give the key"),
    "no models": ({"provider": {"models": []}}, "x cannot be used: models must be a list of ids"),
    "models that are none": (
        {"provider": {"models": [{"name": "m"}]}},
        "x cannot be used: models must be a list of ids",
    ),
    "a home of its own": ({"environment": {"HOME": "/root"}}, "gateway_environment has HOME."),
    "another state": (
        {"environment": {"OPENCLAW_STATE_DIR": "/"}},
        "gateway_environment has OPENCLAW_STATE_DIR.",
    ),
    "a name with a blank": ({"environment": {"A B": "c"}}, "gateway_environment has A B."),
    "a value of two lines": ({"environment": {"A": "b\nc"}}, "gateway_environment has A."),
    # Behind one address there are two machines, and each may have that port.
    "a port that another gateway of the machine has": (
        {"host": {"ansible_host": "nat", "ansible_port": 2201, "gateway_port": 20011, "gateway_name": "a"}},
        "gateway_port 20011 cannot be used on nat: the inventory gives it to host12 too.",
    ),
    "a port that the one before has": (
        {
            "host": {
                "ansible_host": "nat",
                "ansible_port": "2201",
                "gateway_port": "20011",
                "gateway_name": "b",
            }
        },
        "gateway_port 20011 cannot be used on nat: the inventory gives it to host11 too.",
    ),
    "a port that a gateway of another machine has": (
        {
            "host": {"ansible_host": "nat", "ansible_port": 2202, "gateway_port": 20011, "gateway_name": "c"},
            "environment": {"HOME": "/"},
        },
        "gateway_environment has HOME.",
    ),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of each, by one run with a machine for each; no key is in it."""
    ansible = Ansible(tmp_path_factory.mktemp("preflight"))
    hosts = {what: f"host{number}" for number, what in enumerate(WRONG)}
    plays = [
        play({"ansible.builtin.include_role": {"name": "claw.fleet.gateway", "tasks_from": "preflight"}})
    ]
    described = {
        hosts[what]: {
            "ansible_host": "box",
            "ansible_python_interpreter": sys.executable,
            "facts": {**DEBIAN, **given.get("machine", {})},
            "gateway_providers": {"x": {**PROVIDER, **given.get("provider", {})}},
            "gateway_model": "x/m",
            "gateway_environment": given.get("environment", {}),
            **given.get("host", {}),
        }
        for what, (given, _) in WRONG.items()
    }
    inventory = ansible.write("hosts.json", {"all": {"hosts": described}})
    done = ansible.run("playbook", "-i", inventory, "-vvv", ansible.write("plays.json", plays))
    output = " ".join((done.stdout + done.stderr).split())
    assert KEY not in output
    refused = re.split(r"(?:fatal|failed): \[(host\d+)\]", output)
    by_host = dict(zip(reversed(refused[1::2]), reversed(refused[2::2]), strict=True))
    return {what: by_host[host] for what, host in hosts.items()}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_work_is_named_before_anything_is_changed(told: dict[str, str], what: str) -> None:
    assert WRONG[what][1] in told[what]
