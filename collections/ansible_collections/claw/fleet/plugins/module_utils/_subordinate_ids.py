# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ids that a user may give to whoever is in a container of theirs, as /etc/subuid and /etc/subgid have them.

PRIVATE to claw.fleet: may change at any time.

useradd gives them to people alone, and an engine needs them of its own user, which is a system's. The programs of Debian
(package passwd) write the files; which range is free is found here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import _command, _durable

FILES = (Path("/etc/subuid"), Path("/etc/subgid"))
LOCK = Path("/run/lock/claw-subordinate-ids")
FIRST = 100000
"""Below it are ids of real users (login.defs, SUB_UID_MIN)."""
LAST = 600100000


class SubordinateIdsError(Exception):
    """There is no range to give, or it could not be written down; str() says what happened and what to do."""


class Range(NamedTuple):
    """So many ids from the first one on, and whose they are."""

    owner: str
    first: int
    size: int


def parse(text: str) -> list[Range]:
    """The ranges of a file; what is not one is nobody's."""
    found = []
    for line in text.splitlines():
        owner, _colon, rest = line.partition(":")
        first, _colon, count = rest.partition(":")
        if first.isdecimal() and count.isdecimal():
            found.append(Range(owner, int(first), int(count)))
    return found


def free(taken: Sequence[Range], count: int) -> int:
    """The first id of a range that nobody has."""
    first = max([FIRST, *(one.first + one.size for one in taken)])
    if first + count - 1 > LAST:
        raise SubordinateIdsError(
            f"there are no {count} ids left between {FIRST} and {LAST}: take ranges of users that are gone out of "
            f"{' and '.join(map(str, FILES))}"
        )
    return first


def ensure(user: str, count: int, *, check: bool) -> list[str]:
    """Have that many of both kinds for a user in one range each; the files that were changed, or would be."""
    if not check:
        LOCK.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if check else _durable.lock(LOCK):
        ranges = {file: parse((_durable.read(file) or b"").decode("utf-8", "replace")) for file in FILES}
        lacking = [
            file for file in FILES if not any(one.owner == user and one.size >= count for one in ranges[file])
        ]
        if not lacking:
            return []
        # The same in both, for whoever reads them; so it has to be free in both.
        first = free([one for file in FILES for one in ranges[file]], count)
        if not check:
            _give(user, first, count, lacking)
        return [str(file) for file in lacking]


def _give(user: str, first: int, count: int, lacking: Sequence[Path]) -> None:
    option = {FILES[0]: "--add-subuids", FILES[1]: "--add-subgids"}
    words = [word for file in lacking for word in (option[file], f"{first}-{first + count - 1}")]
    try:
        _command.run(["usermod", *words, user], Path("/"), os.environ)
    except _command.CommandError as error:
        raise SubordinateIdsError(f"{user} got no ids for containers: {error}") from error
