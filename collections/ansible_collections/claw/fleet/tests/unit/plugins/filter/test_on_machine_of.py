# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.claw.fleet.plugins.filter.on_machine_of import on_machine_of

HOSTVARS = {
    "gw-a": {"ansible_host": "192.0.2.1"},
    "gw-b": {"ansible_host": "192.0.2.2"},
    "gw-c": {"ansible_host": "192.0.2.1"},
    "192.0.2.2": {},
    "localhost": {},
}


@pytest.mark.parametrize(
    "host,here",
    [("gw-a", ["gw-c", "gw-a"]), ("gw-b", ["192.0.2.2", "gw-b"]), ("localhost", ["localhost"])],
)
def test_hosts_are_on_one_machine_by_where_they_are_reached(host: str, here: list[str]) -> None:
    assert on_machine_of(["gw-c", "192.0.2.2", "gw-b", "gw-a", "localhost"], host, HOSTVARS) == here
