"""The gateway role's own look at what it was given: the message names the field, the value and the cure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.tests.unit.plugins.cli import Ansible

KEY = "sk-never-to-be-seen"
PROVIDER = {"api": "openai-completions", "base_url": "https://m.example.com", "api_key": KEY, "models": ["m"]}
MACHINE = {
    "distribution": "Debian",
    "distribution_version": "12",
    "distribution_major_version": "12",
    "architecture": "x86_64",
    "service_mgr": "systemd",
    "python_version": "3.11.2",
}


@pytest.mark.parametrize(
    ("machine", "provider", "words"),
    [
        (
            {"python_version": "3.9.2"},
            {},
            "box runs modules with Python 3.9.2, and they need 3.11 or later. Give ansible_python_interpreter",
        ),
        (
            {"distribution": "Ubuntu", "distribution_version": "24.04"},
            {},
            "box is Ubuntu 24.04 on x86_64 with systemd. A gateway needs Debian 12 or 13",
        ),
        (
            {},
            {"api": "smoke-signals"},
            "x cannot be used: api is 'smoke-signals'; it must be one of openai-comp",
        ),
        (
            {},
            {"base_url": "m.example.com"},
            "x cannot be used: base_url is 'm.example.com'; it must be a URL",
        ),
        ({}, {"api_key": " "}, "x cannot be used: api_key is empty; give the key"),
        ({}, {"models": []}, "x cannot be used: models must be a list of ids"),
        ({}, {"models": [{"name": "m"}]}, "x cannot be used: models must be a list of ids"),
    ],
)
def test_what_cannot_work_is_named_before_anything_is_changed(
    tmp_path: Path, machine: dict[str, Any], provider: dict[str, Any], words: str
) -> None:
    ansible = Ansible(tmp_path)
    facts = {**MACHINE, **machine, "cacheable": True}
    role = {"name": "claw.fleet.gateway", "tasks_from": "preflight"}
    play = {
        "hosts": "box",
        "connection": "local",
        "gather_facts": False,
        "vars": {"gateway_providers": {"x": {**PROVIDER, **provider}}, "gateway_model": "x/m"},
        "tasks": [{"ansible.builtin.set_fact": facts}, {"ansible.builtin.include_role": role}],
    }
    done = ansible.run("playbook", "-i", "box,", "-vvv", ansible.write("play.yml", json.dumps([play])))
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert words in told
    assert KEY not in told


@pytest.mark.parametrize(
    "given", [{"HOME": "/root"}, {"OPENCLAW_STATE_DIR": "/"}, {"A B": "c"}, {"A": "b\nc"}]
)
def test_an_environment_that_takes_over_the_roles_own_is_refused(
    tmp_path: Path, given: dict[str, str]
) -> None:
    ansible = Ansible(tmp_path)
    role = {"name": "claw.fleet.gateway", "tasks_from": "preflight"}
    play = {
        "hosts": "box",
        "connection": "local",
        "gather_facts": False,
        "vars": {"gateway_providers": {"x": PROVIDER}, "gateway_model": "x/m", "gateway_environment": given},
        "tasks": [
            {"ansible.builtin.set_fact": {**MACHINE, "cacheable": True}},
            {"ansible.builtin.include_role": role},
        ],
    }
    done = ansible.run("playbook", "-i", "box,", ansible.write("play.yml", json.dumps([play])))
    assert done.returncode != 0
    assert f"gateway_environment has {next(iter(given))}." in " ".join((done.stdout + done.stderr).split())
