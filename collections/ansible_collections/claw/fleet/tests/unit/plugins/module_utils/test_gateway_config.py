# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting a config into force, with a supervisor that only remembers. A real gateway has it in the scenarios."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _durable, _gateway_config
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayError
from ansible_collections.claw.fleet.plugins.module_utils._gateway_config import ConfigChange, ConfigFile
from ansible_collections.claw.fleet.plugins.module_utils._gateway_secrets import MARK
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import UnitState
from ansible_collections.claw.fleet.tests.unit.plugins.offline import OfflineGateway, offline_gateway


class Killed(BaseException):
    """The run ends here, as by SIGKILL."""


class Machine:
    """A unit that runs with whatever config it is started with, unless that config says "bad"."""

    def __init__(self, gateway: Gateway) -> None:
        self.config = Path(gateway.config)
        self.deeds: list[str] = []
        self.runs_with: Any = None
        self.killed_at = ""
        self.late_starts = 0

    def systemctl(self, verb: str, *_arguments: str) -> None:
        self.did(verb)
        if verb == "stop":
            self.runs_with = None

    def start(self) -> None:
        self.did("start")
        self.runs_with = json.loads(self.config.read_bytes())

    def wait_ready(self) -> UnitState:
        self.did("wait")
        if self.late_starts:
            self.late_starts -= 1
            self.runs_with = None
            raise GatewayError("gateway gw-a is failed")
        if "bad" in self.runs_with:
            raise GatewayError("gateway gw-a is failed")
        return self.state()

    def state(self) -> UnitState:
        running = self.runs_with is not None
        return UnitState("active" if running else "failed", "", 7 * running, "", 0 if running else 78)

    def did(self, deed: str) -> None:
        if deed == self.killed_at:
            raise Killed
        self.deeds.append(deed)


RESTART = ["stop", "daemon-reload", "start", "wait"]


@pytest.fixture
def gateway(tmp_path: Path) -> OfflineGateway:
    return offline_gateway(tmp_path)


@pytest.fixture
def machine(gateway: OfflineGateway, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(gateway)
    monkeypatch.setattr(_gateway_config, "_systemctl", machine.systemctl)
    monkeypatch.setattr(Gateway, "start", lambda self: machine.start())
    monkeypatch.setattr(Gateway, "wait_ready", lambda self, timeout: machine.wait_ready())
    monkeypatch.setattr(Gateway, "unit_state", lambda self: machine.state())
    return machine


def apply(gateway: OfflineGateway, wanted: dict[str, Any], *inputs: str, check: bool = False) -> ConfigChange:
    return ConfigFile(gateway, wanted, inputs, 1).apply(check=check)


def held(gateway: OfflineGateway) -> Any:
    return json.loads(Path(gateway.config).read_bytes())


def test_four_verbs(gateway: OfflineGateway, machine: Machine) -> None:
    predicted = apply(gateway, {"a": 1}, check=True)
    assert not Path(gateway.config).exists()
    assert machine.deeds == []
    assert apply(gateway, {"a": 1}) == predicted == ConfigChange(True, True, {}, {"a": 1})
    assert machine.deeds == RESTART
    assert machine.runs_with == held(gateway) == {"a": 1}
    machine.deeds.clear()
    before = Path(gateway.config).stat().st_mtime_ns
    for check in (False, True):
        assert apply(gateway, {"a": 1}, check=check) == ConfigChange(False, False, {"a": 1}, {"a": 1})
    assert machine.deeds == ["wait"]
    assert Path(gateway.config).stat().st_mtime_ns == before


def test_foreign_keys_stay_and_ours_go(gateway: OfflineGateway, machine: Machine) -> None:
    apply(gateway, {"a": 1, "b": 2})
    Path(gateway.config).write_text(json.dumps({"a": 5, "b": 2, "meta": {"x": 1}}))
    assert apply(gateway, {"a": 1}).after == {"a": 1, "meta": {"x": 1}}
    assert machine.runs_with == {"a": 1, "meta": {"x": 1}}


def test_secrets_that_change_are_no_reason_to_restart_and_a_start_marks_them(
    gateway: OfflineGateway, machine: Machine
) -> None:
    token = Path(gateway.token_file)
    token.write_text("one")
    wanted = {"secrets": {"providers": {"t": {"source": "file", "path": str(token)}}}}
    first = apply(gateway, wanted)
    assert first.after == wanted, "the mark is nothing to show"
    mark = held(gateway)["secrets"]["providers"][MARK]
    token.write_text("two")
    machine.deeds.clear()
    assert not apply(gateway, wanted).changed
    assert machine.deeds == ["wait"] and held(gateway)["secrets"]["providers"][MARK] == mark
    # What is started for another reason has read them.
    apply(gateway, {**wanted, "a": 1})
    assert held(gateway)["secrets"]["providers"][MARK] != mark
    assert apply(gateway, {**wanted, "a": 1}, check=True).changed is False


def test_what_openclaw_refuses_is_not_even_tried(
    gateway: OfflineGateway, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(gateway, {"a": 1})
    machine.deeds.clear()
    monkeypatch.setattr(OfflineGateway, "validate", lambda self, **files: ["a: too small"])
    with pytest.raises(GatewayError, match="nothing was changed: a: too small"):
        apply(gateway, {"a": 0})
    assert machine.deeds == []
    assert held(gateway) == machine.runs_with == {"a": 1}


def test_a_config_that_does_not_come_up_is_put_back(gateway: OfflineGateway, machine: Machine) -> None:
    apply(gateway, {"a": 1})
    with pytest.raises(GatewayError, match=r"(?s)worked before is back.*failed.*some words"):
        apply(gateway, {"a": 1, "bad": 1})
    assert held(gateway) == machine.runs_with == {"a": 1}
    assert apply(gateway, {"a": 1}).changed is False
    assert apply(gateway, {"a": 2}).after == {"a": 2}


def test_a_config_that_the_disk_does_not_take_leaves_the_gateway_running(
    gateway: OfflineGateway, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(gateway, {"a": 1})
    write = _durable.write

    def full(path: Any, *args: Any, **more: Any) -> None:
        if str(path) == gateway.config:
            raise _durable.DurableError(f"cannot write {path}: No space left on device")
        write(path, *args, **more)

    monkeypatch.setattr(_durable, "write", full)
    with pytest.raises(GatewayError, match=r"runs with the config it had: cannot write .*No space left"):
        apply(gateway, {"a": 2})
    assert held(gateway) == machine.runs_with == {"a": 1}


def test_a_config_that_is_written_but_not_safe_is_put_back(
    gateway: OfflineGateway, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(gateway, {"a": 1})
    write, failed = _durable.write, []

    def unsafe(path: Any, *args: Any, **more: Any) -> None:
        write(path, *args, **more)
        if str(path) == gateway.config and not failed:
            failed.append(path)
            raise _durable.DurableError(f"cannot write {path}: Input/output error")

    monkeypatch.setattr(_durable, "write", unsafe)
    with pytest.raises(GatewayError, match=r"(?s)worked before is back.*Input/output error"):
        apply(gateway, {"a": 2})
    assert held(gateway) == machine.runs_with == {"a": 1}
    assert apply(gateway, {"a": 1}).changed is False


def test_a_start_that_was_too_slow_for_openclaw_is_tried_once_more(
    gateway: OfflineGateway, machine: Machine
) -> None:
    machine.late_starts = 1
    assert apply(gateway, {"a": 1}).changed is True
    assert machine.deeds == [*RESTART, "start", "wait"]
    assert held(gateway) == machine.runs_with == {"a": 1}

    machine.late_starts = 2
    with pytest.raises(GatewayError, match="is failed"):
        apply(gateway, {"a": 2})


def test_a_first_config_that_does_not_come_up_is_mended_by_the_next(
    gateway: OfflineGateway, machine: Machine
) -> None:
    with pytest.raises(GatewayError, match=r"(?s)failed.*some words"):
        apply(gateway, {"bad": 1})
    assert apply(gateway, {"a": 1}).after == {"a": 1}
    assert machine.runs_with == {"a": 1}


def test_a_gateway_that_does_not_run_is_started(gateway: OfflineGateway, machine: Machine) -> None:
    apply(gateway, {"a": 1})
    machine.runs_with = None
    assert apply(gateway, {"a": 1}).restarted is True
    assert machine.runs_with == {"a": 1}


def test_other_files_that_changed_restart_it(
    gateway: OfflineGateway, machine: Machine, tmp_path: Path
) -> None:
    unit, key = tmp_path / "unit", Path(gateway.state_dir) / "provider-x.key"
    for path in (unit, key):
        apply(gateway, {"a": 1}, str(unit), str(key))
        path.write_text("new")
        assert apply(gateway, {"a": 1}, str(unit), str(key), check=True).changed is True
        assert apply(gateway, {"a": 1}, str(unit), str(key)).restarted is True
        assert apply(gateway, {"a": 1}, str(unit), str(key)).changed is False
    assert "new" not in (Path(gateway.config_dir) / "config.applied.json").read_text()


def test_what_somebody_changed_is_told_and_left(
    gateway: OfflineGateway, machine: Machine, tmp_path: Path
) -> None:
    unit = tmp_path / "unit"
    file = ConfigFile(gateway, {}, [str(unit)], 1)
    assert file.drift() == ({}, {}) and not file.started_otherwise()
    apply(gateway, {"a": 1, "auth": {"token": "word"}}, str(unit))
    assert file.drift().before == file.drift().after and not file.started_otherwise()
    changed = json.dumps({"a": 2, "auth": {"token": "other"}, "meta": 1})
    Path(gateway.config).write_text(changed)
    drift = file.drift()
    assert (drift.before["a"], drift.after["a"], drift.after["meta"]) == (2, 1, 1)
    assert "other" not in str(drift)
    unit.write_text("new")
    assert file.started_otherwise()
    assert Path(gateway.config).read_text() == changed and machine.deeds == RESTART


@pytest.mark.parametrize("moment", RESTART)
@pytest.mark.parametrize("then", [{"a": 2, "b": 1}, {"a": 3}, {"a": 1}])
def test_a_run_that_was_killed_is_finished_by_the_next(
    gateway: OfflineGateway, machine: Machine, moment: str, then: dict[str, Any]
) -> None:
    apply(gateway, {"a": 1})
    machine.killed_at = moment
    with pytest.raises(Killed):
        apply(gateway, {"a": 2, "b": 1})
    machine.killed_at = ""
    apply(gateway, then)
    assert held(gateway) == machine.runs_with == then
    assert apply(gateway, then).changed is False


@pytest.mark.parametrize("moment", RESTART)
def test_a_bad_config_whose_run_was_killed_is_still_put_back(
    gateway: OfflineGateway, machine: Machine, moment: str
) -> None:
    apply(gateway, {"a": 1})
    machine.killed_at = moment
    with pytest.raises(Killed):
        apply(gateway, {"bad": 1})
    machine.killed_at = ""
    with pytest.raises(GatewayError):
        apply(gateway, {"bad": 1})
    assert held(gateway) == machine.runs_with == {"a": 1}


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_file_that_is_no_config_is_not_overwritten(
    gateway: OfflineGateway, machine: Machine, content: str
) -> None:
    Path(gateway.config).write_text(content)
    with pytest.raises(GatewayError, match="mend it, or move it away"):
        apply(gateway, {"a": 1})
    assert Path(gateway.config).read_text() == content
    assert machine.deeds == []
