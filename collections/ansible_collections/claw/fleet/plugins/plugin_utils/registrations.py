# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Django knows of a gateway, beside what it should know.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils._coach_api import Client


@dataclass(frozen=True)
class Registration:
    """One gateway: whether it is ``known``, and its url, capacity and token_sha256 as they are and as they should be.

    ``announced``: whether Django knows the token already as one that is on its way to be the gateway's; its rotation, or
    the gateway, says when it is.
    """

    known: bool
    before: dict[str, Any]
    wanted: dict[str, Any]
    announced: bool

    @classmethod
    def ask(
        cls, client: Client, name: str, *, url: str | None, capacity: int | None, token_sha256: str
    ) -> Registration:
        """Ask Django. What is given as None stays as it is there."""
        known = client.gateway(name) or {}
        before = {
            "url": (known.get("url") or "").rstrip("/"),
            "capacity": known.get("capacity"),
            "token_sha256": known.get("token_sha256"),
        }
        wanted = {
            "url": before["url"] if url is None else url.rstrip("/"),
            "capacity": before["capacity"] if capacity is None else capacity,
            "token_sha256": token_sha256,
        }
        announced = known.get("next_token_sha256") == token_sha256
        if announced:
            before["token_sha256"] = token_sha256
        return cls(bool(known), before, wanted, announced)

    @property
    def differs(self) -> bool:
        """Whether Django is to be told anything."""
        return not self.known or self.before != self.wanted
