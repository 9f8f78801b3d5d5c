# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at one field of many rows at once, where nearly all rows are as they should be.

PRIVATE to claw.fleet: may change at any time.

A look says whether a check of each value by itself would return it as it is. It may say no where one would; never the other
way round. Written so that what is done for each of fifty thousand values is done by the interpreter's own code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

Column = Sequence[Any]
Look = Callable[[Column], bool]


def whole_numbers(least: int, most: int) -> Look:
    """All are whole numbers in this range."""
    return lambda column: set(map(type, column)) == {int} and min(column) >= least and max(column) <= most


def texts(column: Column) -> bool:
    """All are plain text."""
    return set(map(type, column)) == {str} and all(map(str.isascii, column))


def lines(longest: int) -> Look:
    """All are a line of printable text, which is not blank."""
    return lambda column: (
        set(map(type, column)) == {str}
        and all(map(str.isprintable, column))
        and all(map(str.strip, column))
        and max(map(len, column)) <= longest
    )


def matching(pattern: re.Pattern[str], *but: str) -> Look:
    """All are text of this form, and none of them one of those."""
    return lambda column: (
        set(map(type, column)) == {str}
        and all(map(pattern.fullmatch, column))
        and not any(one in column for one in but)
    )


def few(check: Callable[[object], object]) -> Look:
    """What there is among them passes the check as it is; for fields that have the same few values in all rows."""

    def look(column: Column) -> bool:
        try:
            return all(check(value) == value for value in set(column))
        except (TypeError, ValueError):
            return False

    return look


def each(check: Callable[[object], object]) -> Look:
    """Each of them passes the check as it is."""

    def look(column: Column) -> bool:
        try:
            return all(check(value) is value for value in column)
        except ValueError:
            return False

    return look
