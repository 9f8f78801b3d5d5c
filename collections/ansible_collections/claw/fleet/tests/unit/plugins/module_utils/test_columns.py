# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows that are looked at together: never let pass what a check of each by itself would not leave as it is."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _coach
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import row, settled
from hypothesis import given
from hypothesis import strategies as st

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 3),
    st.integers(2**63 - 1, 2**63),
    st.floats(),
    st.text(st.characters(), max_size=3),
    st.sampled_from(["", " ", "main", "none", "a" * 64, "a" * 65, "gw-a", "running", "active", "0" * 64, "\n", "\u00a0", "\ud800"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.one_of(st.text(max_size=2), st.floats()), max_size=2),
)  # fmt: skip


@pytest.mark.parametrize("field", _coach.FIELDS)
@given(data=st.data())
def test_what_a_look_lets_pass_every_check_leaves_as_it_is(field: str, data: Any) -> None:
    good = st.just(settled(1, "gw-a")[field])
    column = data.draw(st.lists(st.one_of(good, ODD), min_size=1, max_size=4))
    if _coach._LOOKS[field](column):
        for value in column:
            checked = _coach._CHECKS[field](value)
            assert (checked, type(checked)) == (value, type(value))


@pytest.mark.parametrize("field", _coach.FIELDS)
def test_a_settled_coach_is_plain_in_every_field(field: str) -> None:
    assert _coach._LOOKS[field]([settled(1, "gw-a")[field]] * 2)


def test_coaches_are_plain_unless_something_is_wrong_with_one() -> None:
    rows: list[Any] = [row(1), settled(2, "gw-a"), {**row(3), "more": "is kept"}]
    assert _coach._are_plain(rows)
    checked = _coach.check_rows(rows)
    assert checked == rows
    assert not any(one is other for one, other in zip(checked, rows, strict=True))
    for odd in ({**row(4), "name": ""}, {"pk": 4}, ["pk"], None):
        assert not _coach._are_plain([*rows, odd])
