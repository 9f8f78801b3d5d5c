"""What runs after the plays: gateways, the way in, and an agent for each coach."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from clawbench import asking
from clawbench.coachlist import CoachList
from clawbench.hosts import Bench
from clawbench.inventory import COACHES, MACHINE

STATE = Path(os.environ["CLAW_DEMO_STATE"])
BENCH = Bench.of(STATE)
COACH_LIST = CoachList(STATE)
ASK_PROFILE = """
import json, sys, urllib.request
found = json.load(open(sys.argv[1]))
url = found["api_url"].rstrip("/") + "/profile/"
request = urllib.request.Request(url, headers={"Authorization": "Bearer " + found["api_key"]})
print(urllib.request.urlopen(request, timeout=20).status)
"""
"""Run on the machine with a credentials file: asks Django who its coach is."""
GATEWAYS = {"gw-a": 18789, "gw-b": 19789}


def soul_words(machine: Any, row: dict[str, Any]) -> set[str]:
    """The lines of text of a coach's soul, as it lies on the machine, headings left out."""
    path = f"/var/lib/claw/{row['gateway']}/workspaces/{row['agent_id']}/SOUL.md"
    lines = (line.strip() for line in machine.file(path).content_string.splitlines())
    return {line for line in lines if line and not line.startswith("#")}


def test_machine_runs_the_debian_of_the_scenario(machine: Any) -> None:
    release = machine.file("/etc/os-release").content_string.splitlines()
    assert f'VERSION_ID="{os.environ["CLAW_BENCH_DEBIAN"]}"' in release


def test_nothing_on_the_machine_has_failed(machine: Any) -> None:
    assert machine.run("systemctl is-system-running").stdout.strip() == "running"


@pytest.mark.parametrize(("name", "port"), GATEWAYS.items())
def test_gateway_runs_as_its_own_user_on_loopback(machine: Any, name: str, port: int) -> None:
    service = machine.service(f"openclaw-gateway@{name}.service")
    assert service.is_running
    assert service.is_enabled
    pid = machine.check_output("systemctl show -P MainPID openclaw-gateway@%s.service", name)
    assert machine.check_output("stat -c %%U /proc/%s", pid) == f"claw-{name}"
    assert machine.socket(f"tcp://127.0.0.1:{port}").is_listening
    assert not machine.socket(f"tcp://0.0.0.0:{port}").is_listening


@pytest.mark.parametrize("name", GATEWAYS)
def test_secrets_are_readable_by_their_gateway_alone(machine: Any, name: str) -> None:
    token = machine.file(f"/var/lib/claw/{name}/token")
    assert (token.user, token.mode) == (f"claw-{name}", 0o400)
    assert machine.file(f"/var/lib/claw/{name}").mode == 0o700
    other = next(other for other in GATEWAYS if other != name)
    reading = machine.run("runuser -u claw-%s -- cat /var/lib/claw/%s/token", other, name)
    assert reading.rc != 0
    assert "Permission denied" in reading.stderr


@pytest.mark.parametrize("name", GATEWAYS)
def test_roster_is_the_fleets_and_holds_the_coaches_of_this_gateway(
    machine: Any, rows: dict[str, dict[str, Any]], name: str
) -> None:
    roster = machine.file(f"/etc/claw/{name}/agents.json")
    assert (roster.user, roster.group, roster.mode) == ("root", f"claw-{name}", 0o640)
    expected = {agent_id for agent_id, row in rows.items() if row["gateway"] == name}
    assert expected
    assert set(json.loads(roster.content_string)) == expected
    assert machine.run("runuser -u claw-%s -- test -w /etc/claw/%s/agents.json", name, name).rc != 0


@pytest.mark.parametrize("name", GATEWAYS)
def test_way_in_is_two_paths_and_nothing_else(name: str) -> None:
    address = BENCH.facts()["hosts"][MACHINE]
    with httpx.Client(base_url=f"http://{address}:8080/{name}", trust_env=False, timeout=30) as client:
        named = {"x-openclaw-agent-id": "coach-anna"}
        for path in ("/v1/responses", "/v1/chat/completions"):
            assert client.post(path, json={}, headers=named).status_code == httpx.codes.UNAUTHORIZED
        for path in ("/", "/v1/models", "/api/v1/admin/rpc", "/readyz"):
            for method in ("GET", "POST"):
                assert client.request(method, path, headers=named).status_code == httpx.codes.NOT_FOUND, path


def test_coaches_are_active_and_shared_out(rows: dict[str, dict[str, Any]]) -> None:
    assert set(rows) == set(COACHES)
    for row in rows.values():
        assert (row["status"], row["observed_generation"]) == ("active", row["generation"])
    assert {row["gateway"] for row in rows.values()} == set(GATEWAYS)


@pytest.mark.parametrize("agent_id", COACHES)
def test_credentials_are_the_gateways_and_fit_django(
    machine: Any, rows: dict[str, dict[str, Any]], agent_id: str
) -> None:
    gateway = rows[agent_id]["gateway"]
    path = f"/var/lib/claw/{gateway}/credentials/{agent_id}/.credentials.json"
    credentials = machine.file(path)
    assert (credentials.user, credentials.mode) == (f"claw-{gateway}", 0o600)
    # The address in it is the one that works on the machine.
    assert machine.check_output("python3 -c %s %s", ASK_PROFILE, path) == "200"


@pytest.mark.parametrize("agent_id", COACHES)
def test_each_answers_from_its_own_soul_and_is_told_of_no_other(
    machine: Any, rows: dict[str, dict[str, Any]], agent_id: str
) -> None:
    question = f"Who are you, at {time.time_ns()}?"
    said = asking.turn(BENCH, COACH_LIST, rows[agent_id], question)
    own = soul_words(machine, rows[agent_id])
    others = set().union(*(soul_words(machine, row) for row in rows.values())) - own
    assert f"You are the companion of {rows[agent_id]['name']}, a coach." in said
    assert len(others) >= len(COACHES) - 1

    # What the provider was told for this turn, of which the answer shows only a part.
    control = BENCH.facts()["provider"]["control_url"]
    found = httpx.get(f"{control}/_requests", params={"contains": question}, trust_env=False, timeout=10)
    prompts = [request["system"] for request in found.raise_for_status().json()["requests"]]
    assert prompts
    for prompt in prompts:
        assert [line for line in own if line not in prompt] == []
        assert [line for line in others if line in prompt] == []
        assert [name for name in COACHES if name in prompt] == [agent_id]
