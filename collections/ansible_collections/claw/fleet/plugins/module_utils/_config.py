# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway's own config as data: the three-way merge, and how it is shown. Nothing here touches a file.

PRIVATE to claw.fleet: may change at any time.

The config has two writers: we render what we want, and the gateway adds keys of its own. So there are three
documents: what we applied last, what the file holds now, and what we want.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_SECRET_NAME = re.compile(r"(token|password|secret|api_?key)$", re.IGNORECASE)
HIDDEN = "VALUE HIDDEN"


def merge(
    applied: Mapping[str, Any], current: Mapping[str, Any], wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """What the file should hold.

    What we want is there as we want it, whoever changed it. What we applied and no longer want goes. What is
    neither was written by somebody else and stays. Lists are values: one is never mixed with another.
    """
    result: dict[str, Any] = {}
    for key, value in current.items():
        if key not in wanted and key not in applied:
            result[key] = value
        elif key in wanted and not isinstance(wanted[key], Mapping):
            result[key] = wanted[key]
        elif key in wanted:
            result[key] = merge(_mapping(applied.get(key)), _mapping(value), wanted[key])
        elif isinstance(value, Mapping) and isinstance(applied[key], Mapping):
            rest = merge(applied[key], value, {})
            if rest:
                result[key] = rest
    for key, value in wanted.items():
        if key not in result:
            result[key] = value
    return result


def union(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Every key of both, at every depth: what may have been applied when an attempt was cut short.

    Where one has keys and the other a plain value, the keys count: a merge drops a plain value of ours anyway.
    """
    result = dict(first)
    for key, value in second.items():
        known = result.get(key)
        nested = isinstance(known, Mapping) or isinstance(value, Mapping)
        result[key] = union(_mapping(known), _mapping(value)) if nested else value
    return result


def render(config: Mapping[str, Any]) -> bytes:
    """The bytes of the file."""
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def shown(config: Any, name: str = "") -> Any:
    """The config as it may be shown to people: literal secrets hidden, references to secrets as they are."""
    if isinstance(config, Mapping):
        return {key: shown(value, key) for key, value in config.items()}
    if isinstance(config, list):
        return [shown(value, name) for value in config]
    if isinstance(config, str) and _SECRET_NAME.search(name):
        return HIDDEN
    return config


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
