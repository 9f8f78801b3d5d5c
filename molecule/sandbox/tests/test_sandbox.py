"""What runs after the plays where agents have tools: each in a sandbox of her own, which reaches the app alone.

With the system's engine and with rootless ones, CLAW_DEMO_ENGINE.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from ansible_collections.claw.fleet.plugins.module_utils._audit import HOGS, NAMES
from clawbench import asking, surroundings
from clawbench.coachlist import CoachList
from clawbench.hosts import Bench
from clawbench.inventory import COACHES, MACHINE, clients_in, clients_of

STATE = Path(os.environ["CLAW_DEMO_STATE"])
BENCH = Bench.of(STATE)
COACH_LIST = CoachList(STATE)
ROOT = Path(__file__).resolve().parents[3]
GATEWAYS = ("gw-a", "gw-b")
ROOTLESS = os.environ["CLAW_DEMO_ENGINE"] == "podman"
ENGINES = (
    [f"unix:///run/claw-podman/{name}/podman.sock" for name in GATEWAYS]
    if ROOTLESS
    else ["unix:///run/docker.sock"]
)
LIMITED = not ROOTLESS or Path("/sys/fs/cgroup/cgroup.controllers").exists()
"""Whether the kernel limits single containers: of a rootless engine by control groups of version 2 alone."""
needs_limits = pytest.mark.skipif(
    not LIMITED, reason="without control groups of version 2 a rootless engine limits no container"
)
WORST_EXPOSURE = 2.0
UNITS = {
    **{f"openclaw-gateway@{name}.service": WORST_EXPOSURE for name in GATEWAYS},
    "claw-egress.service": WORST_EXPOSURE,
    "claw-egress-rules.service": WORST_EXPOSURE,
    "claw-egress-watch.service": WORST_EXPOSURE,
}
"""How exposed each may be. A rootless engine needs a program that is root for a moment (newuidmap), which rules most out."""
if ROOTLESS:
    for name in GATEWAYS:
        UNITS |= {f"claw-sandbox-workspaces@{name}.service": WORST_EXPOSURE}
        UNITS |= {f"claw-podman@{name}.service": 7.0, f"claw-egress-link@{name}.service": 4.5}
else:
    UNITS["claw-sandbox-workspaces.service"] = WORST_EXPOSURE
AUDIT_REASONS = {"fs.config_include.perms_group_readable", "config.insecure_or_dangerous_flags"}
"""What OpenClaw's audit may warn of: each has its reason in docs/operations.md."""
TOOLS = {"edit", "exec", "ls", "read", "write"}
OF_OPENCLAW = {"apply_patch", "tool_call", "tool_describe", "tool_search"}
"""What OpenClaw offers beside the tools that are named: its catalog, and a way to write that the guard refuses."""
LOOK_UP = 'tool:exec {"command": "journeyloop clients list"}'
INSPECT = """
import docker, json, sys
found = []
for engine in sys.argv[1:]:
    client = docker.APIClient(engine)
    listed = client.containers(filters={"label": "openclaw.sandbox=1"})
    found += [client.inspect_container(container["Id"]) for container in listed]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(rows: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """What each agent's tool told her of her coach's clients."""
    return {agent_id: asking.turn(BENCH, COACH_LIST, row, LOOK_UP) for agent_id, row in rows.items()}


@pytest.fixture(scope="module")
def containers(machine: Any, answers: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The sandboxes, as the engine tells of them, by agent id."""
    found = json.loads(machine.check_output("python3 -c %s " + " ".join(ENGINES), INSPECT))
    return {
        container["Config"]["Labels"]["openclaw.sessionKey"].split(":")[1]: container for container in found
    }


@pytest.mark.parametrize("agent_id", sorted(COACHES))
def test_each_agent_looks_up_her_own_coachs_clients(answers: dict[str, str], agent_id: str) -> None:
    assert clients_in(answers[agent_id]) == clients_of(agent_id)


def test_each_has_a_sandbox_and_only_one(containers: dict[str, dict[str, Any]]) -> None:
    assert containers.keys() == COACHES.keys()


@pytest.mark.parametrize("agent_id", sorted(COACHES))
def test_a_sandbox_is_closed(
    machine: Any, rows: dict[str, dict[str, Any]], containers: dict[str, dict[str, Any]], agent_id: str
) -> None:
    container, gateway = containers[agent_id], rows[agent_id]["gateway"]
    state = f"/var/lib/claw/{gateway}"
    given, mounts = container["HostConfig"], {mount["Source"]: mount for mount in container["Mounts"]}
    assert given["ReadonlyRootfs"] is True
    assert given["Privileged"] is False
    assert given["NetworkMode"] == ("slirp4netns" if ROOTLESS else "claw-sandbox")
    assert mounts[f"{state}/workspaces/{agent_id}"]["RW"] is True
    assert mounts[f"{state}/credentials/{agent_id}"]["RW"] is False
    # Beside them the skills that OpenClaw itself puts into a workspace, to be read.
    more = mounts.keys() - {f"{state}/workspaces/{agent_id}", f"{state}/credentials/{agent_id}"}
    assert [
        source for source in more if mounts[source]["RW"] or not source.startswith(f"{state}/sandbox/")
    ] == []
    held = dict(
        line.split(":\t")
        for line in machine.file(f"/proc/{container['State']['Pid']}/status").content_string.splitlines()
    )
    assert {held[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (held["NoNewPrivs"], held["Seccomp"]) == ("1", "2")
    # As the machine has it: with a rootless engine the container's own numbers are others.
    uid = machine.check_output("stat -c %%u /proc/%s", str(container["State"]["Pid"]))
    assert uid == machine.check_output("id -u claw-%s", gateway) != "0"


@needs_limits
def test_each_sandbox_has_limits(machine: Any, containers: dict[str, dict[str, Any]]) -> None:
    for container in containers.values():
        given = container["HostConfig"]
        assert given["Memory"] == given["MemorySwap"] == 512 * 2**20
        assert (given["PidsLimit"], given["NanoCpus"]) == (128, 10**9)
        # What the audit's hogs run into are the others; a busy processor is no failure that one could see.
        assert _processors(machine, container["State"]["Pid"]) == 1


def _processors(machine: Any, pid: int) -> float:
    """How many processors the kernel lets a process's control group keep busy."""
    rows = (line.split(":", 2) for line in machine.file(f"/proc/{pid}/cgroup").content_string.splitlines())
    groups = {
        controller: path for _number, controllers, path in rows for controller in controllers.split(",")
    }
    if "cpu" in groups:
        place = f"/sys/fs/cgroup/cpu{groups['cpu']}/cpu.cfs_"
        told = machine.check_output("cat %s %s", f"{place}quota_us", f"{place}period_us")
    else:
        told = machine.check_output("cat %s", f"/sys/fs/cgroup{groups['']}/cpu.max")
    quota, period = told.split()
    return int(quota) / int(period)


def audit(*names: str) -> dict[str, int]:
    """What became of these attempts on an agent, none of which got through or was left out: how many by outcome."""
    given = {
        "isolation_audit_agents": ["coach-anna"],
        **surroundings.targets(BENCH),
        "isolation_audit_only": names,
    }
    surroundings.up(BENCH, MACHINE)
    try:
        words = ["--limit", "gw-a", "playbooks/isolation-audit.yml", "--extra-vars", json.dumps(given)]
        sources = [ROOT / "inventories/demo/hosts.yml", STATE / "inventory"]
        inventories = [f"--inventory={source}" for source in sources]
        done = subprocess.run(
            ["ansible-playbook", *inventories, *words],
            text=True,
            capture_output=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_FORCE_COLOR": "false"},
        )
    finally:
        surroundings.down(BENCH, MACHINE)
    assert done.returncode == 0, done.stdout
    counts = {what: int(many) for what, many in re.findall(r"\b(\w+): (\d+)$", done.stdout, re.MULTILINE)}
    assert counts["through"] == counts["not_tried"] == 0, done.stdout
    return counts


def test_everything_that_must_fail_fails(answers: dict[str, str]) -> None:
    assert audit(*(name for name in NAMES if name not in HOGS))["refused"] > 100


@needs_limits
def test_what_takes_all_it_can_get_is_stopped(answers: dict[str, str]) -> None:
    ways = ("tool", "line", "shell")
    assert audit(*HOGS)["refused"] == len(ways) * len(HOGS)


def test_an_agent_is_offered_what_was_named_and_executes_the_command_alone(
    rows: dict[str, dict[str, Any]], answers: dict[str, str]
) -> None:
    control = BENCH.facts()["provider"]["control_url"]
    requests = httpx.get(f"{control}/_requests", trust_env=False, timeout=10).json()["requests"]
    offered = {tool for request in requests for tool in request["tools"]}
    assert offered >= TOOLS
    assert offered - TOOLS - OF_OPENCLAW == set()
    for call in ('exec {"command": "id"}', 'apply_patch {"input": "x"}', "browser {}"):
        said = asking.turn(BENCH, COACH_LIST, rows["coach-anna"], f"tool:{call}")
        assert "uid=" not in said
        assert re.search("Only `journeyloop` can be executed|has not named|not found", said), said


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_unit_is_hardened_while_it_answers(machine: Any, answers: dict[str, str], unit: str) -> None:
    assert machine.service(unit).is_running
    told = machine.check_output("systemd-analyze security --no-pager %s", unit)
    score = re.search(r"exposure level for \S+: ([0-9.]+)", told)
    assert score
    assert float(score.group(1)) <= UNITS[unit], told


@pytest.mark.parametrize("name", GATEWAYS)
def test_openclaws_own_audit_finds_nothing_without_a_reason(machine: Any, name: str) -> None:
    gateway = json.loads(machine.file(f"/etc/claw/{name}/gateway.json").content_string)
    environment = machine.check_output("systemctl show -P Environment openclaw-gateway@%s.service", name)
    command = f"cd {gateway['state_dir']} && env {environment} {gateway['node']} {gateway['entry']}"
    told = machine.check_output(
        "runuser -u %s -- sh -c %s", gateway["user"], f"{command} security audit --json"
    )
    grave = [
        finding for finding in json.loads(told)["findings"] if finding["severity"] in ("critical", "warn")
    ]
    assert {finding["checkId"] for finding in grave} == AUDIT_REASONS, grave
    assert [finding for finding in grave if finding["severity"] == "critical"] == []
    # Of the flags that it warns of, the one that is meant.
    flags = [finding["detail"] for finding in grave if finding["checkId"].endswith("dangerous_flags")]
    assert all("dangerouslyAllowExternalBindSources=true" in detail for detail in flags), flags
    guide = (ROOT / "docs" / "operations.md").read_text()
    assert [check for check in AUDIT_REASONS if f"`{check}`" not in guide] == []


def test_from_outside_there_are_ssh_and_the_proxy_alone(seen: dict[str, set[int]]) -> None:
    assert seen == {"TCP": {22, 8080}, "UDP": set()}
