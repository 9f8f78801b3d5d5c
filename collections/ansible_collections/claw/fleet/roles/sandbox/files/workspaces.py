# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends the sandboxes that fill the machine's disk: workspaces.py DOCKER_HOST BYTES FILES RESERVE SECONDS

It looks every SECONDS. A sandbox whose workspace holds more than BYTES or FILES is ended; it comes back at its agent's next
turn, and is ended again while the workspace is as full. One whose own log has grown is removed with it, as nothing else
makes a log shorter. What counts nowhere, as files that are deleted and still open, is gone with the processes that hold it:
where the workspaces' file system has less than RESERVE bytes left, sandboxes are ended until it has. Nothing in a workspace
is touched.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import docker
import requests

_LABEL = "openclaw.sandbox=1"
_PLACE = "/workspace"
_LOG_BYTES = 2**20
"""What a sandbox may have said. Its first process says nothing, and what it executes is not logged."""
_SECONDS = 10
"""For a container to end."""
_GONE = {errno.ENOENT, errno.ENOTDIR}
_LOG = logging.getLogger("workspaces")

Container = docker.models.containers.Container


def main(docker_host: str, most_bytes: int, most_files: int, reserve: int, seconds: float) -> None:
    """Look, again and again."""
    client = docker.DockerClient(base_url=docker_host)
    disks = Disks(reserve)
    while True:
        found = client.containers.list(filters={"label": _LABEL}, ignore_removed=True)
        left = [container for container in found if not _ended(container, most_bytes, most_files)]
        disks.look(left)
        time.sleep(seconds)


def _ended(container: Container, most_bytes: int, most_files: int) -> bool:
    """Whether it was ended for what its workspace or its log holds."""
    workspace = _workspace(container)
    if _size(container.attrs.get("LogPath")) > _LOG_BYTES:
        _LOG.warning("The sandbox of %s has said more than %s bytes; it is removed.", workspace, _LOG_BYTES)
        _remove(container)
        return True
    try:
        held = holds(Path(workspace), most_bytes, most_files) if workspace else None
    except PermissionError as error:
        sys.exit(f"Nobody watches what workspaces hold, as this may not read them: {error}")
    if held is None:
        return False
    _LOG.warning("%s holds %s; its sandbox is ended. Make room in it.", workspace, held)
    _end(container)
    return True


def holds(workspace: Path, most_bytes: int, most_files: int) -> str | None:
    """What it holds too much of, in words, or None. PermissionError where it is not ours, and we lack the right to look."""
    count = used = 0
    left = [workspace]
    while left:
        place = left.pop()
        try:
            for entry in os.scandir(place):
                found = _looked_at(entry)
                if found is None:
                    continue
                count, used = count + 1, used + found.st_blocks * 512
                if stat.S_ISDIR(found.st_mode):
                    left.append(Path(entry.path))
                if used > most_bytes:
                    return f"more than {most_bytes} bytes"
                if count > most_files:
                    return f"more than {most_files} files"
        except PermissionError:
            if place == workspace and place.stat().st_uid != os.geteuid():
                raise
            # Whoever looks as its owner can be shut out by it, and whatever is in it would not count.
            return "a directory that is shut"
        except OSError as error:
            if error.errno not in _GONE:
                # As what is below so many directories that its path is too long.
                return f"something that cannot be looked at ({error.strerror})"
    return None


def _looked_at(entry: os.DirEntry[str]) -> os.stat_result | None:
    """What it is; None if it went away meanwhile."""
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


class Disks:
    """The file systems that workspaces are on, of each of which something has to be left."""

    def __init__(self, reserve: int) -> None:
        """``reserve``: in bytes."""
        self._reserve = reserve
        self._least: dict[int, int] = {}
        """What has to be left, by number of file system: the reserve, or less where there was no more to be had."""

    def look(self, containers: Iterable[Container]) -> None:
        """End sandboxes on a file system that has too little left, until it has more."""
        places: dict[int, list[tuple[Container, str]]] = {}
        for container in containers:
            workspace = _workspace(container)
            # It may have gone away meanwhile.
            with contextlib.suppress(OSError):
                if workspace:
                    places.setdefault(Path(workspace).stat().st_dev, []).append((container, workspace))
        for disk, here in places.items():
            with contextlib.suppress(OSError):
                self._make_room(disk, here)

    def _make_room(self, disk: int, here: list[tuple[Container, str]]) -> None:
        place, ended = here[0][1], False
        if disk not in self._least:
            self._settle(disk, _free(place))
        for container, workspace in here:
            if _free(place) >= self._least[disk]:
                break
            _LOG.warning("The disk is nearly full; the sandbox of %s is ended.", workspace)
            ended |= _end(container)
        free = _free(place)
        if ended or free >= self._reserve:
            self._settle(disk, free)

    def _settle(self, disk: int, free: int) -> None:
        """Have the reserve left; where there is less, that is not the sandboxes' doing, and half of it is nobody's to take."""
        self._least[disk] = self._reserve if free >= self._reserve else free // 2
        if free < self._reserve:
            _LOG.warning(
                "The disk of workspaces has %s bytes left, and should have %s. Make room.",
                free,
                self._reserve,
            )


def _free(place: str) -> int:
    """How many bytes its file system has left, for who is not root."""
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def _size(path: str | None) -> int:
    """Of a file; 0 where there is none."""
    try:
        return Path(path).stat().st_size if path else 0
    except OSError:
        return 0


def _workspace(container: Container) -> str:
    """Where the machine has it; empty if it has none."""
    return next(
        (mount["Source"] for mount in container.attrs["Mounts"] if mount["Destination"] == _PLACE), ""
    )


def _end(container: Container) -> bool:
    """Whether it could be ended."""
    with _perhaps(container):
        container.kill()
        container.wait(timeout=_SECONDS)
        return True
    return False


def _remove(container: Container) -> None:
    with _perhaps(container):
        container.remove(force=True)


@contextlib.contextmanager
def _perhaps(container: Container) -> Iterator[None]:
    """What fails is tried again at the next look."""
    try:
        yield
    except (docker.errors.APIError, requests.RequestException) as error:
        _LOG.warning("%s could not be ended: %s", container.name, error)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    main(sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5]))
