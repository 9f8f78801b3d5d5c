# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registration of a gateway: check, apply, apply again, check again, and the token is nowhere."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.claw.fleet.plugins.action.gateway_registration import ActionModule
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import TOKEN, CoachList, refuse
from ansible_collections.claw.fleet.tests.unit.plugins.run_action import run_action

GATEWAY_TOKEN = "0f" * 24


def run(coach_list: CoachList, *, check_mode: bool = False, **args: Any) -> dict[str, Any]:
    given = {"name": "gw-a", "url": "http://m:8080/gw-a/", "token": GATEWAY_TOKEN, "capacity": 50, **args}
    access = {"api_url": coach_list.url, "api_token": TOKEN, "retries": 0}
    result = run_action(ActionModule, {**access, **given}, check_mode=check_mode)
    for secret in (TOKEN, given["token"]):
        assert secret not in str(result)
    return result


def test_four_times(coach_list: CoachList) -> None:
    checked = run(coach_list, check_mode=True)
    assert checked["changed"]
    assert coach_list.writes == []
    applied = run(coach_list)
    assert applied == checked
    assert applied["gateway"] == {"name": "gw-a", "url": "http://m:8080/gw-a", "capacity": 50}
    assert applied["diff"]["before"] == ""
    assert len(coach_list.writes) == 1
    for check_mode in (False, True):
        again = run(coach_list, check_mode=check_mode)
        assert not again["changed"]
        assert again["diff"]["before"] == again["diff"]["after"]
    assert len(coach_list.writes) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"token": "1e" * 24}, "token_sha256"),
        ({"url": "http://n/gw-a"}, "url"),
        ({"capacity": 60}, "capacity"),
    ],
)
def test_each_difference_is_written_and_shown(
    coach_list: CoachList, change: dict[str, Any], field: str
) -> None:
    run(coach_list)
    checked = run(coach_list, check_mode=True, **change)
    applied = run(coach_list, **change)
    assert applied == checked
    before, after = applied["diff"]["before"], applied["diff"]["after"]
    assert {name for name in after if after[name] != before[name]} == {field}
    assert not run(coach_list, **change)["changed"]


def test_a_capacity_that_is_not_given_stays(coach_list: CoachList) -> None:
    run(coach_list, capacity=7)
    assert not run(coach_list, capacity=None)["changed"]
    run(coach_list, capacity=None, url="http://elsewhere/gw-a")
    assert coach_list.gateways["gw-a"]["capacity"] == 7


def test_an_address_that_is_not_given_stays(coach_list: CoachList) -> None:
    assert not run(coach_list, url=None)["gateway"]["url"]
    coach_list.gateways["gw-a"]["url"] = "https://calm-cove.example/gw-a"
    assert not run(coach_list, url=None)["changed"]
    told = run(coach_list, url=None, capacity=7)
    assert told["gateway"]["url"] == coach_list.gateways["gw-a"]["url"] == "https://calm-cove.example/gw-a"


@pytest.mark.parametrize(
    ("args", "words"),
    [({"name": "GW"}, "name is 'GW'"), ({"token": " "}, "token is empty"), ({"name": "none\n"}, "name is")],
)
def test_bad_options(coach_list: CoachList, args: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleActionFail, match=words):
        run(coach_list, **args)
    assert coach_list.requests == []


def test_a_refusal_is_told_without_the_token(coach_list: CoachList) -> None:
    coach_list.faults = [None, refuse(400, f"{GATEWAY_TOKEN} is too weak.")]
    with pytest.raises(AnsibleActionFail) as caught:
        run(coach_list)
    assert "*** is too weak" in str(caught.value)
    assert GATEWAY_TOKEN not in str(caught.value)


def test_a_token_that_was_announced_is_known(coach_list: CoachList) -> None:
    run(coach_list, token="1e" * 24)
    coach_list.gateways["gw-a"]["next_token_sha256"] = hashlib.sha256(GATEWAY_TOKEN.encode()).hexdigest()
    assert not run(coach_list)["changed"]
    # What else differs is told without it.
    assert run(coach_list, capacity=7)["changed"]
    assert "token" not in coach_list.writes[-1][2]
