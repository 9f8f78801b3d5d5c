# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The containers that OpenClaw has made for the agents of one gateway.

PRIVATE to claw.fleet: may change at any time.

OpenClaw makes a container at an agent's first turn that needs one, and makes another where it is gone. Which agent it is
for, its mounts tell: its name is a hash, and several gateways may share an engine.

It needs the Docker SDK for Python on the machine (Debian: python3-docker).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import _engine
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway

if _engine.SDK_MISSING is None:
    import docker.errors

_LABEL = "openclaw.sandbox=1"
_WORKSPACE = "/workspace"
_CREDENTIALS = struct.Struct("3i")
"""Of who listens on a socket: process, user, group (unix(7))."""


class ContainersError(Exception):
    """The engine cannot be asked, or refuses; str() says what happened and what to do."""


class Container(NamedTuple):
    """One container: the agent it is for, the engine's ids of it and of its image, its environment.

    ``lost``: it runs, and what it has for a workspace is not the directory that is there now.
    """

    agent_id: str
    id: str
    image_id: str
    environment: dict[str, str]
    lost: bool = False


class Executed(NamedTuple):
    """How a program ended in a container, and what it said on both its streams."""

    status: int
    output: str


class Containers:
    """The containers of a gateway's agents."""

    def __init__(self, gateway: Gateway, docker_host: str) -> None:
        """Raises ContainersError where no engine answers."""
        self._workspaces = Path(gateway.state_dir) / "workspaces"
        if _engine.SDK_MISSING:
            raise ContainersError(f"the Docker SDK for Python is missing on the machine {_engine.SDK_HINT}")
        self._engine = _engine.Engine(docker_host, ContainersError)
        self._client = self._engine.client

    def all(self) -> list[Container]:
        """Those that there are, running or not."""
        with self._engine.asked_to("list its containers"):
            found = self._client.containers.list(all=True, filters={"label": _LABEL}, ignore_removed=True)
        told = (self._container(container.attrs) for container in found)
        return sorted(
            (container for container in told if container), key=lambda container: container.agent_id
        )

    def others(self, container: Container) -> list[tuple[str, str]]:
        """The ids and addresses of all other agents' sandboxes that run in this engine; an address is empty if it has none."""
        with self._engine.asked_to("list its containers"):
            found = self._client.containers.list(filters={"label": _LABEL}, ignore_removed=True)
        told = [
            (other.attrs["Id"], network.get("IPAddress") or "")
            for other in found
            for network in (other.attrs["NetworkSettings"].get("Networks") or {"": {}}).values()
        ]
        return sorted((other, address) for other, address in told if other != container.id)

    def network_mode(self, container: Container) -> str:
        """The engine's word for the kind of network that a container has."""
        with self._engine.asked_to(f"look at the network of {container.agent_id}"):
            return str(self._client.api.inspect_container(container.id)["HostConfig"]["NetworkMode"])

    def lives_in(self) -> int:
        """The network namespace of the engine itself, by number."""
        with self._engine.asked_to("say which process it is"), socket.socket(socket.AF_UNIX) as asked:
            asked.connect(self._engine.where.removeprefix("unix://"))
            pid, _user, _group = _CREDENTIALS.unpack(
                asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            return Path(f"/proc/{pid}/ns/net").stat().st_ino

    def networks(self, container: Container) -> list[dict[str, Any]]:
        """The engine's account of the networks that a container is in."""
        with self._engine.asked_to(f"look at the networks of {container.agent_id}"):
            names = self._client.api.inspect_container(container.id)["NetworkSettings"]["Networks"]
            return [self._client.api.inspect_network(name) for name in names]

    def execute(
        self,
        container_id: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        user: str = "",
        directory: str = "/",
        seconds: int = 60,
    ) -> Executed:
        """Execute something in a container, by default as its own user; status 124 or 137 where it took too long.

        With 0 ``seconds`` nothing is put before the command, which has to end by itself.
        """
        with self._engine.asked_to("execute something in a sandbox"):
            made = self._client.api.exec_create(
                container_id,
                _bounded(command, seconds),
                environment=dict(environment or {}),
                user=user,
                workdir=directory,
            )["Id"]
            output = self._client.api.exec_start(made)
            status = self._client.api.exec_inspect(made)["ExitCode"]
        return Executed(int(status or 0), (output or b"").decode("utf-8", "replace"))

    def start(self, container_id: str, command: Sequence[str], *, seconds: int) -> str:
        """Execute something beside, for that long at most; the engine's id of it, for `stop`."""
        with self._engine.asked_to("start something in a sandbox"):
            made = self._client.api.exec_create(container_id, _bounded(command, seconds))["Id"]
            self._client.api.exec_start(made, detach=True)
        return str(made)

    def stop(self, started: str) -> None:
        """End what was started. The engine has no call for that, but knows its process."""
        with self._engine.asked_to("end something in a sandbox"), contextlib.suppress(docker.errors.NotFound):
            told = self._client.api.exec_inspect(started)
            # Without a process there is 0, which would be ourselves.
            if told["Running"] and told["Pid"] > 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(told["Pid"], signal.SIGTERM)

    def image_id(self, image: str) -> str:
        """The engine's id of an image by its name; empty if it is not there."""
        with self._engine.asked_to(f"look for the image {image}"):
            try:
                return str(self._client.images.get(image).id)
            except docker.errors.ImageNotFound:
                return ""

    def remove(self, container: Container) -> None:
        """End it and take it away; it may be gone already."""
        deed = f"remove the sandbox of {container.agent_id}"
        with self._engine.asked_to(deed), contextlib.suppress(docker.errors.NotFound):
            self._client.api.remove_container(container.id, force=True, v=True)

    def _container(self, attributes: dict[str, Any]) -> Container | None:
        sources = [
            Path(mount.get("Source") or "/")
            for mount in attributes["Mounts"]
            if mount.get("Destination") == _WORKSPACE
        ]
        mine = [source.name for source in sources if source.parent == self._workspaces]
        if not mine:
            return None
        variables = (variable.partition("=") for variable in attributes["Config"].get("Env") or [])
        environment = {name: value for name, _is, value in variables}
        lost = _lost((attributes.get("State") or {}).get("Pid") or 0, self._workspaces / mine[0])
        return Container(mine[0], attributes["Id"], attributes["Image"], environment, lost)


def _lost(pid: int, workspace: Path) -> bool:
    """Whether the workspace of a process is another directory, as one that was made anew or restored is."""
    try:
        return pid > 0 and not Path(f"/proc/{pid}/root{_WORKSPACE}").samefile(workspace)
    except OSError:
        # It has ended since, or there is no workspace at all, which is another fault.
        return False


def _bounded(command: Sequence[str], seconds: int) -> list[str]:
    return [*(["/usr/bin/timeout", "--kill-after=1", str(seconds)] if seconds else []), *command]
