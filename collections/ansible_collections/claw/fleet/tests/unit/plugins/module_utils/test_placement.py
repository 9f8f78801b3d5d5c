# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement: balanced, within capacity, stable, and nobody is moved."""

from __future__ import annotations

from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils._coach import check_rows
from ansible_collections.claw.fleet.plugins.module_utils._placement import Placement, place
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import row, settled


def placed(rows: list[dict[str, Any]], **capacities: int) -> Placement:
    return place(check_rows(rows), capacities)


def pks(placement: Placement) -> dict[str, list[int]]:
    for name, rows in placement.by_gateway.items():
        assert all(item["proposed_gateway"] == name for item in rows)
    return {name: [item["pk"] for item in rows] for name, rows in placement.by_gateway.items()}


def test_the_emptiest_gateway_first_then_by_name() -> None:
    rows = [settled(1, "a"), settled(2, "a"), *(row(pk) for pk in range(3, 9))]
    assert pks(placed(rows, b=10, a=10, c=10)) == {"a": [1, 2, 7], "b": [3, 5, 8], "c": [4, 6]}


def test_a_new_coach_at_the_end_moves_nobody() -> None:
    rows = [row(pk) for pk in range(1, 40)]
    before = {pk: name for name, found in pks(placed(rows, a=50, b=7, c=20)).items() for pk in found}
    after = {
        pk: name for name, found in pks(placed([*rows, row(40)], a=50, b=7, c=20)).items() for pk in found
    }
    assert {pk: after[pk] for pk in before} == before


def test_claimed_coaches_stay_also_over_capacity() -> None:
    rows = [settled(pk, "a") for pk in range(1, 6)] + [row(6)]
    assert pks(placed(rows, a=2, b=1)) == {"a": [1, 2, 3, 4, 5], "b": [6]}


def test_paused_coaches_take_a_place_and_removed_ones_get_none() -> None:
    rows = [
        row(1, wanted="paused"),
        row(2, wanted="removed", status="removed", observed_generation=1),
        row(3),
    ]
    assert pks(placed(rows, a=1, b=1)) == {"a": [1], "b": [3]}


def test_somebody_settles_a_coach_who_is_wanted_removed_and_was_never_claimed() -> None:
    assert pks(placed([row(1, wanted="removed"), row(2)], a=1)) == {"a": [1, 2]}


def test_rows_in_error_are_delivered_and_take_no_place() -> None:
    rows = [row(1, name="a\nb"), row(2), settled(3, "b", name=None), row(4)]
    assert pks(placed(rows, a=1, b=1)) == {"a": [1, 2], "b": [3, 4]}


def test_a_gateway_that_is_not_ours_keeps_its_coaches() -> None:
    placement = placed([settled(1, "x"), settled(2, "x", name=None), row(3)], a=5)
    assert pks(placement) == {"a": [3]}
    assert [item["pk"] for item in placement.strangers["x"]] == [1, 2]


def test_a_full_fleet_tells_who_has_no_place() -> None:
    placement = placed([row(pk) for pk in range(1, 8)], a=2, b=3)
    assert pks(placement) == {"a": [1, 3], "b": [2, 4, 5]}
    assert [item["pk"] for item in placement.homeless] == [6, 7]
    assert not placement.waiting


def test_a_place_that_is_being_left_is_waited_for() -> None:
    placement = placed([settled(1, "a", wanted="removed"), row(2), row(3)], a=1)
    assert pks(placement) == {"a": [1]}
    assert [item["pk"] for item in placement.waiting] == [2]
    assert [item["pk"] for item in placement.homeless] == [3]


def test_no_gateways() -> None:
    placement = placed([row(1), row(2, name=None), row(3, wanted="removed")])
    assert placement.by_gateway == {}
    assert [item["pk"] for item in placement.homeless] == [1]
