"""What systemd and OpenClaw themselves say of the safety of what runs, read from the host while it answers."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from clawbench import asking
from clawbench.coachlist import CoachList
from clawbench.hosts import Bench
from clawbench.shell import until

STATE = Path(os.environ["CLAW_DEMO_STATE"])
BENCH = Bench.of(STATE)
COACH_LIST = CoachList(STATE)
GATEWAYS = ("gw-a", "gw-b")
UNITS = (*(f"openclaw-gateway@{name}.service" for name in GATEWAYS), "claw-proxy.service")
RECONCILER = "claw-reconciler.service"
WORST_EXPOSURE = 2.0
AUDIT_REASONS = {"fs.config_include.perms_group_readable"}
"""What OpenClaw's audit may warn of: each has its reason in docs/operations.md."""


@pytest.fixture(scope="module")
def answered() -> dict[str, str]:
    """What an agent of each gateway answered just now, through the proxy, by gateway."""
    rows = asking.coaches(COACH_LIST)
    return {row["gateway"]: asking.turn(BENCH, COACH_LIST, row, f"echo {time.time_ns():x}") for row in rows}


@pytest.mark.parametrize("unit", UNITS)
def test_unit_is_hardened_while_it_answers(machine: Any, answered: dict[str, str], unit: str) -> None:
    assert set(answered) == set(GATEWAYS) and all(answered.values())
    assert machine.service(unit).is_running
    _is_hardened(machine, unit)


def _is_hardened(machine: Any, unit: str) -> None:
    told = machine.check_output("systemd-analyze security --no-pager %s", unit)
    score = re.search(r"exposure level for \S+: ([0-9.]+)", told)
    assert score
    assert float(score.group(1)) <= WORST_EXPOSURE, told


def test_the_reconciler_is_hardened_while_it_works(machine: Any) -> None:
    def state(name: str) -> str:
        return str(machine.check_output("systemctl show -P %s %s", name, RECONCILER))

    def at_rest() -> bool:
        return state("ActiveState") in ("inactive", "failed")

    until(at_rest, seconds=120, what="the reconciler to be at rest")
    machine.check_output("touch /run/claw-reconciler/now")
    at_work = "pgrep -u claw-reconciler -f ansible-playbook"
    until(lambda: machine.run(at_work).rc == 0, seconds=60, what="a run that was asked for")
    assert state("ActiveState") == "activating"
    _is_hardened(machine, RECONCILER)
    until(at_rest, seconds=120, what="the run to end")
    assert state("Result") == "success"


@pytest.mark.parametrize("unit", [*UNITS, RECONCILER])
def test_what_the_unit_leaves_out_has_a_reason_beside_it(machine: Any, unit: str) -> None:
    told = machine.check_output("systemd-analyze security --no-pager %s", unit)
    # Only what counts: "✗ PrivateNetwork=  Service has access to ...  0.5".
    left_out = re.findall(r"^✗ (\w+)=(\S*).*[0-9.]+$", told, re.MULTILINE)
    assert left_out
    text = machine.check_output("systemctl cat %s", unit)
    reasons = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for directive, value in left_out:
        assert directive in reasons, f"{directive}={value} is left out without a word"
        for family in re.findall("AF_[A-Z0-9]+|INET6", value):
            assert family in reasons, f"{directive}={value} is left out without a word"


@pytest.mark.parametrize("name", GATEWAYS)
def test_openclaws_own_audit_finds_nothing_without_a_reason(machine: Any, name: str) -> None:
    gateway = json.loads(machine.file(f"/etc/claw/{name}/gateway.json").content_string)
    unit = f"openclaw-gateway@{name}.service"
    environment = machine.check_output("systemctl show -P Environment %s", unit)
    command = f"cd {gateway['state_dir']} && env {environment} {gateway['node']} {gateway['entry']}"
    # It ends with 0 whatever it finds.
    told = machine.check_output(
        "runuser -u %s -- sh -c %s", gateway["user"], f"{command} security audit --json"
    )
    audit = json.loads(told)
    grave = {
        finding["checkId"]: finding
        for finding in audit["findings"]
        if finding["severity"] in ("critical", "warn")
    }
    assert audit["summary"]["critical"] == 0, grave
    assert grave.keys() == AUDIT_REASONS, grave
    guide = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text()
    assert [check for check in AUDIT_REASONS if f"`{check}`" not in guide] == []


@pytest.mark.parametrize("name", GATEWAYS)
def test_what_is_said_stays_out_of_the_journal(machine: Any, answered: dict[str, str], name: str) -> None:
    """And the gateway's log, which has it, is kept where the conversation is, with what an operator needs."""
    word = shlex.quote(re.findall(r"echo [0-9a-f]+", answered[name])[-1])
    state = json.loads(machine.file(f"/etc/claw/{name}/gateway.json").content_string)["state_dir"]
    # The log may be rotated.
    log = f"cat {state}/logs/gateway*.log"
    assert machine.run(f"{log} | grep --quiet --fixed-strings {word}").rc == 0, "the word was said"
    assert machine.run(f"journalctl --no-pager | grep --quiet --fixed-strings {word}").rc == 1
    for line in ("gateway ready", "config hot reload applied"):
        assert machine.run(f"{log} | grep --quiet --fixed-strings '{line}'").rc == 0, line
    assert machine.check_output(f"find {state}/logs -type f -not -perm 0600") == ""
