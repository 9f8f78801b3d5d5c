# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.filter.on_machine_of import on_machine_of

HOSTVARS: dict[str, dict[str, Any]] = {
    "gw-a": {"ansible_host": "192.0.2.1"},
    "gw-b": {"ansible_host": "192.0.2.2"},
    "gw-c": {"ansible_host": "192.0.2.1", "ansible_port": "22"},
    "192.0.2.2": {"ansible_port": None},
    "localhost": {},
    # Behind one address: two machines, one of which has two gateways, and one that is on another's.
    "vm-1": {"ansible_host": "127.0.0.1", "ansible_port": 2201},
    "vm-1-too": {"ansible_host": "127.0.0.1", "ansible_ssh_port": "2201"},
    "vm-2": {"ansible_host": "127.0.0.1", "ansible_port": 2202},
    # One that is reached by two addresses, and two that are reached by one.
    "in": {"ansible_host": "10.0.0.7", "machine_id": "seven"},
    "out": {"ansible_host": "192.0.2.7", "ansible_port": 2222, "machine_id": "seven"},
    "left": {"ansible_host": "192.0.2.8", "machine_id": 1},
    "right": {"ansible_host": "192.0.2.8", "machine_id": 2},
    "unsaid": {"ansible_host": "192.0.2.8", "machine_id": ""},
}


@pytest.mark.parametrize(
    "host,here",
    [
        ("gw-a", ["gw-a", "gw-c"]),
        ("gw-b", ["gw-b", "192.0.2.2"]),
        ("192.0.2.2", ["gw-b", "192.0.2.2"]),
        ("localhost", ["localhost"]),
        ("vm-1", ["vm-1", "vm-1-too"]),
        ("vm-2", ["vm-2"]),
        ("in", ["in", "out"]),
        ("left", ["left"]),
        ("right", ["right"]),
        ("unsaid", ["unsaid"]),
    ],
)
def test_hosts_are_on_one_machine_by_where_they_are_reached(host: str, here: list[str]) -> None:
    assert on_machine_of(HOSTVARS, host, HOSTVARS) == here
    assert on_machine_of(reversed(HOSTVARS), host, HOSTVARS) == here[::-1]
