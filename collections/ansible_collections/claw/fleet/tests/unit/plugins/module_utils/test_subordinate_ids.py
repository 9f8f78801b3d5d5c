# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ids for containers: one range a user, nobody's twice, and nothing written where it is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _subordinate_ids
from ansible_collections.claw.fleet.plugins.module_utils._subordinate_ids import (
    FIRST,
    LAST,
    Range,
    SubordinateIdsError,
    ensure,
    free,
    parse,
)

MANY = 65536
Ran = list[list[str]]


def usermod_of(place: Path, patch: pytest.MonkeyPatch) -> Ran:
    """The commands that are to be run, on a machine whose files are there; they are done as usermod does them."""
    files = {"--add-subuids": place / "subuid", "--add-subgids": place / "subgid"}
    patch.setattr(_subordinate_ids, "FILES", tuple(files.values()))
    patch.setattr(_subordinate_ids, "LOCK", place / "lock")
    commands: Ran = []

    def run(command: Sequence[str], _place: Path, _environment: object) -> str:
        commands.append(list(command))
        _usermod, *words, user = command
        for option, span in zip(words[::2], words[1::2], strict=True):
            first, _dash, last = span.partition("-")
            with files[option].open("a") as text:
                text.write(f"{user}:{first}:{int(last) - int(first) + 1}\n")
        return ""

    patch.setattr(_subordinate_ids._command, "run", run)
    return commands


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """The commands, on a machine with one person."""
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text(f"operator:{FIRST}:{MANY}\n")
    return usermod_of(tmp_path, monkeypatch)


def test_a_user_gets_what_is_free_in_both_files_once(ran: Ran, tmp_path: Path) -> None:
    with (tmp_path / "subgid").open("a") as text:
        text.write(f"other:{FIRST + MANY}:{MANY}\n")
    span = f"{FIRST + 2 * MANY}-{FIRST + 3 * MANY - 1}"
    assert ensure("claw-a", MANY, check=False) == [str(tmp_path / "subuid"), str(tmp_path / "subgid")]
    assert ran == [["usermod", "--add-subuids", span, "--add-subgids", span, "claw-a"]]
    assert ensure("claw-a", MANY, check=False) == []
    assert len(ran) == 1


def test_a_check_writes_nothing(ran: Ran, tmp_path: Path) -> None:
    assert ensure("claw-a", MANY, check=True) == [str(tmp_path / "subuid"), str(tmp_path / "subgid")]
    assert ran == []


def test_a_range_that_is_too_small_is_none(ran: Ran) -> None:
    assert ensure("operator", MANY, check=True) == []
    assert ensure("operator", MANY + 1, check=True) != []
    assert ran == []


def test_lines_that_are_no_ranges_are_nobodys() -> None:
    assert parse("a:1:2\n\n# note\nb:x:2\nc:3\n") == [Range("a", 1, 2)]


def test_where_nothing_is_left_it_is_said() -> None:
    with pytest.raises(SubordinateIdsError, match="users that are gone"):
        free([Range("a", LAST - 10, 5)], MANY)
