# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which gateway each coach is on, or should be.

PRIVATE to claw.fleet: may change at any time.

A coach who is claimed stays where she is, also on a gateway that is over its capacity. One whom nobody holds
is proposed to the gateway with the fewest coaches, the first by name among equals, in the order of the list.
So the same list gives the same proposals, and a coach who is added at its end changes nobody else's.

Pure: no files, no network.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils._coach import Row, has_error, settled_status


class Placement(NamedTuple):
    """The rows of each gateway, with "proposed_gateway" in them, and those for whom there is none.

    ``strangers``: by gateway that is not among ours, the coaches it holds. ``waiting``: coaches whose place
    is still being left by somebody else. ``homeless``: coaches for whom the fleet has no place.
    """

    by_gateway: dict[str, list[Row]]
    strangers: dict[str, list[Row]]
    waiting: list[Row]
    homeless: list[Row]


def place(rows: Iterable[Row], capacities: Mapping[str, int]) -> Placement:
    """Give every row of a checked list its gateway, in the row itself; ``capacities`` are ours, by name.

    Rows in error take no place. They go to the gateway that holds them, else to the first, so that somebody
    writes down what is wrong with them; so do coaches who are wanted removed and whom nobody holds.
    """
    by_gateway: dict[str, list[Row]] = {name: [] for name in sorted(capacities)}
    first = next(iter(by_gateway), None)
    held = dict.fromkeys(by_gateway, 0)
    strangers: dict[str, list[Row]] = {}
    unplaced: list[Row] = []
    leaving = 0

    def give(row: Row, gateway: str | None) -> None:
        if gateway is not None:
            row["proposed_gateway"] = gateway
            by_gateway[gateway].append(row)

    for row in rows:
        holder = row["gateway"]
        if holder is not None and holder not in by_gateway:
            strangers.setdefault(holder, []).append(row)
        elif has_error(row):
            give(row, holder or first)
        elif holder is not None:
            held[holder] += 1
            leaving += row["wanted"] == "removed"
            give(row, holder)
        elif row["wanted"] != "removed":
            unplaced.append(row)
        elif row["status"] != settled_status("removed"):
            give(row, first)

    room = [(count, name) for name, count in held.items() if count < capacities[name]]
    heapq.heapify(room)
    left: list[Row] = []
    for row in unplaced:
        if not room:
            left.append(row)
            continue
        count, name = room[0]
        give(row, name)
        if count + 1 < capacities[name]:
            heapq.heapreplace(room, (count + 1, name))
        else:
            heapq.heappop(room)
    return Placement(by_gateway, strangers, left[:leaving], left[leaving:])
