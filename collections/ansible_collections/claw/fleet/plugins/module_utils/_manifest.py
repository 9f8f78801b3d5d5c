# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fleet remembers about a gateway's agents between runs, out of the agents' reach.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway


class ManifestError(Exception):
    """The manifest cannot be read; str() is a plain sentence."""


class Manifest:
    """The manifest of one gateway. Whoever loads it to save it holds the gateway's lock.

    ``files``: {agent id: {path in the workspace: sha256 hashes of what the fleet wrote, newest first}}.
    ``removing``: {agent id: stamp of the removal} for removals that are not complete.
    ``activated``: ids of agents that have answered their first message.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.path = Path(gateway.config_dir) / "manifest.json"
        self._saved = _durable.read(self.path)
        found: Any = {}
        if self._saved is not None:
            found = None
            with suppress(ValueError):
                found = json.loads(self._saved)
        if not isinstance(found, dict):
            raise ManifestError(
                f"{self.path} does not hold a manifest. Restore it from a backup; or remove it, then every "
                "file of the fleet that differs from its template counts as changed by somebody"
            )
        self.files: dict[str, dict[str, list[str]]] = found.get("agents") or {}
        self.removing: dict[str, str] = found.get("removing") or {}
        self.activated: set[str] = set(found.get("activated") or [])

    def forget(self, agent_id: str) -> None:
        """Remember nothing of an agent any more."""
        self.files.pop(agent_id, None)
        self.removing.pop(agent_id, None)
        self.activated.discard(agent_id)

    def is_saved(self) -> bool:
        """Whether it is as it is on disk."""
        return self._encoded() == self._saved

    def save(self) -> None:
        """Write it durably if it differs from what is on disk."""
        encoded = self._encoded()
        if encoded == self._saved:
            return
        owner = _durable.Owner(os.geteuid(), os.getegid())
        _durable.write(self.path, encoded, mode=0o600, owner=owner)
        self._saved = encoded

    def _encoded(self) -> bytes:
        data = {"agents": self.files, "removing": self.removing, "activated": sorted(self.activated)}
        return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()
