# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be seen of a port without a gateway."""

from __future__ import annotations

import getpass
import json
import socket
from pathlib import Path

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _processes
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    Gateway,
    GatewayError,
    other_gateway,
)
from ansible_collections.claw.fleet.plugins.modules import gateway_info
from ansible_collections.claw.fleet.tests.unit.plugins.offline import offline_gateway


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_listens(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        port = listener.getsockname()[1]
        assert _processes.listener(port) == ""
        listener.listen()
        assert _processes.listener(port) == getpass.getuser()


def test_a_port_of_another_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path)
    monkeypatch.setattr(gateway_info, "DEFAULT_CONFIG_ROOT", root)
    for name, content in {"gw-a": json.dumps({"port": 18789}), "gw-b": "{broken"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "gateway.json").write_text(content)
    assert other_gateway("gw-c", 18789, root) == "gw-a"
    assert other_gateway("gw-a", 18789, root) == ""
    assert other_gateway("gw-c", 18909, root) == ""
    assert gateway_info.look("gw-c", 18789)["exists"] is False


def test_one_that_exists_is_waited_for_and_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, waited = offline_gateway(tmp_path), []

    def wait_ready(_gateway: Gateway, timeout: float) -> None:
        waited.append(timeout)
        raise GatewayError("it is not ready")

    monkeypatch.setattr(Gateway, "wait_ready", wait_ready)
    monkeypatch.setattr(Gateway, "load", lambda _name: gateway)
    monkeypatch.setattr(gateway_info, "DEFAULT_CONFIG_ROOT", str(tmp_path))
    assert gateway_info.look("gw-a", None, 7)["exists"] is False and waited == []
    (tmp_path / "gw-a").mkdir()
    (tmp_path / "gw-a" / "gateway.json").touch()
    assert gateway_info.look("gw-a", None)["ready"] is False and waited == []
    assert gateway_info.look("gw-a", None, 7)["ready"] is False and waited == [7]
