# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that would make anew what a gateway knows, where that may only be out of sight."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway
from ansible_collections.claw.fleet.plugins.modules import (
    agent_adoption,
    agent_key_file,
    coaches_info_look,
    gateway_info,
    gateway_secrets,
    openclaw_agent,
)
from ansible_collections.claw.fleet.tests.unit.plugins.offline import OfflineGateway, offline_gateway

URL = {"coach_api_url": "https://app.example.com/"}
REFUSING: list[tuple[ModuleType, dict[str, Any]]] = [
    (openclaw_agent, {"agents": []}),
    (agent_key_file, {**URL, "agents": []}),
    (agent_adoption, {**URL, "agents": [], "state_dir": "/nowhere"}),
    (coaches_info_look, {**URL, "agents": [], "token_file": "/nowhere"}),
    (gateway_secrets, {}),
]


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OfflineGateway:
    """One that was in force."""
    gateway = offline_gateway(tmp_path)
    (tmp_path / "etc" / "config.applied.json").write_text("{}")
    (tmp_path / "etc" / "gw-a").mkdir()
    (tmp_path / "etc" / "gw-a" / "gateway.json").touch()
    monkeypatch.setattr(gateway_secrets, "DEFAULT_CONFIG_ROOT", str(tmp_path / "etc"))
    monkeypatch.setattr(Gateway, "load", lambda *_given: gateway)
    return gateway


@pytest.mark.parametrize(("module", "given"), REFUSING, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("check", [False, True])
def test_it_refuses(
    gateway: OfflineGateway,
    module: ModuleType,
    given: dict[str, Any],
    check: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = {"gateway": "gw-a", "_ansible_check_mode": check, **given}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] and told["msg"].startswith(f"What gateway gw-a knows is not in {gateway.state_dir}")
    assert list(Path(gateway.state_dir).iterdir()) == []


def test_it_is_told(gateway: OfflineGateway) -> None:
    assert gateway_info._ask(gateway)["state_missing"] is True
    Path(gateway.token_file).touch()
    assert gateway_info._ask(gateway)["state_missing"] is False
