# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a text is an address or a network."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable


def network(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address, or a network of such."""
    # Whoever reads them here knows neither masks nor zones.
    if not isinstance(text, str) or "%" in text or not f"0{text.partition('/')[2]}".isdecimal():
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


class TestModule:
    """What Ansible finds here."""

    def tests(self) -> dict[str, Callable[[str], bool]]:
        """By name."""
        return {"network": network}
