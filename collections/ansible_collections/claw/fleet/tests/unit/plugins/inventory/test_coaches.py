# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin as users run it: ansible-inventory and ansible-playbook against a real HTTP server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.tests.unit.plugins.cli import Ansible
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import (
    TOKEN,
    CoachList,
    refuse,
    row,
    send,
    settled,
)

pytestmark = pytest.mark.slow

HOSTILE = "{{ 7*7 }} {% raw %} \u202e \"' \\ !unsafe"
GOLDEN = Path(__file__).with_name("golden.json")


@pytest.fixture
def ansible(tmp_path: Path, coach_list: CoachList) -> Ansible:
    """Two gateways, and a source of coaches after them."""
    found = Ansible(tmp_path)
    found.environment |= {"CLAW_FLEET_API_URL": coach_list.url, "CLAW_FLEET_API_TOKEN": TOKEN}
    gateways(found, {"gw-a": {}, "gw-b": {}})
    source(found)
    return found


def gateways(ansible: Ansible, hosts: dict[str, Any]) -> None:
    ansible.write("1-hosts.yml", {"all": {"children": {"gateways": {"hosts": hosts}}}})


def source(ansible: Ansible, **options: Any) -> None:
    ansible.write("2-fleet.coaches.yml", {"plugin": "claw.fleet.coaches", "retries": 0, **options})


def lists(inventory: dict[str, Any]) -> dict[str, list[int]]:
    hostvars = inventory["_meta"]["hostvars"]
    assert all(host["coaches_list_complete"] is True for host in hostvars.values())
    return {name: [item["pk"] for item in host["coaches_list"]] for name, host in hostvars.items()}


SOURCES = ("-i", "1-hosts.yml", "-i", "2-fleet.coaches.yml")


def test_the_golden_list(ansible: Ansible, coach_list: CoachList) -> None:
    """Every kind of row, as host variables that are JSON; nothing in them is a template."""
    gateways(ansible, {"gw-a": {}, "gw-b": {"gateway_capacity": 3}})
    coach_list.add(
        settled(1, "gw-b", name=HOSTILE, vars={"bio": "a\nb {{ 7*7 }}", "n": [1, 2.5, None, {"x": True}]}),
        settled(2, "gw-b", wanted="paused", status="paused"),
        row(3),
        row(4, name="a\nb"),
        row(5, name="half \ud800", vars={"__ansible_unsafe": "x"}),
        row(6, wanted="removed", status="removed"),
        row(7, status="error", reason="key: disk full", extra="not ours"),
    )
    inventory, said = ansible.inventory(*SOURCES)
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert inventory["_meta"]["hostvars"] == golden
    assert "Rows that cannot be used: 2 coaches (coach-4, coach-5)" in said
    assert set(inventory["gateways"]["hosts"]) == {"gw-a", "gw-b"}


def test_values_are_never_templates(ansible: Ansible, coach_list: CoachList) -> None:
    coach_list.add(
        settled(1, "gw-a", name="{{ 7*7 }}", vars={"x": "{{ lookup('pipe', 'touch /nonexistent/x') }}"})
    )
    play = ansible.write(
        "play.yml",
        """
- hosts: gw-a
  gather_facts: false
  tasks:
    - ansible.builtin.assert:
        that:
          - coaches_list[0].name == '{' ~ '{ 7*7 }' ~ '}'
          - hostvars['gw-a'].coaches_list[0].name == '{' ~ '{ 7*7 }' ~ '}'
          - (coaches_list | map(attribute='vars') | first).x is match('.{2} lookup')
    - ansible.builtin.copy:
        content: "{{ coaches_list[0].name }} {{ coaches_list[0].vars.x }}"
        dest: "{{ playbook_dir }}/out"
        mode: "0600"
      delegate_to: localhost
      vars: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
""",
    )
    done = ansible.run("playbook", *SOURCES, play)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (ansible.directory / "out").read_text() == "{{ 7*7 }} {{ lookup('pipe', 'touch /nonexistent/x') }}"


def test_placement_sees_names_and_capacities_where_inventories_have_them(
    ansible: Ansible, coach_list: CoachList
) -> None:
    gateways(ansible, {"first": {"gateway_name": "gw-x"}, "gw-b": {}, "gw-c": {}, "gw-d": {"size": 1}})
    ansible.write("host_vars/gw-b.yml", {"gateway_capacity": 2})
    ansible.write("group_vars/gateways.yml", {"gateway_capacity": "{{ size | default(9) }}"})
    source(ansible, capacities={"gw-c": 0})
    coach_list.add(settled(1, "gw-x"), settled(2, "gone"), *(row(pk) for pk in range(3, 9)))
    inventory, said = ansible.inventory(*SOURCES)
    assert lists(inventory) == {"first": [1, 6, 7, 8], "gw-b": [3, 5], "gw-c": [], "gw-d": [4]}
    assert "Gateway gone is no host of group gateways, but holds 1 coaches (coach-2)" in said


def test_constructed_options_work_as_everywhere(ansible: Ansible, coach_list: CoachList) -> None:
    source(
        ansible,
        compose={"coaches_count": "coaches_list | length"},
        groups={"busy": "coaches_list | length > 0"},
        keyed_groups=[{"key": "coaches_list | length | string", "prefix": "carries"}, {"key": "'x'"}],
        leading_separator=False,
        strict=True,
    )
    coach_list.add(settled(1, "gw-a"))
    inventory = ansible.inventory(*SOURCES)[0]
    assert inventory["_meta"]["hostvars"]["gw-a"]["coaches_count"] == 1
    assert inventory["busy"]["hosts"] == ["gw-a"]
    assert inventory["carries_0"]["hosts"] == ["gw-b"]
    assert set(inventory["x"]["hosts"]) == {"gw-a", "gw-b"}


@pytest.mark.parametrize(
    ("options", "rows", "fault", "words"),
    [
        ({}, [row(1)], refuse(401), "answered 401"),
        ({}, [row(1)], refuse(500), "answered 500"),
        ({}, [row(1)], send(b"<html>Log in", 200, "text/html"), "answered 200 with HTML"),
        ({}, [], send(b'{"next": null, "results": [{"name": "x"}]}'), "neither a usable pk"),
        ({"capacity": 2}, [row(pk) for pk in range(1, 8)], None, "Add 2 gateways of 2 to the group gateways"),
        ({"gateways_group": "gws"}, [row(1)], None, "there is no group 'gws' yet"),
        ({"filters": {"status": "pending"}}, [row(1)], None, "filters must not have status"),
        ({"capacities": {"gw-z": 3}}, [row(1)], None, "capacities names 'gw-z'"),
        ({"capacity": -1}, [row(1)], None, "the capacity of gateway gw-a is -1; it must"),
        ({"api": {"paths": {"list": "x"}}}, [row(1)], None, "api.paths has no 'list'"),
        ({"api_token": "{{ nothing_of_the_kind }}"}, [row(1)], None, "api_token is a template that fails"),
        (
            {"api_token_file": "/nonexistent/token", "api_token": ""},
            [],
            None,
            "api_token_file cannot be read",
        ),
    ],
)
def test_a_list_that_is_not_whole_is_no_list(
    ansible: Ansible, coach_list: CoachList, options: dict[str, Any], rows: list[Any], fault: Any, words: str
) -> None:
    source(ansible, **options)
    coach_list.add(*rows)
    coach_list.faults = [fault]
    inventory, said = ansible.inventory(*SOURCES)
    assert "The list of coaches was not read: " in said
    assert words in said
    assert TOKEN not in said
    assert "coaches_list" not in json.dumps(inventory)


def test_a_failed_list_stops_a_run_that_is_set_up_for_it(ansible: Ansible, coach_list: CoachList) -> None:
    play = ansible.write("play.yml", "- hosts: all\n  gather_facts: false\n  tasks: [debug: {msg: it ran}]\n")
    coach_list.add(row(1), row(2))
    source(ansible, api={"page_size": 1})
    # Without the setting the other source is enough for Ansible, and the play runs on hosts without a list.
    coach_list.faults = [None, refuse(403)]
    assert "it ran" in ansible.run("playbook", *SOURCES, play).stdout
    coach_list.faults = [None, refuse(403)]
    done = ansible.run("playbook", *SOURCES, play, ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="true")
    assert done.returncode != 0
    assert "it ran" not in done.stdout
    assert "answered 403" in " ".join(done.stderr.split())


def test_a_gateway_takes_one_list(ansible: Ansible, coach_list: CoachList) -> None:
    ansible.write("3-other.coaches.yml", {"plugin": "claw.fleet.coaches"})
    coach_list.add(row(1))
    inventory, said = ansible.inventory(*SOURCES, "-i", "3-other.coaches.yml")
    assert "host gw-a has a list of coaches from another source already" in said
    assert lists(inventory) == {"gw-a": [1], "gw-b": []}


def test_a_construction_that_fails_leaves_no_list_that_counts_as_whole(
    ansible: Ansible, coach_list: CoachList
) -> None:
    source(ansible, compose={"x": "coaches_list[0].pk"}, strict=True)
    coach_list.add(settled(1, "gw-a"))
    inventory, said = ansible.inventory(*SOURCES)
    assert "Could not set x for host gw-b" in said
    assert "coaches_list_complete" not in json.dumps(inventory)


def test_one_failure_is_not_asked_for_twice(ansible: Ansible, coach_list: CoachList) -> None:
    coach_list.faults = [refuse(500)] * 9
    ansible.inventory(*SOURCES)
    assert len(coach_list.requests) == 1


def test_an_unchanged_list_costs_one_request_and_keeps_its_age(
    ansible: Ansible, coach_list: CoachList
) -> None:
    cached = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": "cache"}
    source(ansible, **cached, api={"page_size": 2})
    coach_list.add(*(row(pk, name=HOSTILE) for pk in range(1, 6)), row(6, name="half \ud800"))
    first = ansible.inventory(*SOURCES)[0]
    assert len(coach_list.requests) == 3
    [kept] = (ansible.directory / "cache").iterdir()
    assert TOKEN not in kept.read_text()
    os.utime(kept, (kept.stat().st_atime, kept.stat().st_mtime - 1000))
    age = kept.stat().st_mtime

    coach_list.requests.clear()
    second = ansible.inventory(*SOURCES)[0]
    assert second == first
    assert len(coach_list.requests) == 1
    assert kept.stat().st_mtime == age

    # Django has the last word, also where the cache is young.
    coach_list.rows[1]["name"] = "Anna"
    changed = ansible.inventory(*SOURCES)[0]
    names = [item["name"] for host in changed["_meta"]["hostvars"].values() for item in host["coaches_list"]]
    assert "Anna" in names
    assert kept.stat().st_mtime > age

    # Other options, another list: the cache is not asked with.
    coach_list.headers.clear()
    source(ansible, **cached, filters={"fleet": "other"})
    ansible.inventory(*SOURCES)
    assert all("If-None-Match" not in headers for headers in coach_list.headers)

    # Too old, or flushed: read anew.
    coach_list.headers.clear()
    os.utime(kept, (0, 0))
    ansible.inventory(*SOURCES)
    ansible.inventory(*SOURCES, "--flush-cache")
    assert len(coach_list.headers) == 2
    assert all("If-None-Match" not in headers for headers in coach_list.headers)

    # A refusal is never covered up by what was known before.
    coach_list.faults = [refuse(403)]
    failed, said = ansible.inventory(*SOURCES)
    assert "answered 403" in said
    assert "coaches_list" not in json.dumps(failed)


@pytest.mark.parametrize("left", [0, 40])
def test_a_cache_that_the_disk_cut_short_is_read_anew(
    ansible: Ansible, coach_list: CoachList, left: int
) -> None:
    source(ansible, cache=True, cache_plugin="ansible.builtin.jsonfile", cache_connection="cache")
    coach_list.add(row(1))
    first = ansible.inventory(*SOURCES)[0]
    [kept] = (ansible.directory / "cache").iterdir()
    os.truncate(kept, left)
    again, said = ansible.inventory(*SOURCES)
    assert again == first
    assert "cannot be read from the cache" in said
    assert ansible.inventory(*SOURCES)[0] == first
    assert "If-None-Match" in coach_list.headers[-1]


def test_an_empty_list_removes_nobody_and_is_told(ansible: Ansible, coach_list: CoachList) -> None:
    source(ansible, cache=True, cache_plugin="ansible.builtin.jsonfile", cache_connection="cache")
    coach_list.add(settled(1, "gw-a"), row(2))
    ansible.inventory(*SOURCES)
    coach_list.rows.clear()
    inventory, said = ansible.inventory(*SOURCES)
    assert lists(inventory) == {"gw-a": [], "gw-b": []}
    assert "empty now; when read last it had 2. Nobody is removed for that" in said


def test_the_token_may_be_a_template_or_a_file(ansible: Ansible, coach_list: CoachList) -> None:
    coach_list.add(row(1))
    source(ansible, api_token="{{ secret_of_mine }}", api_url="{{ url_of_mine }}")
    words = ("-e", json.dumps({"secret_of_mine": TOKEN, "url_of_mine": coach_list.url}))
    inventory = ansible.inventory(*SOURCES, *words)[0]
    assert lists(inventory)["gw-a"] == [1]
    assert coach_list.headers[-1]["Authorization"] == f"Bearer {TOKEN}"
    file = ansible.write("token", f"{TOKEN}\n")
    source(ansible, api_token_file=file)
    inventory = ansible.inventory(*SOURCES, CLAW_FLEET_API_TOKEN="")[0]
    assert lists(inventory)["gw-a"] == [1]


def test_a_directory_of_sources_and_a_file_of_another_name(ansible: Ansible, coach_list: CoachList) -> None:
    coach_list.add(row(1))
    done = ansible.inventory("-i", str(ansible.directory), ANSIBLE_INVENTORY_IGNORE="ansible.cfg,tmp")
    assert lists(done[0])["gw-a"] == [1]
    other = ansible.write("fleet.yml", {"plugin": "claw.fleet.coaches"})
    coach_list.requests.clear()
    inventory = ansible.inventory("-i", "1-hosts.yml", "-i", other)[0]
    assert "coaches_list" not in json.dumps(inventory)
    assert coach_list.requests == []
