"""How a gateway runs: what it may, what it keeps to itself, and that it comes back."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from clawbench.hosts import Bench
from clawbench.inventory import MACHINE
from clawbench.shell import until

BENCH = Bench.of(Path(os.environ["CLAW_DEMO_STATE"]))
CONTAINER = BENCH.container(MACHINE)
GATEWAYS = ("gw-a", "gw-b")
START_SECONDS = 240


def described(machine: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.file(f"/etc/claw/{name}/gateway.json").content_string)
    return found


def unit(name: str) -> str:
    return f"openclaw-gateway@{name}.service"


def wait_ready(machine: Any, name: str) -> None:
    url = f"http://127.0.0.1:{described(machine, name)['port']}/readyz"
    asking = f"import urllib.request; urllib.request.urlopen({url!r}, timeout=5)"
    until(
        lambda: machine.run("python3 -c %s", asking).rc == 0,
        seconds=START_SECONDS,
        what=f"gateway {name}",
        hint=f"Look at it with: docker exec {CONTAINER} journalctl -u {unit(name)}",
    )


@pytest.mark.parametrize("name", GATEWAYS)
def test_openclaw_and_node_are_the_pinned_ones(machine: Any, name: str) -> None:
    gateway = described(machine, name)
    node = machine.check_output("%s --version", gateway["node"])
    pinned = json.loads(machine.file(f"{gateway['tree']}/package-lock.json").content_string)["packages"]
    assert re.fullmatch(r"/opt/claw/openclaw/[0-9.]+-[0-9a-f]{12}", gateway["tree"])
    assert node in {f"v{pinned[f'node_modules/node-linux-{arch}']['version']}" for arch in ("x64", "arm64")}
    assert gateway["version"] == pinned["node_modules/openclaw"]["version"]
    pid = machine.check_output("systemctl show -P MainPID %s", unit(name))
    assert machine.check_output("readlink /proc/%s/exe", pid) == gateway["node"]


@pytest.mark.parametrize("name", GATEWAYS)
def test_unit_ends_and_starts_as_openclaw_asks(machine: Any, name: str) -> None:
    shown = machine.check_output("systemctl show %s", unit(name)).splitlines()
    found = dict(line.split("=", 1) for line in shown if "=" in line)
    assert found["Restart"] == "always"
    assert found["RestartPreventExitStatus"] == "78"
    assert found["SuccessExitStatus"] == "0 143"
    assert found["TimeoutStopUSec"] == "5min 30s"
    assert found["KillMode"] == "mixed"
    assert found["OOMPolicy"] == "continue"
    assert found["OOMScoreAdjust"] == "-500"
    assert found["MemoryMax"] not in ("infinity", "")


@pytest.mark.parametrize("name", GATEWAYS)
def test_its_environment_has_the_very_value_that_was_given(machine: Any, name: str) -> None:
    pid = machine.check_output("systemctl show -P MainPID %s", unit(name))
    environment = machine.file(f"/proc/{pid}/environ").content_string.split("\0")
    assert r'CLAW_MOLECULE=50% of \ and "this"' in environment


@pytest.mark.parametrize("name", GATEWAYS)
def test_secrets_are_nowhere_but_in_their_files(machine: Any, name: str) -> None:
    gateway = described(machine, name)
    pid = machine.check_output("systemctl show -P MainPID %s", unit(name))
    listing = machine.check_output("ls %s", gateway["state_dir"]).split()
    files = [
        "token",
        *(entry for entry in listing if entry.endswith(".key") and entry.startswith("provider-")),
    ]
    assert len(files) > 1
    places = (
        f"/proc/{pid}/environ /proc/{pid}/cmdline /etc/claw/{name} {gateway['config']} /etc/systemd/system"
    )
    for entry in files:
        path = f"{gateway['state_dir']}/{entry}"
        assert machine.file(path).mode == 0o400
        # The secret goes from its file to grep by a pipe, never on a command line.
        found = machine.run(f"grep --recursive --text --files-with-matches --file={path} {places}")
        assert (found.rc, found.stdout) == (1, ""), entry
        told = machine.run(
            f"journalctl --unit={unit(name)} --output=cat --no-pager | grep --quiet --file={path}"
        )
        assert told.rc == 1, entry


@pytest.mark.parametrize("name", GATEWAYS)
@pytest.mark.parametrize("path", ["{config_dir}", "{roster}", "{tree}", "{entry}", "{node}", "/var/lib/claw"])
def test_gateway_cannot_write_what_is_not_its_own(machine: Any, name: str, path: str) -> None:
    gateway = described(machine, name)
    assert machine.run("runuser -u %s -- test -w %s", gateway["user"], path.format(**gateway)).rc != 0


@pytest.mark.parametrize("name", GATEWAYS)
def test_agents_have_no_tools(machine: Any, name: str) -> None:
    config = json.loads(machine.file(described(machine, name)["config"]).content_string)
    assert config["tools"]["deny"] == ["*"]
    assert config["tools"]["sessions"] == {"visibility": "self"}
    control = BENCH.facts()["provider"]["control_url"]
    requests = httpx.get(f"{control}/_requests", trust_env=False, timeout=10).json()["requests"]
    assert requests
    assert [request["number"] for request in requests if request["tools"]] == []


BEGIN = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA journal_mode = WAL')"


@pytest.fixture
def begun(machine: Any) -> Iterator[str]:
    """A database that a gateway has begun to make for an agent, as it is left where the gateway is killed over it."""
    gateway = described(machine, "gw-a")
    agent = f"{gateway['state_dir']}/agents/begun"
    path = f"{agent}/agent/openclaw-agent.sqlite"
    as_gateway = f"runuser -u {gateway['user']} --"
    machine.check_output(f"{as_gateway} mkdir -p {agent}/agent")
    machine.check_output(f"{as_gateway} python3 -c %s %s", BEGIN, path)
    assert machine.file(path).exists
    yield path
    machine.check_output("rm -rf %s", agent)


def test_gateway_that_is_killed_comes_back(machine: Any, begun: str) -> None:
    before = machine.check_output("systemctl show -P MainPID %s", unit("gw-a"))
    machine.check_output("systemctl kill --signal=KILL --kill-who=main %s", unit("gw-a"))
    until(
        lambda: machine.check_output("systemctl show -P MainPID %s", unit("gw-a")) not in (before, "0"),
        seconds=60,
        what="another process of gateway gw-a",
        hint=f"Look at it with: docker exec {CONTAINER} systemctl status {unit('gw-a')}",
    )
    wait_ready(machine, "gw-a")
    assert not machine.file(begun).exists


def test_everything_comes_back_after_a_power_cut(machine: Any) -> None:
    for deed in ("kill", "start"):
        subprocess.run(["docker", deed, CONTAINER], check=True, capture_output=True)
    until(
        lambda: machine.run("systemctl is-system-running --wait").stdout.strip() == "running",
        seconds=60,
        what="systemd of the machine",
        hint=f"Look at it with: docker exec {CONTAINER} systemctl --failed",
    )
    address = BENCH.facts()["hosts"][MACHINE]
    for name in GATEWAYS:
        wait_ready(machine, name)
        answer = httpx.get(f"http://{address}:8080/{name}/healthz", trust_env=False, timeout=30)
        assert answer.json()["ok"] is True
