# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway that is stopped, in a temporary place, for tests of what is done to its files."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway
from ansible_collections.claw.fleet.plugins.module_utils._sandbox import Sandbox
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import UnitState

A_SANDBOX = Sandbox(
    engine="docker",
    docker_host="unix:///run/docker.sock",
    image="claw-sandbox:1",
    network="claw-sandbox",
    dns=["172.29.240.1"],
    memory="512m",
    cpus=1.0,
    pids=128,
    file_bytes=100,
    scratch="64m",
    tools=["exec", "read"],
    credentials_dir="/run/credentials",
    idle_hours=4,
    age_days=7,
)
"""What the agents of a gateway may have."""


class Stopped:
    """A supervisor of nothing."""

    def state(self) -> UnitState:
        return UnitState("inactive", "dead", 0, "success", 0)

    def start(self) -> None:
        raise AssertionError("nobody asked for a start")

    def words(self, since: float) -> str:
        return "some words"


class OfflineGateway(Gateway):
    """It has no OpenClaw, so every roster is valid to it."""

    def validate(self, *, config: bytes | None = None, roster: bytes | None = None) -> list[str]:
        return []


def offline_gateway(place: Path) -> OfflineGateway:
    """A stopped gateway below ``place``, of the user who runs the tests."""
    state, config = place / "state", place / "etc"
    for path in (state, config):
        path.mkdir(mode=0o700)
    me = pwd.getpwuid(os.geteuid())
    descriptor: dict[str, Any] = {
        "name": "gw-a",
        "user": me.pw_name,
        "group": me.pw_name,
        "unit": "openclaw-gateway@gw-a.service",
        "port": 1,
        "state_dir": str(state),
        "config_dir": str(config),
        "config": str(state / "openclaw.json"),
        "roster": str(config / "agents.json"),
        "token_file": str(state / "token"),
        "tree": str(place),
        "node": str(place / "node"),
        "entry": str(place / "openclaw.mjs"),
        "version": "0",
    }
    gateway = OfflineGateway.from_descriptor(descriptor, Stopped())
    assert isinstance(gateway, OfflineGateway)
    return gateway
