# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The actions in a play: access by module_defaults, no connection, no secret in what is said, rows stay data."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.claw.fleet.tests.unit.plugins.cli import Ansible
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import TOKEN, CoachList, row

pytestmark = pytest.mark.slow

GATEWAY_TOKEN = "0f" * 24
PLAY = """
- hosts: gw-a
  gather_facts: false
  become: true
  module_defaults:
    group/claw.fleet.django:
      api_url: "{{ django }}"
      api_token: "{{ token }}"
      api: {}
  tasks:
    - name: Django knows the gateway
      claw.fleet.gateway_registration:
        name: gw-a
        url: http://m:8080/gw-a
        token: "{{ gateway_token }}"
    - name: Claim
      claw.fleet.coach_status:
        coaches: "{{ coaches_list }}"
        claim: gw-a
      register: claimed
    - name: Say hello
      claw.fleet.coach_status:
        coaches: "{{ claimed.results }}"
        activating: true
      register: marked
    - name: Write back
      claw.fleet.coach_status:
        coaches: "{{ marked.results }}"
        fail_on_error: true
"""


def test_a_play(tmp_path: Path, coach_list: CoachList) -> None:
    ansible = Ansible(tmp_path)
    hostile = row(1, name="{{ 7*7 }} {{ token }}", vars={"x": "{{ token }}"})
    coach_list.add(dict(hostile), row(2, name="a\nb"))
    # Whoever tried to connect would find nobody.
    hosts = {"gw-a": {"ansible_host": "192.0.2.1", "ansible_connection": "ssh"}}
    inventory = ansible.write("hosts.yml", {"all": {"hosts": hosts}})
    variables = ansible.write(
        "vars.json", {"django": coach_list.url, "token": TOKEN, "gateway_token": GATEWAY_TOKEN}
    )
    play = ansible.write("play.yml", PLAY)
    source = ansible.write("rows.coaches.yml", {"plugin": "claw.fleet.coaches", "gateways_group": "all"})
    words = ["-i", inventory, "-i", source, play, "-e", f"@{variables}", "-vvv", "--diff"]
    ansible.environment |= {"CLAW_FLEET_API_URL": coach_list.url, "CLAW_FLEET_API_TOKEN": TOKEN}

    for mode, changed in (("--check", 3), ("--diff", 3), ("--diff", 0), ("--check", 0)):
        done = ansible.run("playbook", *words, mode)
        said = done.stdout + done.stderr
        assert done.returncode == 2, said
        assert "1 of 2 coaches could not be served" in said
        assert "coach-2 (pk 2): row: name is" in said
        assert "UNREACHABLE" not in said
        assert TOKEN not in said
        assert GATEWAY_TOKEN not in said
        assert "{{ 7*7 }} {{ token }}" in said
        # Once it is done, nothing is left but to say again what is wrong.
        assert f"changed={changed} " in said, said
        if (mode, changed) == ("--check", 3):
            assert coach_list.writes == []
    assert coach_list.rows[1]["status"] == "active"
    assert coach_list.rows[1]["name"] == hostile["name"]
    assert coach_list.rows[2]["status"] == "error"
