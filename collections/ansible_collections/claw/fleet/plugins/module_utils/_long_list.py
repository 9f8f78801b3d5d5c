# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a list of fifty thousand coaches cost seconds less: how it is kept, and how it is held in memory.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils import _coach, _columns
from ansible_collections.claw.fleet.plugins.module_utils._coach import FIELDS, Row


@contextmanager
def none_is_garbage() -> Iterator[None]:
    """Keep Python's collector off what is made here: rows all stay, and to look at each of them again and again
    costs as much as to check them. Frozen, they are not copied by the processes that Ansible forks either."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def fingerprint(*asked: object) -> str:
    """What a list depends on, in short: what was asked for, and the rules by which its rows were checked and kept."""
    files = (_coach.__file__, _columns.__file__, __file__)
    rules = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]
    return hashlib.sha256(json.dumps([rules, *asked], sort_keys=True, default=str).encode()).hexdigest()


def pack(mark: str, etag: str, rows: list[Row]) -> dict[str, str]:
    """Checked rows as Ansible's caches keep them best: as one text, short and without quotes. Ansible looks for
    marks of its own in each value, and writes JSON within JSON; that takes longer than the rest of an inventory.

    By columns, because the names of the fields are a third of what there would be to read, and most values of half of them
    are the same for nearly all coaches.
    """
    columns = {field: _short([row[field] for row in rows]) for field in FIELDS}
    errors = [(number, row["error"]) for number, row in enumerate(rows) if "error" in row]
    data = zlib.compress(json.dumps([len(rows), columns, errors]).encode(), level=1)
    return {"fingerprint": mark, "etag": etag, "rows": base64.b64encode(data).decode()}


def unpack(kept: Any, mark: str) -> tuple[str, list[Row]]:
    """The ETag and the checked rows of what was packed with the same fingerprint; else "" and none."""
    with suppress(KeyError, TypeError, ValueError, zlib.error):
        if kept["fingerprint"] == mark:
            count, short, errors = json.loads(zlib.decompress(base64.b64decode(kept["rows"])))
            columns = [_long(column, count) for column in short.values()]
            rows = [dict(zip(short, values, strict=True)) for values in zip(*columns, strict=True)]
            for number, error in errors:
                rows[number]["error"] = error
            return kept["etag"], rows
    return "", []


def _short(values: list[Any]) -> list[Any] | dict[str, Any]:
    """A column, as its usual value and the others by number where that is less."""
    try:
        usual, times = Counter(values).most_common(1)[0]
    except (TypeError, IndexError):
        return values
    if times < len(values) / 2:
        return values
    return {
        "usual": usual,
        "others": [(number, value) for number, value in enumerate(values) if value != usual],
    }


def _long(column: list[Any] | dict[str, Any], count: int) -> list[Any]:
    if isinstance(column, list):
        return column
    values = [column["usual"]] * count
    for number, value in column["others"]:
        values[number] = value
    return values
