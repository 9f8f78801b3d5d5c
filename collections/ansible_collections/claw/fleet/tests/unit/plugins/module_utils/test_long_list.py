# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A list in a cache comes back as it was, or not at all."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _long_list
from ansible_collections.claw.fleet.plugins.module_utils._coach import check_rows
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import row

MARK = _long_list.fingerprint("https://app.example.com/", {}, {})


def test_what_is_packed_survives_a_cache_and_comes_back_as_it_was() -> None:
    rows = check_rows([row(1, name="Zoë", vars={"a": [1.5, None, {"b": "\U0001f600"}]}), row(2, name="")])
    assert "error" in rows[1]
    kept = json.loads(json.dumps(_long_list.pack(MARK, '"e"', rows)))
    assert _long_list.unpack(kept, MARK) == ('"e"', rows)


@pytest.mark.parametrize("paused", [(), (1,), (0, 2, 4), (0, 1, 2, 3, 4)])
def test_columns_of_nearly_equal_values_come_back_as_they_were(paused: tuple[int, ...]) -> None:
    rows = check_rows(
        [
            row(number + 1, agent_id=f"coach-{number}", wanted="paused" if number in paused else "running")
            for number in range(5)
        ]
    )
    assert _long_list.unpack(_long_list.pack(MARK, "", rows), MARK) == ("", rows)


def test_what_was_asked_for_otherwise_is_another_list() -> None:
    kept = _long_list.pack(MARK, '"e"', [])
    for asked in (("https://other.example.com/", {}, {}), ("https://app.example.com/", {"fleet": "x"}, {})):
        assert _long_list.unpack(kept, _long_list.fingerprint(*asked)) == ("", [])
    assert _long_list.fingerprint("https://app.example.com/", {}, {}) == MARK


@pytest.mark.parametrize(
    "kept",
    [
        None,
        [],
        {},
        {"fingerprint": MARK},
        {"fingerprint": MARK, "etag": '"e"', "rows": [{"pk": 1}]},
        {"fingerprint": MARK, "etag": '"e"', "rows": "not base64"},
        {"fingerprint": MARK, "etag": '"e"', "rows": "bm90IHBhY2tlZA=="},
    ],
)
def test_what_another_version_or_nobody_packed_is_nothing(kept: Any) -> None:
    assert _long_list.unpack(kept, MARK) == ("", [])


def test_the_collector_is_as_it_was_also_after_a_failure() -> None:
    with _long_list.none_is_garbage():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="as ever"), _long_list.none_is_garbage():
        raise ValueError("as ever")
    assert gc.isenabled()
    gc.disable()
    try:
        with _long_list.none_is_garbage():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
