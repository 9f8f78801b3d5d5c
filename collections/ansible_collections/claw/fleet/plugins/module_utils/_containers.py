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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import _engine
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway

if _engine.SDK_MISSING is None:
    import docker.errors

_LABEL = "openclaw.sandbox=1"


class ContainersError(Exception):
    """The engine cannot be asked, or refuses; str() says what happened and what to do."""


class Container(NamedTuple):
    """One container: the agent it is for, the engine's ids of it and of its image, its environment."""

    agent_id: str
    id: str
    image_id: str
    environment: dict[str, str]


class Containers:
    """The containers of a gateway's agents."""

    def __init__(self, gateway: Gateway, docker_host: str) -> None:
        """Raises ContainersError where no engine answers."""
        self._workspaces = Path(gateway.state_dir) / "workspaces"
        self._where = docker_host
        if _engine.SDK_MISSING:
            raise ContainersError(f"the Docker SDK for Python is missing on the machine {_engine.SDK_HINT}")
        try:
            self._client = _engine.connect(docker_host)
        except _engine.EngineError as error:
            raise ContainersError(str(error)) from error

    def all(self) -> list[Container]:
        """Those that there are, running or not."""
        with self._engine("list its containers"):
            found = self._client.containers.list(all=True, filters={"label": _LABEL}, ignore_removed=True)
        told = (self._container(container.attrs) for container in found)
        return sorted(
            (container for container in told if container), key=lambda container: container.agent_id
        )

    def image_id(self, image: str) -> str:
        """The engine's id of an image by its name; empty if it is not there."""
        with self._engine(f"look for the image {image}"):
            try:
                return str(self._client.images.get(image).id)
            except docker.errors.ImageNotFound:
                return ""

    def remove(self, container: Container) -> None:
        """End it and take it away; it may be gone already."""
        deed = f"remove the sandbox of {container.agent_id}"
        with self._engine(deed), contextlib.suppress(docker.errors.NotFound):
            self._client.api.remove_container(container.id, force=True, v=True)

    def _container(self, attributes: dict[str, Any]) -> Container | None:
        sources = [Path(mount.get("Source") or "/") for mount in attributes["Mounts"]]
        mine = [source.name for source in sources if source.parent == self._workspaces]
        if not mine:
            return None
        variables = (variable.partition("=") for variable in attributes["Config"].get("Env") or [])
        environment = {name: value for name, _is, value in variables}
        return Container(mine[0], attributes["Id"], attributes["Image"], environment)

    @contextlib.contextmanager
    def _engine(self, deed: str) -> Iterator[None]:
        try:
            yield
        except _engine.ERRORS as error:
            raise ContainersError(
                f"the container engine at {self._where} could not {deed}: {error}. See that it runs (systemctl status "
                "docker, or claw-podman@NAME) and run again"
            ) from error
