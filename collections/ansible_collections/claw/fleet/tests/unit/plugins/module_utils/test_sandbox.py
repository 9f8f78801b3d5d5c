# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a sandbox is to be, from the descriptor to the roster's entry."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _sandbox
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayError
from ansible_collections.claw.fleet.plugins.module_utils._sandbox import GUARD, KEYS, MARK, Sandbox
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import UnitState
from ansible_collections.claw.fleet.tests.unit.plugins.offline import (
    A_SANDBOX,
    OfflineGateway,
    offline_gateway,
)


@pytest.fixture
def gateway(tmp_path: Path) -> OfflineGateway:
    return offline_gateway(tmp_path)


def test_the_descriptor_is_all_that_makes_it(gateway: Gateway) -> None:
    assert Sandbox.load(gateway) is None
    path = _sandbox.descriptor(gateway)
    path.write_text(json.dumps({**asdict(A_SANDBOX), "of a later version": 1}))
    assert Sandbox.load(gateway) == A_SANDBOX
    with pytest.raises(ValueError, match="it lacks image, memory"):
        Sandbox.of({k: v for k, v in asdict(A_SANDBOX).items() if k not in ("image", "memory")})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"engine": "docker"}'])
def test_a_descriptor_that_is_broken_is_never_none(gateway: Gateway, text: str) -> None:
    path = _sandbox.descriptor(gateway)
    path.write_text(text)
    with pytest.raises(GatewayError, match="run the role") as error:
        Sandbox.load(gateway)
    assert str(path) in str(error.value)


OTHERS: dict[str, Any] = {
    "image": "claw-sandbox:2",
    "network": "none",
    "dns": [],
    "memory": "1g",
    "cpus": 2.0,
    "pids": 1,
    "file_bytes": 1,
    "scratch": "1m",
    "tools": ["exec"],
    "credentials_dir": "/run/other",
    "idle_hours": 1,
    "age_days": 1,
}


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_differs_is_another_container_and_another_entry(gateway: Gateway, name: str) -> None:
    other = replace(A_SANDBOX, **{name: OTHERS[name]})
    assert other.mark != A_SANDBOX.mark
    entries = [sandbox.entry(gateway, "coach-1") for sandbox in (A_SANDBOX, other)]
    for entry in entries:
        assert entry["sandbox"]["docker"]["env"].pop(MARK)
    assert entries[0] != entries[1], "the mark is not all that tells it"
    # A number that JSON has read is the same number.
    assert Sandbox.of(json.loads(json.dumps(asdict(other)))).mark == other.mark


def test_nobodys_entry_opens_anothers(gateway: Gateway) -> None:
    anna, ben = (A_SANDBOX.entry(gateway, name) for name in ("coach-anna", "coach-ben"))
    state = gateway.state_dir
    assert anna["sandbox"]["docker"]["binds"] == [
        f"{state}/credentials/coach-anna:/var/run/credentials:ro",
    ]
    assert json.loads(json.dumps(anna).replace("coach-anna", "coach-ben")) == ben
    assert "coach-ben" not in json.dumps(anna)


def test_an_entry_is_closed(gateway: Gateway) -> None:
    entry = A_SANDBOX.entry(gateway, "coach-1")
    assert entry.keys() == KEYS
    sandbox, tools = entry["sandbox"], entry["tools"]
    assert (sandbox["mode"], sandbox["scope"], sandbox["backend"]) == ("all", "agent", "docker")
    docker = sandbox["docker"]
    assert (docker["readOnlyRoot"], docker["capDrop"], docker["network"]) == (True, ["ALL"], "claw-sandbox")
    assert docker["memory"] == docker["memorySwap"] == "512m"
    assert {mount.split(":")[0] for mount in docker["tmpfs"]} == {"/tmp", "/var/tmp", "/run"}
    assert tools["allow"] == tools["sandbox"]["tools"]["allow"] == ["exec", "read"]
    assert tools["exec"]["host"] == "sandbox" and tools["fs"]["workspaceOnly"] is True
    assert docker["containerPrefix"] == "claw-gw-a-"


def test_a_rootless_engine_is_told_who_the_user_is_and_keeps_its_place_for_init(gateway: Gateway) -> None:
    closed = A_SANDBOX.entry(gateway, "coach-1")["sandbox"]
    rootless = replace(A_SANDBOX, engine="podman").entry(gateway, "coach-1")["sandbox"]
    assert rootless.pop("backend") == "podman"
    mine, docker = rootless.pop("docker"), closed.pop("docker")
    assert mine.pop("user") == "1000:1000"
    # Podman brings /run/podman-init, which nothing may cover.
    assert {mount.split(":")[0] for mount in mine.pop("tmpfs")} == {"/tmp", "/var/tmp"}
    assert mine["env"].pop(MARK) != docker["env"].pop(MARK)
    assert mine == {name: value for name, value in docker.items() if name != "tmpfs"}
    assert rootless == {name: value for name, value in closed.items() if name != "backend"}


@pytest.mark.parametrize(
    ("running", "ready", "loaded", "refused"),
    [
        (True, True, [GUARD, "memory-core"], False),
        (True, True, ["memory-core"], True),
        (True, True, None, True),
        # One that is not there yet runs nobody's tools; what it loads is asked of it once it is.
        (True, False, None, False),
        (False, False, None, False),
    ],
)
def test_nobody_is_given_tools_without_the_guard(
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    running: bool,
    ready: bool,
    loaded: list[str] | None,
    refused: bool,
) -> None:
    state = UnitState("active" if running else "inactive", "", 1, "success", 0)
    monkeypatch.setattr(OfflineGateway, "unit_state", lambda _self: state)
    monkeypatch.setattr(OfflineGateway, "ready", lambda _self: ready)
    monkeypatch.setattr(OfflineGateway, "rpc", lambda _self, _method: {"plugins": {"loaded": loaded}})
    if not refused:
        _sandbox.refuse_unguarded(gateway)
        return
    with pytest.raises(GatewayError, match=f"gw-a runs without its plugin {GUARD}"):
        _sandbox.refuse_unguarded(gateway)
