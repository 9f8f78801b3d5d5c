# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Claim, mark and write back, against a real HTTP server: check, apply, apply again, check again."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.claw.fleet.plugins.action.coach_status import ActionModule
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import (
    TOKEN,
    CoachList,
    never,
    refuse,
    row,
    settled,
)
from ansible_collections.claw.fleet.tests.unit.plugins.run_action import run_action

Result = dict[str, Any]


def run(coach_list: CoachList, rows: list[Any], *, check_mode: bool = False, **args: Any) -> Result:
    """The action towards this coach list, without patience."""
    given = {"api_url": coach_list.url, "api_token": TOKEN, "coaches": rows, "retries": 0, **args}
    return run_action(ActionModule, given, check_mode=check_mode)


def proposed(*rows: Result) -> list[Result]:
    return [{**item, "proposed_gateway": "gw-a"} for item in rows]


def by_pk(result: Result) -> dict[int, Result]:
    return {item["pk"]: item for item in result["results"]}


def test_claim_four_times(coach_list: CoachList) -> None:
    listed = [row(1), row(2, wanted="paused"), settled(3, "gw-a"), row(4, status="error", reason="old")]
    coach_list.add(*(dict(item) for item in listed))

    checked = run(coach_list, listed, claim="gw-a", check_mode=True)
    assert checked["changed"]
    assert coach_list.requests == []

    applied = run(coach_list, listed, claim="gw-a")
    assert applied["results"] == checked["results"]
    assert applied["diff"] == checked["diff"]
    assert [request[1] for request in coach_list.writes] == [
        f"internal/coaches/{pk}/claim/" for pk in (1, 2, 4)
    ]
    assert applied["diff"][0] == {
        "before_header": "coach-1 (pk 1)",
        "after_header": "coach-1 (pk 1)",
        "before": {"gateway": None, "status": "pending", "observed_generation": 0, "reason": ""},
        "after": {"gateway": "gw-a", "status": "provisioning", "observed_generation": 0, "reason": ""},
    }
    assert by_pk(applied)[4]["reason"] == ""
    assert all(item["proposed_gateway"] == "gw-a" for item in applied["results"])

    coach_list.requests.clear()
    for check_mode in (False, True):
        again = run(coach_list, list(coach_list.rows.values()), claim="gw-a", check_mode=check_mode)
        assert not again["changed"]
        assert coach_list.requests == []


def test_the_answer_to_a_claim_is_what_is_acted_on(coach_list: CoachList) -> None:
    coach_list.add(row(1))
    coach_list.after_claim = {"generation": 2, "wanted": "paused", "name": "Anna B"}
    [claimed] = run(coach_list, [row(1)], claim="gw-a")["results"]
    assert (claimed["generation"], claimed["wanted"], claimed["name"]) == (2, "paused", "Anna B")


def test_an_answer_that_turned_bad_is_that_rows_error(coach_list: CoachList) -> None:
    coach_list.add(row(1))
    coach_list.after_claim = {"name": "a\nb"}
    result = run(coach_list, [row(1)], claim="gw-a")
    assert result["results"][0]["error"]["step"] == "row"
    assert result["changed"]


def test_a_coach_of_another_gateway_is_left_to_it(coach_list: CoachList) -> None:
    coach_list.add(settled(1, "gw-b"), settled(2, "gw-b"), row(3))
    listed = [settled(1, "gw-b"), row(2), row(3)]
    claimed = run(coach_list, listed, claim="gw-a")
    known, found_out, fine = claimed["results"]
    assert known["error"] == {"step": "claim", "reason": "Gateway 'gw-b' holds this coach; leave her to it."}
    assert found_out["error"]["step"] == "claim"
    assert "answered 409: Another gateway holds her" in found_out["error"]["reason"]
    assert found_out["gateway"] == "gw-b"
    assert "error" not in fine
    assert len(claimed["diff"]) == 1

    coach_list.requests.clear()
    told = run(coach_list, claimed["results"], fail_on_error=True)
    assert told["failed"]
    assert [request[1] for request in coach_list.writes] == ["internal/coaches/3/status/"]
    assert coach_list.rows[1] == settled(1, "gw-b")
    assert coach_list.rows[2] == settled(2, "gw-b")


def test_a_full_gateway_is_the_coachs_error_and_written(coach_list: CoachList) -> None:
    coach_list.gateways["gw-a"] = {"capacity": 1}
    coach_list.add(row(1), row(2))
    claimed = run(coach_list, [row(1), row(2)], claim="gw-a")
    assert "The gateway is full" in by_pk(claimed)[2]["error"]["reason"]
    run(coach_list, claimed["results"])
    assert coach_list.rows[2]["status"] == "error"
    assert coach_list.rows[2]["reason"].startswith("claim: POST ")
    assert coach_list.rows[2]["gateway"] is None


def test_a_coach_who_is_gone_is_her_own_error(coach_list: CoachList) -> None:
    coach_list.add(row(2))
    claimed = run(coach_list, [row(1), row(2)], claim="gw-a")
    assert "answered 404: No such coach" in by_pk(claimed)[1]["error"]["reason"]
    told = run(coach_list, claimed["results"])
    assert by_pk(told)[1]["error"]["step"] == "claim"
    assert coach_list.rows[2]["status"] == "active"


def test_nobody_claims_a_coach_who_is_wanted_removed(coach_list: CoachList) -> None:
    gone = row(1, wanted="removed")
    coach_list.add(dict(gone))
    claimed = run(coach_list, [gone], claim="gw-a")
    assert not claimed["changed"]
    told = run(coach_list, claimed["results"])
    assert coach_list.rows[1]["status"] == "removed"
    assert not run(coach_list, told["results"])["changed"]


def test_outcome_four_times(coach_list: CoachList) -> None:
    before = [
        row(1, status="activating", gateway="gw-a", generation=3, observed_generation=2),
        row(2, status="active", gateway="gw-a", wanted="paused", generation=2, observed_generation=1),
        row(3, status="active", gateway="gw-a", wanted="removed"),
        row(4, status="provisioning", gateway="gw-a"),
        settled(5, "gw-a"),
    ]
    coach_list.add(*(dict(item) for item in before))
    listed = proposed(*before)
    listed[3]["error"] = {"step": "key", "reason": "The disk is full."}

    checked = run(coach_list, listed, check_mode=True)
    assert checked["changed"]
    assert coach_list.requests == []

    applied = run(coach_list, listed)
    assert applied["results"] == checked["results"]
    assert applied["diff"] == checked["diff"]
    assert [(request[1], request[2]) for request in coach_list.writes] == [
        (
            "internal/coaches/1/status/",
            {"gateway": "gw-a", "status": "active", "reason": "", "observed_generation": 3},
        ),
        (
            "internal/coaches/2/status/",
            {"gateway": "gw-a", "status": "paused", "reason": "", "observed_generation": 2},
        ),
        (
            "internal/coaches/3/status/",
            {"gateway": "gw-a", "status": "removed", "reason": "", "observed_generation": 1},
        ),
        (
            "internal/coaches/4/status/",
            {"gateway": "gw-a", "status": "error", "reason": "key: The disk is full."},
        ),
    ]
    assert coach_list.rows[3]["gateway"] is None

    coach_list.requests.clear()
    for check_mode in (False, True):
        again = run(coach_list, applied["results"], check_mode=check_mode)
        assert not again["changed"]
        assert again["diff"] == []
        assert coach_list.requests == []


def test_what_people_change_meanwhile_is_for_the_next_run(coach_list: CoachList) -> None:
    acted_on = row(1, status="provisioning", gateway="gw-a")
    coach_list.add({**acted_on, "generation": 2, "wanted": "paused"})
    [marked] = run(coach_list, proposed(acted_on), activating=True)["results"]
    assert (marked["status"], marked["generation"], marked["wanted"]) == ("activating", 1, "running")
    [told] = run(coach_list, [marked])["results"]
    assert coach_list.rows[1]["observed_generation"] == 1
    assert coach_list.rows[1]["generation"] == 2
    assert told["status"] == "active"


def test_activating_four_times(coach_list: CoachList) -> None:
    before = [
        row(1, status="provisioning", gateway="gw-a"),
        settled(2, "gw-a"),
        row(3, status="activating", gateway="gw-a"),
        row(4, status="provisioning", gateway="gw-a", wanted="removed"),
    ]
    coach_list.add(*(dict(item) for item in before))
    listed = proposed(*before)
    checked = run(coach_list, listed, activating=True, check_mode=True)
    applied = run(coach_list, listed, activating=True)
    assert applied["results"] == checked["results"]
    assert [request[2] for request in coach_list.writes] == [
        {"gateway": "gw-a", "status": "activating", "reason": ""}
    ]
    again = run(coach_list, applied["results"], activating=True)
    assert not again["changed"]
    assert len(coach_list.writes) == 1


def test_rows_in_error_are_told_and_each_is_named(coach_list: CoachList) -> None:
    coach_list.add(row(1, agent_id="Anna"), row(2), row(3, name="a\nb"))
    listed = [dict(item) for item in coach_list.rows.values()]
    claimed = run(coach_list, listed, claim="gw-a")
    assert [request[1] for request in coach_list.writes] == ["internal/coaches/2/claim/"]
    told = run(coach_list, claimed["results"], fail_on_error=True)
    assert told["failed"]
    assert told["changed"]
    lines = told["msg"].splitlines()
    assert lines[0] == "2 of 3 coaches could not be served; the others were."
    assert lines[1].startswith("Anna (pk 1): row: agent_id is 'Anna'; it must be")
    assert lines[2].startswith(r"coach-3 (pk 3): row: name is 'a\nb'; it must be one line")
    assert coach_list.rows[1]["status"] == "error"
    assert coach_list.rows[1]["reason"].startswith("row: agent_id is 'Anna'")
    assert coach_list.rows[2]["status"] == "active"

    # The next run reads the same bad rows: nothing to write, and it fails again.
    coach_list.requests.clear()
    listed = [dict(item) for item in coach_list.rows.values()]
    again = run(coach_list, run(coach_list, listed, claim="gw-a")["results"], fail_on_error=True)
    assert again["failed"]
    assert not again["changed"]
    assert coach_list.requests == []


def test_a_row_without_a_pk_cannot_be_written_and_is_told(coach_list: CoachList) -> None:
    told = run(coach_list, [row(None)], fail_on_error=True)
    assert "pk is None" in told["msg"]
    assert coach_list.requests == []


def test_a_newer_run_has_the_last_word(coach_list: CoachList) -> None:
    coach_list.add(settled(1, "gw-a"))
    coach_list.faults = [refuse(409, "observed_generation would go back.")]
    stale = row(1, status="activating", gateway="gw-a")
    [told] = run(coach_list, proposed(stale))["results"]
    assert told["error"]["step"] == "status"
    assert "would go back" in told["error"]["reason"]


@pytest.mark.parametrize("fault", [refuse(500), refuse(401), refuse(403), never])
def test_a_django_that_does_not_answer_fails_the_task_and_tells_what_was_done(
    coach_list: CoachList, fault: Any
) -> None:
    coach_list.add(row(1), row(2), row(3))
    coach_list.faults = [None, fault]
    result = run(coach_list, [row(1), row(2), row(3)], claim="gw-a", timeout=1)
    assert result["failed"]
    assert result["changed"]
    assert "Nothing was written for coach-2 (pk 2) and those after" in result["msg"]
    assert TOKEN not in str(result)
    assert [item["gateway"] for item in result["results"]] == ["gw-a", None, None]
    assert len(coach_list.requests) == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"claim": "GW A"}, "claim is 'GW A'; a gateway's name is"),
        ({"claim": "gw-a", "activating": True}, "mutually exclusive"),
        ({"coaches": [row(1), row(1)]}, "pk 1 appears twice"),
        ({"coaches": [{"name": "x"}]}, "neither a usable pk"),
        ({"coaches": "all"}, "coaches"),
        ({"api": {"paths": {"x": "y"}}}, "api.paths has no 'x'"),
        ({"api": {"send": "both"}}, "plaintext"),
        ({"api_url": "app.example.com"}, "api_url is"),
        ({"api_token": " "}, "api_token is empty"),
    ],
)
def test_faults_of_the_task_stop_it_before_any_request(
    coach_list: CoachList, args: Result, words: str
) -> None:
    coach_list.add(row(1))
    with pytest.raises(AnsibleActionFail) as caught:
        run(coach_list, **{"rows": args.pop("coaches", [row(1)]), **args})
    assert words in str(caught.value)
    assert coach_list.requests == []


def test_access_comes_from_the_environment_too(
    coach_list: CoachList, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAW_FLEET_API_URL", coach_list.url)
    monkeypatch.setenv("CLAW_FLEET_API_TOKEN", TOKEN)
    coach_list.add(row(1))
    assert run_action(ActionModule, {"coaches": [row(1)], "claim": "gw-a"})["changed"]
