# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a gateway's secrets."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from ansible_collections.claw.fleet.plugins.module_utils._durable import DurableError
from ansible_collections.claw.fleet.plugins.module_utils._gateway_secrets import take
from ansible_collections.claw.fleet.plugins.modules.gateway_secrets import reconcile
from ansible_collections.claw.fleet.tests.unit.plugins.offline import OfflineGateway, offline_gateway


@pytest.fixture
def gateway(tmp_path: Path) -> OfflineGateway:
    return offline_gateway(tmp_path)


@pytest.fixture
def state(gateway: OfflineGateway) -> Path:
    return Path(gateway.state_dir)


def contents(state: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in state.iterdir()}


def test_four_verbs(gateway: OfflineGateway, state: Path) -> None:
    keys = {"openai": "sk-1"}
    predicted, _files = reconcile(gateway, None, keys, True)
    assert contents(state) == {}
    changed, files = reconcile(gateway, None, keys, False)
    assert changed == predicted == ["provider-openai.key", "token"]
    assert files == [str(state / "provider-openai.key"), str(state / "token")]
    made = contents(state)
    assert re.fullmatch("[0-9a-f]{48}", made["token"])
    assert made["provider-openai.key"] == "sk-1"
    assert {stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()} == {0o400}
    for check in (False, True):
        assert reconcile(gateway, None, keys, check) == ([], files)
    assert contents(state) == made


def test_a_given_token_replaces_and_a_missing_key_goes(gateway: OfflineGateway, state: Path) -> None:
    reconcile(gateway, None, {"a": "1", "b": "2"}, False)
    first = contents(state)["token"]
    for token in ("t" * 48, "u" * 48):
        changed, _files = reconcile(gateway, token, {"b": "3"}, False)
    assert changed == ["token"]
    # The one that the process may run with is the oldest; who starts it anew gives it the newest.
    assert contents(state) == {"provider-b.key": "3", "token": "u" * 48, "token.former": first}
    assert take(gateway, check=True) is take(gateway, check=False) is False
    assert contents(state) == {"provider-b.key": "3", "token": "u" * 48}


def test_a_token_that_is_open_to_others_is_closed(gateway: OfflineGateway, state: Path) -> None:
    reconcile(gateway, None, {}, False)
    before = contents(state)
    (state / "token").chmod(0o644)
    assert reconcile(gateway, None, {}, True)[0] == ["token"]
    assert reconcile(gateway, None, {}, False)[0] == ["token"]
    assert stat.S_IMODE((state / "token").stat().st_mode) == 0o400
    assert contents(state) == before


def test_a_planted_link_is_not_followed(gateway: OfflineGateway, state: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("untouched")
    (state / "provider-a.key").symlink_to(target)
    with pytest.raises(DurableError):
        reconcile(gateway, None, {"a": "1"}, False)
    assert target.read_text() == "untouched"
