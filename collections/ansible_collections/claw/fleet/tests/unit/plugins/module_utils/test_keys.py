# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys on disk: pending, promoted, adopted, rotated, revoked; and never two for one wish."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils._keys import FINAL, PENDING, Credentials, Keys
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import row
from ansible_collections.claw.fleet.tests.unit.plugins.offline import offline_gateway

URL = "https://app.example.com/api/companion/v1/"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(offline_gateway(tmp_path))


def prepare(keys: Keys, coach: dict[str, Any], state: str = "present", **options: Any) -> dict[str, Any]:
    """What is to be done for one coach."""
    (result,), _changed = keys.prepare([coach], state=state, api_url=options.pop("api_url", URL), **options)
    told: dict[str, Any] = result["key"] if "key" in result else result["error"]
    return told


def place(keys: Keys, name: str = FINAL) -> Path:
    return Path(keys.gateway.state_dir) / "credentials" / "coach-1" / name


def on_disk(keys: Keys, name: str = FINAL) -> dict[str, Any] | None:
    path = place(keys, name)
    return json.loads(path.read_text()) if path.exists() else None


def agreed(keys: Keys, coach: dict[str, Any], state: str = "present") -> dict[str, Any]:
    """A whole round with a Django that agrees; the coach as Django then has her."""
    key = prepare(keys, coach, state)
    if key["need"] == "revoke":
        assert keys.conclude({}, ["coach-1"]) == {}
    elif key["pending"]:
        assert keys.conclude({"coach-1": key["key_id"]}, []) == {}
    return coach | {field: key[field] for field in ("key_id", "key_sha256", "key_generation")}


def test_a_key_is_made_registered_and_promoted(keys: Keys) -> None:
    key = prepare(keys, row(1))
    assert (key["need"], key["made"], key["pending"], key["plaintext"]) == ("register", True, True, None)
    assert on_disk(keys) is None
    pending = on_disk(keys, PENDING)
    assert pending is not None
    assert re.fullmatch(r"cfk_[A-Za-z0-9_-]{43}", pending["api_key"])
    assert pending == {
        "agent_id": "coach-1",
        "api_key": pending["api_key"],
        "api_url": URL,
        "key_id": key["key_id"],
        "key_generation": 1,
    }
    assert keys.conclude({"coach-1": key["key_id"]}, []) == {}
    assert (on_disk(keys), on_disk(keys, PENDING)) == (pending, None)
    assert stat.S_IMODE(place(keys).stat().st_mode) == 0o600
    assert stat.S_IMODE(place(keys).parent.stat().st_mode) == 0o700


def test_when_all_is_well_nothing_is_to_be_done(keys: Keys) -> None:
    coach = agreed(keys, row(1))
    before = on_disk(keys)
    for check in (True, False):
        key = prepare(keys, coach, check=check)
        assert (key["need"], key["made"], key["right"]) == ("", False, [])
    assert on_disk(keys) == before


def test_check_mode_writes_nothing_and_knows_no_id(keys: Keys) -> None:
    key = prepare(keys, row(1), check=True)
    assert (key["need"], key["made"], key["key_id"], key["key_sha256"]) == ("register", True, "", "")
    assert not place(keys).parent.exists()


def test_what_a_crash_left_pending_is_adopted(keys: Keys) -> None:
    first = prepare(keys, row(1))
    # Ended before Django was asked, and then after.
    again = prepare(keys, row(1))
    assert (again["need"], again["made"], again["key_id"]) == ("register", False, first["key_id"])
    known = row(1, key_id=first["key_id"], key_sha256=first["key_sha256"], key_generation=1)
    after = prepare(keys, known)
    assert (after["need"], after["key_id"]) == ("promote", first["key_id"])


def test_a_row_from_before_the_promotion_only_registers_again(keys: Keys) -> None:
    coach = agreed(keys, row(1))
    key = prepare(keys, row(1))
    assert (key["need"], key["pending"], key["key_sha256"]) == ("register", False, coach["key_sha256"])


def test_a_wish_for_another_key_is_fulfilled_once(keys: Keys) -> None:
    coach = agreed(keys, row(1))
    wish = coach | {"key_wanted_generation": 2}
    rotated = agreed(keys, wish)
    assert rotated["key_sha256"] != coach["key_sha256"]
    assert rotated["key_generation"] == 2
    assert prepare(keys, rotated)["need"] == ""
    # With the row from before as well: the wish is fulfilled, Django is only told again.
    assert prepare(keys, wish)["key_sha256"] == rotated["key_sha256"]


def test_the_old_key_counts_until_django_knows_the_new_one(keys: Keys) -> None:
    coach = agreed(keys, row(1))
    before = on_disk(keys)
    prepare(keys, coach | {"key_wanted_generation": 2})
    assert on_disk(keys) == before


def test_rotated_makes_another_key_each_time_but_adopts_a_pending_one(keys: Keys) -> None:
    coach = agreed(keys, row(1))
    pending = prepare(keys, coach, "rotated")
    assert pending["made"] is True
    assert prepare(keys, coach, "rotated")["key_id"] == pending["key_id"]
    again = agreed(keys, coach, "rotated")
    assert again["key_id"] == pending["key_id"]
    assert prepare(keys, again, "rotated")["key_id"] != pending["key_id"]


@pytest.mark.parametrize(("wanted", "state"), [("removed", "present"), ("running", "absent")])
def test_a_key_goes_when_it_is_not_wanted(keys: Keys, wanted: str, state: str) -> None:
    coach = agreed(keys, row(1))
    prepare(keys, coach, "rotated")
    gone = coach | {"wanted": wanted}
    assert prepare(keys, gone, state)["need"] == "revoke"
    after = agreed(keys, gone, state)
    assert list(place(keys).parent.iterdir()) == []
    assert prepare(keys, after, state)["need"] == ""
    assert prepare(keys, coach | {"wanted": wanted, "key_id": ""}, state)["need"] == "revoke"


def test_a_url_and_modes_that_are_wrong_are_set_right(keys: Keys) -> None:
    coach = agreed(keys, row(1))
    before = on_disk(keys)
    place(keys).chmod(0o644)
    place(keys).parent.chmod(0o755)
    other = "https://other.example.com/"
    for check in (True, False):
        key = prepare(keys, coach, api_url=other, check=check)
        assert (key["need"], key["right"][0]) == ("", "api_url")
        assert len(key["right"]) >= 2
    assert before is not None
    assert on_disk(keys) == before | {"api_url": other}
    assert stat.S_IMODE(place(keys).stat().st_mode) == 0o600
    assert stat.S_IMODE(place(keys).parent.stat().st_mode) == 0o700
    assert prepare(keys, coach, api_url=other)["right"] == []


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"agent_id": "coach-2"}'])
def test_damaged_credentials_are_that_coachs_error(keys: Keys, content: str) -> None:
    agreed(keys, row(1))
    place(keys).write_text(content)
    results, _changed = keys.prepare([row(1), row(2)], state="present", api_url=URL)
    assert "does not hold the credentials of coach-1; move it away" in results[0]["error"]["reason"]
    assert results[1]["key"]["made"] is True


def test_a_planted_link_is_not_followed(keys: Keys, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (Path(keys.gateway.state_dir) / "credentials").mkdir()
    place(keys).parent.symlink_to(victim)
    assert "symbolic link" in prepare(keys, row(1))["reason"]
    assert list(victim.iterdir()) == []


def test_a_key_that_was_overtaken_is_not_promoted(keys: Keys) -> None:
    first = prepare(keys, row(1))
    place(keys, PENDING).unlink()
    prepare(keys, row(1))
    assert "another run has made another one" in keys.conclude({"coach-1": first["key_id"]}, [])["coach-1"]
    assert on_disk(keys) is None


def test_plaintext_only_on_demand_and_only_while_django_does_not_know_it(keys: Keys) -> None:
    key = prepare(keys, row(1), reveal=True)
    pending = on_disk(keys, PENDING)
    assert pending is not None
    assert key["plaintext"] == pending["api_key"]
    coach = agreed(keys, row(1))
    assert prepare(keys, coach, reveal=True)["plaintext"] is None


def test_a_key_is_not_in_its_repr() -> None:
    credentials = Credentials.make("coach-1", URL, 1)
    assert credentials.api_key not in repr(credentials)
