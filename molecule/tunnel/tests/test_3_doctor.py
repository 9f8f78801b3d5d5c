"""The doctor beside a tunnel: each fault is made, found by exactly its code, and gone once it was mended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunnels import (
    PLAYS,
    TUNNEL,
    WATCHER,
    edge_fails,
    forget,
    known_everywhere,
    needs_stand_in,
    needs_time,
    play,
)

look = PLAYS.doctor


def test_a_healthy_fleet_has_no_finding(machine: Any, tmp_path: Path) -> None:
    known_everywhere(machine)
    found, output = look(tmp_path)
    assert found == [], output


def stopped_watcher_and_another_address(machine: Any) -> None:
    """As one that hangs: the app has an address that the tunnel does not lead from, and nobody tells it."""
    machine.check_output("systemctl kill --signal=STOP %s", WATCHER)
    forget()


def another_address_in_the_app(machine: Any) -> None:
    """Somebody changed it there, just after the watcher has looked, which does so again in minutes."""
    machine.check_output("systemctl restart %s", WATCHER)
    forget()
    known_everywhere(machine)
    forget()


MENDED: dict[str, Callable[[Any], Any]] = {
    "tunnel-down": lambda machine: machine.check_output("systemctl stop %s", TUNNEL),
    "url-stale": another_address_in_the_app,
    "tunnel-down: its watcher": lambda machine: machine.check_output("systemctl stop %s", WATCHER),
    "firewall-missing": lambda machine: machine.check_output("nft delete table inet claw_machine"),
}


@needs_time
@pytest.mark.parametrize("code", MENDED)
def test_it_is_named_and_mended(machine: Any, tmp_path: Path, code: str) -> None:
    MENDED[code](machine)
    found, output = look(tmp_path)
    assert found == [code.partition(":")[0]], output
    found, output = look(tmp_path, "--tags", "fix")
    assert found == [], output
    known_everywhere(machine)


@needs_time
def test_an_address_that_is_told_to_nobody(machine: Any, tmp_path: Path) -> None:
    stopped_watcher_and_another_address(machine)
    try:
        found, output = look(tmp_path)
        assert found == ["url-stale"], output
    finally:
        machine.check_output("systemctl kill --signal=CONT %s", WATCHER)
        machine.check_output("systemctl restart %s", WATCHER)
    known_everywhere(machine)
    found, output = look(tmp_path)
    assert found == [], output


@needs_time
def test_a_file_of_the_watchers_that_somebody_changed(machine: Any, tmp_path: Path) -> None:
    path = f"/etc/systemd/system/{WATCHER}"
    machine.check_output("sed -i '$d' %s", path)
    machine.check_output("systemctl daemon-reload")
    machine.check_output("systemctl restart %s", WATCHER)
    found, output = look(tmp_path)
    assert found == ["unit-edited"] and path in "".join(output.split()), output
    assert play("playbooks/site.yml").returncode == 0
    known_everywhere(machine)
    found, output = look(tmp_path)
    assert found == [], output


@needs_time
@needs_stand_in
def test_a_tunnel_that_leads_to_somebody_else(machine: Any, tmp_path: Path) -> None:
    with edge_fails(pages="stranger"):
        machine.check_output("systemctl restart %s", TUNNEL)
        found, output = look(tmp_path)
        assert found == ["url-untold"], output
        assert "does not lead to this machine" in " ".join(output.split())
    known_everywhere(machine, 60)
    found, output = look(tmp_path)
    assert found == [], output


@needs_time
@needs_stand_in
def test_a_tunnel_that_never_registers(machine: Any, tmp_path: Path) -> None:
    with edge_fails(registers="never"):
        machine.check_output("systemctl restart --no-block %s", TUNNEL)
        found, output = look(tmp_path)
        assert found == ["tunnel-unregistered"], output
    known_everywhere(machine, 120)
    found, output = look(tmp_path)
    assert found == [], output
