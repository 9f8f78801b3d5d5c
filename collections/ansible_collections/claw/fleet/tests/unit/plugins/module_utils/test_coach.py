# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows: what passes is harmless, what does not is one coach's error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils._coach import (
    FIELDS,
    CoachListError,
    check_rows,
    gateway_name,
    is_due,
    needs_activation,
    shown,
)
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import row, settled


@pytest.mark.parametrize(
    "name",
    [
        "{{ 7*7 }}",
        "{% raw %}",
        'O\'Neil "the" $(reboot) `id`',
        "ענת",
        "مها",
        "👩‍👧",
        "\u202eevil",
        "a" * 200,
        "!unsafe x",
    ],
)
def test_names_are_data(name: str) -> None:
    [checked] = check_rows([row(1, name=name)])
    assert checked["name"] == name
    assert "error" not in checked


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("agent_id", "Coach-Anna", "1 to 64 of the characters"),
        ("agent_id", "coach-anna\n", r"'coach-anna\n'"),
        ("agent_id", "../../etc", "'../../etc'"),
        ("agent_id", "-x", "not begin with -"),
        ("agent_id", "x" * 65, "(65 characters)"),
        ("agent_id", "", "''"),
        ("agent_id", None, "None"),
        ("agent_id", ["a"], "a value of type list"),
        ("agent_id", "main", "keeps for itself"),
        ("name", "a\nb", r"'a\nb'; it must be one line"),
        ("name", "a\u2028b", "one line"),
        ("name", "half \ud800", "one line"),
        ("name", "x" * 4096, "(4096 characters)"),
        ("name", "  ", "1 to 200"),
        ("name", None, "1 to 200"),
        ("name", 7, "name is 7"),
        ("wanted", "gone", "running, paused, removed"),
        ("wanted", None, "running, paused, removed"),
        ("status", {}, "pending"),
        ("generation", "1", "whole number"),
        ("generation", True, "whole number"),
        ("generation", -1, "whole number"),
        ("generation", 2**70, "a number of 71 bits"),
        ("gateway", "GW A", "a gateway's name"),
        ("key_sha256", "abc", "64 hexadecimal"),
        ("vars", [], "object"),
        ("vars", {"a": float("nan")}, "holds nan"),
        ("vars", {"a": "\udfff"}, "half a character"),
        ("vars", {"__ansible_unsafe": "x"}, "__ansible"),
        ("vars", {"a": "x" * 70000}, "more than 65536"),
        ("pk", 0, "primary key"),
        ("pk", "1/../2", "primary key"),
    ],
)
def test_a_bad_value_is_that_rows_error_alone(field: str, value: object, words: str) -> None:
    bad, good = check_rows([row(1, **{field: value}), row(2)])
    assert bad["error"]["step"] == "row"
    assert field in bad["error"]["reason"]
    assert words in bad["error"]["reason"]
    assert "Correct this coach in Django" in bad["error"]["reason"]
    assert "error" not in good
    # Whatever it was, the row can now be shown, stored and sent.
    assert len(bad["error"]["reason"]) < 400
    json.dumps(bad, allow_nan=False).encode()
    bad["error"]["reason"].encode()
    bad["agent_id"].encode()


def test_deep_vars_are_refused_without_deep_recursion() -> None:
    deep: Any = {}
    for depth in range(900):
        deep = {str(depth): deep}
    [bad] = check_rows([row(1, vars=deep)])
    assert "deep" in bad["error"]["reason"]


def test_every_bad_field_is_named() -> None:
    [bad] = check_rows([{"pk": 4}])
    for field in ("agent_id", "name", "wanted", "generation", "status"):
        assert f"{field} is None" in bad["error"]["reason"]
    assert set(FIELDS) <= set(bad)


def test_what_the_fleet_has_not_written_yet_may_be_missing() -> None:
    given = {field: row(1)[field] for field in ("pk", "agent_id", "name", "wanted", "generation", "status")}
    [checked] = check_rows([given])
    assert checked == row(1)
    [checked] = check_rows([{**row(1), "vars": None, "reason": None, "key_id": None, "gateway": ""}])
    assert checked == row(1)


def test_a_uuid_is_a_primary_key_too() -> None:
    [checked] = check_rows([row("0b0e6f1c-6f1e-4f57-9a51-0d3a4f3f8a11", agent_id="coach-1")])
    assert "error" not in checked


def test_equal_ids_are_all_in_error_and_differing_case_only_where_the_schema_says() -> None:
    first, second, upper, lower = check_rows(
        [
            row(1, agent_id="anna"),
            row(2, agent_id="anna"),
            row(3, agent_id="Berta"),
            row(4, agent_id="berta"),
        ]
    )
    assert "also that of the coach with pk 2" in first["error"]["reason"]
    assert "also that of the coach with pk 1" in second["error"]["reason"]
    assert "characters a-z" in upper["error"]["reason"]
    assert "error" not in lower


def test_an_earlier_error_stays() -> None:
    [checked] = check_rows([row(1, name=None, error={"step": "key", "reason": "disk full"}, actions=["x"])])
    assert checked["error"] == {"step": "key", "reason": "disk full"}
    assert checked["actions"] == ["x"]


def test_checking_twice_changes_nothing() -> None:
    once = check_rows([row(1), row(2, name="a\nb"), row(3, agent_id="a"), row(4, agent_id="a")])
    assert check_rows(once) == once


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"a": 1}, "must be a list"),
        ([row(1), "x"], "Row 2 of the list"),
        ([row(1), {"name": "x"}], "neither a usable pk"),
        ([row(1), row(1, agent_id="other")], "pk 1 appears twice"),
    ],
)
def test_a_fault_of_the_list_stops_everything(rows: object, words: str) -> None:
    with pytest.raises(CoachListError, match=words):
        check_rows(rows)


def test_due() -> None:
    assert is_due(row(1))
    assert not is_due(settled(1, "gw-a"))
    assert is_due(settled(1, "gw-a", generation=2))
    assert is_due(settled(1, "gw-a", wanted="paused"))
    assert is_due(settled(1, "gw-a", key_wanted_generation=2))
    assert not is_due(settled(1, "gw-a", wanted="removed", status="removed", key_wanted_generation=2))


def test_activation() -> None:
    assert needs_activation(row(1, status="provisioning"))
    assert needs_activation(row(1, status="activating"))
    assert not needs_activation(row(1, status="provisioning", error={"step": "key", "reason": "x"}))
    assert not needs_activation(settled(1, "gw-a"))
    assert not needs_activation(row(1, wanted="paused"))


def test_gateway_names() -> None:
    assert gateway_name("gw-a") == "gw-a"
    for bad in ("", "A", "1a", "a" * 28, "a\n", None, 3):
        with pytest.raises(ValueError, match="a gateway's name"):
            gateway_name(bad)


def test_shown_is_one_short_line() -> None:
    assert (
        shown("x\n\x1b[31m\u202e" + "y" * 5000)
        == repr("x\n\x1b[31m\u202e" + "y" * 52) + "... (5008 characters)"
    )
