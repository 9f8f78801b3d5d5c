# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.test.network import network


@pytest.mark.parametrize(
    "text", ["192.0.2.1", "192.0.2.0/24", "192.0.2.7/24", "2001:db8::1", "2001:db8::/32", "::/0"]
)
def test_addresses_and_networks(text: str) -> None:
    assert network(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "300.1.1.1",
        "10.0.0.0/99",
        "2001:db8::/129",
        "example.com",
        "192.0.2.1 ",
        "10.0.0.0/255.0.0.0",
        "fe80::1%eth0",
        "10.0.0.0/",
        1,
        None,
    ],
)
def test_what_is_neither(text: Any) -> None:
    assert not network(text)
