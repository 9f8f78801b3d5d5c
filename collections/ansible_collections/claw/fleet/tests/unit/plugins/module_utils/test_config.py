# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The merge of what was applied, what is there and what is wanted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _config
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.one_of(st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2), st.none())
CONFIGS = st.dictionaries(
    st.sampled_from("abcd"),
    st.recursive(
        VALUES, lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4), max_leaves=12
    ),
    max_size=4,
)


@pytest.mark.parametrize(
    ("applied", "current", "wanted", "result"),
    [
        ({}, {}, {"a": 1}, {"a": 1}),
        ({}, {"meta": {"at": 1}}, {"a": 1}, {"meta": {"at": 1}, "a": 1}),
        ({"a": 1}, {"a": 1, "b": 2}, {}, {"b": 2}),
        ({"a": 1}, {"a": 5}, {}, {}),
        ({"a": 1}, {"a": 5}, {"a": 1}, {"a": 1}),
        ({"g": {"a": 1}}, {"g": {"a": 1, "own": 2}}, {"g": {}}, {"g": {"own": 2}}),
        ({"g": {"a": 1}}, {"g": {"a": 1}}, {}, {}),
        ({"g": {"a": 1}}, {"g": {"a": 1, "own": 2}}, {}, {"g": {"own": 2}}),
        ({"g": 1}, {"g": {"own": 2}}, {"g": 1}, {"g": 1}),
        ({}, {"g": 1}, {"g": {"a": 1}}, {"g": {"a": 1}}),
        ({"deny": ["*"]}, {"deny": ["*", "x"]}, {"deny": ["*"]}, {"deny": ["*"]}),
    ],
)
def test_merge(
    applied: dict[str, Any], current: dict[str, Any], wanted: dict[str, Any], result: dict[str, Any]
) -> None:
    assert _config.merge(applied, current, wanted) == result


def holds(config: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return bool(config == wanted)
    return isinstance(config, dict) and all(
        key in config and holds(config[key], value) for key, value in wanted.items()
    )


@given(CONFIGS, CONFIGS, CONFIGS)
def test_a_merge_holds_what_is_wanted_and_settles(
    applied: dict[str, Any], current: dict[str, Any], wanted: dict[str, Any]
) -> None:
    merged = _config.merge(applied, current, wanted)
    assert holds(merged, wanted)
    assert _config.merge(wanted, merged, wanted) == merged


@given(CONFIGS, CONFIGS, CONFIGS)
def test_after_an_attempt_cut_short_nothing_of_ours_is_taken_for_somebody_elses(
    applied: dict[str, Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    known = _config.union(applied, first)
    for left in (applied, first):
        assert _config.merge(known, left, second) == _config.merge(left, left, second)


def test_literal_secrets_are_not_shown() -> None:
    config = {
        "auth": {"token": "geheim", "password": "geheim"},
        "models": {"providers": {"x": {"apiKey": "geheim", "models": [{"maxTokens": 5}]}}},
        "secrets": {"providers": {"gwtoken": {"source": "file", "path": "/p"}}},
        "ref": {"token": {"source": "file", "id": "value"}},
    }
    shown = _config.shown(config)
    assert "geheim" not in json.dumps(shown)
    assert shown["ref"] == config["ref"]
    assert shown["models"]["providers"]["x"]["models"] == [{"maxTokens": 5}]
    assert config["auth"]["token"] == "geheim"
