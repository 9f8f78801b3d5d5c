# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends the sandboxes whose workspace holds more than one may: workspaces.py DOCKER_HOST BYTES FILES SECONDS

It looks every SECONDS. A sandbox that was ended comes back at its agent's next turn, and is ended again while the
workspace is as full. Nothing in a workspace is touched.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

import docker

_LABEL = "openclaw.sandbox=1"
_PLACE = "/workspace"
_LOG = logging.getLogger("workspaces")


def main(docker_host: str, most_bytes: int, most_files: int, seconds: float) -> None:
    """Look, again and again."""
    client = docker.DockerClient(base_url=docker_host)
    while True:
        for container in client.containers.list(filters={"label": _LABEL}, ignore_removed=True):
            for source in _workspaces(container.attrs):
                try:
                    held = holds(Path(source), most_bytes, most_files)
                except PermissionError as error:
                    sys.exit(f"Nobody watches what workspaces hold, as this may not read them: {error}")
                if held is not None:
                    _LOG.warning("%s holds %s; its sandbox is ended. Make room in it.", source, held)
                    _end(container)
        time.sleep(seconds)


def holds(workspace: Path, most_bytes: int, most_files: int) -> str | None:
    """What it holds too much of, in words, or None. PermissionError where it is not ours, and we lack the right to look."""
    count = used = 0
    left = [workspace]
    while left:
        place = left.pop()
        try:
            entries = list(os.scandir(place))
        except PermissionError:
            if place == workspace and place.stat().st_uid != os.geteuid():
                raise
            # Whoever looks as its owner can be shut out by it, and whatever is in it would not count.
            return "a directory that is shut"
        except OSError:
            # It went away meanwhile.
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            count, used = count + 1, used + found.st_blocks * 512
            if entry.is_dir(follow_symlinks=False):
                left.append(Path(entry.path))
        if used > most_bytes:
            return f"more than {most_bytes} bytes"
        if count > most_files:
            return f"more than {most_files} files"
    return None


def _workspaces(attributes: dict[str, list[dict[str, str]]]) -> list[str]:
    return [mount["Source"] for mount in attributes["Mounts"] if mount["Destination"] == _PLACE]


def _end(container: docker.models.containers.Container) -> None:
    try:
        container.kill()
    except docker.errors.APIError as error:
        _LOG.warning("%s could not be ended: %s", container.name, error)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
