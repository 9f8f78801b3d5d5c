"""The doctor where the fleet runs by itself: what is wrong with who does that."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from clawbench.coachlist import CoachList
from clawbench.hosts import Bench
from clawbench.plays import ROOT, Plays
from clawbench.shell import until

STATE = Path(os.environ["CLAW_DEMO_STATE"])
PLAYS = Plays(
    [ROOT / "inventories/demo/hosts.yml", STATE / "inventory", STATE / "control/node.json"],
    # As the scenario has it.
    {"sandbox_engine": "none", "reconciler_every": 86400, "reconciler_full_every": 86400},
)
TIMER, PASS = "claw-reconciler.timer", "claw-reconciler.service"


@pytest.fixture(autouse=True)
def _at_rest(machine: Any) -> None:
    """No pass is under way."""
    until(
        lambda: machine.check_output("systemctl show -P ActiveState %s", PASS) in ("inactive", "failed"),
        seconds=120,
        what="the reconciler to be at rest",
    )


def healthy(place: Path) -> None:
    found, output = PLAYS.doctor(place)
    assert found == [], output


def test_a_timer_that_was_stopped_is_started_again(machine: Any, tmp_path: Path) -> None:
    healthy(tmp_path)
    machine.check_output("systemctl stop %s", TIMER)
    found, output = PLAYS.doctor(tmp_path)
    assert found == ["timer-failed"], output
    found, output = PLAYS.doctor(tmp_path, "--tags", "fix")
    assert found == [], output
    assert machine.service(TIMER).is_running


def test_a_unit_that_was_changed_is_put_right_by_its_own_playbook(machine: Any, tmp_path: Path) -> None:
    path = f"/etc/systemd/system/{PASS}"
    own = machine.check_output("systemctl show -P MemoryMax %s", PASS)
    machine.check_output("sed -i '/^MemoryMax=/d' %s && systemctl daemon-reload", path)
    assert machine.check_output("systemctl show -P MemoryMax %s", PASS) != own
    found, output = PLAYS.doctor(tmp_path)
    assert found == ["unit-edited"] and "claw.fleet.reconciler`" in output, output
    told = PLAYS.run("playbooks/reconciler.yml")
    assert told.returncode == 0, told.stdout
    assert machine.check_output("systemctl show -P MemoryMax %s", PASS) == own
    healthy(tmp_path)


def test_a_pass_that_failed_is_told_until_one_succeeds(machine: Any, tmp_path: Path) -> None:
    coach_list = CoachList(STATE)
    coach_list.down()
    try:
        assert machine.run("systemctl start %s", PASS).rc != 0
    finally:
        coach_list.up(Bench.of(STATE).facts()["network_gateway"])
    found, output = PLAYS.doctor(tmp_path)
    assert found == ["reconciler-failed"], output
    machine.check_output("systemctl start %s", PASS)
    healthy(tmp_path)
