# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tools of a gateway's agents run in, as its descriptor says, and as a roster entry has it.

PRIVATE to claw.fleet: may change at any time.

It stands in the roster rather than in the gateway's own config because a roster can change without a restart, and because
a gateway cannot write it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayError

GUARD = "claw-fleet-guard"
"""The plugin that refuses what the fleet has not named."""
KEYS = frozenset({"sandbox", "tools"})
"""What an entry has of it."""

_SCRATCH = ("/tmp", "/var/tmp", "/run")  # noqa: S108 - of the container, in memory
# Podman has its own at /run, where it brings what OpenClaw ends processes with.
_SCRATCH_OF_PODMAN = _SCRATCH[:2]
# Of a rootless engine who is not root is told by number, and is the gateway's user outside.
_USER_OF_PODMAN = "1000:1000"
MARK = "CLAW_SANDBOX"
"""The variable in a container that says what it was made of."""


@dataclass(frozen=True)
class Sandbox:
    """The sandbox of each agent of a gateway. The fields are those of the descriptor.

    ``image``: with its tag; ``memory``: in the engine's words, as "512m"; ``cpus``: as many of them; ``pids``: processes
    and threads; ``file_bytes``: how large a file may become; ``scratch``: the size of each place in memory, as "64m";
    ``tools``: OpenClaw's names; ``credentials_dir``: where the directory with the coach's key is seen, below /run; ``idle_hours``,
    ``age_days``: after which it is taken away until the next turn.
    """

    engine: str
    docker_host: str
    image: str
    network: str
    dns: list[str]
    memory: str
    cpus: float
    pids: int
    file_bytes: int
    scratch: str
    tools: list[str]
    credentials_dir: str
    idle_hours: int
    age_days: int

    @property
    def rootless(self) -> bool:
        """Whether it is of an engine of the gateway's own user."""
        return self.engine == "podman"

    @property
    def scratch_places(self) -> tuple[str, ...]:
        """What of the container is in memory and has `scratch` as its limit."""
        return _SCRATCH_OF_PODMAN if self.rootless else _SCRATCH

    @property
    def mark(self) -> str:
        """What tells a container that is like this from one that was made of another descriptor."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def load(cls, gateway: Gateway) -> Sandbox | None:
        """As the gateway's descriptor says; None if its agents have no tools."""
        path = descriptor(gateway)
        data = _durable.read(path)
        if data is None:
            return None
        try:
            return cls.of(json.loads(data))
        except (ValueError, TypeError) as error:
            raise GatewayError(f"{path}: {error}; run the role claw.fleet.sandbox again") from error

    @classmethod
    def of(cls, descriptor: Mapping[str, Any]) -> Sandbox:
        """Of a descriptor; ValueError if it lacks something."""
        wanted = [field.name for field in fields(cls)]
        missing = [name for name in wanted if name not in descriptor]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return cls(**{name: descriptor[name] for name in wanted})

    def entry(self, gateway: Gateway, agent_id: str) -> dict[str, Any]:
        """What the agent's roster entry has of it."""
        state = Path(gateway.state_dir)
        return {
            "sandbox": {
                "mode": "all",
                "backend": self.engine,
                "scope": "agent",
                "workspaceAccess": "rw",
                "sessionToolsVisibility": "spawned",
                "prune": {"idleHours": self.idle_hours, "maxAgeDays": self.age_days},
                "docker": {
                    "image": self.image,
                    "containerPrefix": f"claw-{gateway.name}-",
                    "network": self.network,
                    "dns": list(self.dns),
                    "readOnlyRoot": True,
                    "capDrop": ["ALL"],
                    "tmpfs": [f"{place}:size={self.scratch},mode=1777" for place in self.scratch_places],
                    "env": {MARK: self.mark},
                    "memory": self.memory,
                    "memorySwap": self.memory,
                    "cpus": self.cpus,
                    "pidsLimit": self.pids,
                    "ulimits": {"fsize": {"soft": self.file_bytes, "hard": self.file_bytes}},
                    # The directory, since a file that is bound keeps what it was when its key is changed; and by way
                    # of the link /var/run, because what is mounted behind a link OpenClaw leaves to exec: its tools
                    # for files do not reach it.
                    "binds": [f"{state / 'credentials' / agent_id}:/var{self.credentials_dir}:ro"],
                    "dangerouslyAllowExternalBindSources": True,
                    **({"user": _USER_OF_PODMAN} if self.rootless else {}),
                },
            },
            "tools": {
                "allow": list(self.tools),
                "sandbox": {"tools": {"allow": list(self.tools)}},
                "exec": {"host": "sandbox", "mode": "allowlist"},
                "fs": {"workspaceOnly": True},
            },
        }


def descriptor(gateway: Gateway) -> Path:
    """Where it is written what the gateway's agents run their tools in."""
    return Path(gateway.config_dir) / "sandbox.json"


def is_guarded(gateway: Gateway) -> bool | None:
    """Whether a gateway has loaded the plugin that guards its agents' tools; None if it does not run, or is not ready.

    OpenClaw goes on without a plugin that does not load, and says so only where it is asked.
    """
    if not gateway.unit_state().running or not gateway.ready():
        return None
    return GUARD in ((gateway.rpc("health").get("plugins") or {}).get("loaded") or [])


def refuse_unguarded(gateway: Gateway) -> None:
    """Raise GatewayError if a gateway runs without that plugin."""
    if is_guarded(gateway) is False:
        raise GatewayError(
            f"gateway {gateway.name} runs without its plugin {GUARD}, so nobody is given tools. Run the role "
            f"claw.fleet.gateway for it, and look at journalctl -u {gateway.unit} if that does not help"
        )
