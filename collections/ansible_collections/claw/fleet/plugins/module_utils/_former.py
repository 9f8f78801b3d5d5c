# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An OpenClaw gateway that was set up by other hands: who its agents are and where they have their things.

PRIVATE to claw.fleet: may change at any time.

Only looked at, never written. Agents can write in their workspaces, so what lies there is read without following
links, and a link is not taken for a file.
"""

from __future__ import annotations

import json
import os
import pwd
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ansible_collections.claw.fleet.plugins.module_utils import _durable, _processes

_JOBS = "SELECT agent_id, name FROM cron_jobs WHERE agent_id IS NOT NULL AND payload_kind != 'heartbeat' ORDER BY name"


class FormerError(Exception):
    """The gateway cannot be taken over as it is; str() is a plain sentence."""


class Found(NamedTuple):
    """A file of a tree: the tree's top, the file, where it goes (relative), its bytes, whether it is a program."""

    top: Path
    path: Path
    dest: str
    size: int
    executable: bool


@dataclass(frozen=True)
class Tree:
    """What lies below a directory: files, directories (relative paths), and what is neither."""

    files: list[Found]
    directories: list[str]
    others: list[str]

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class FormerAgent:
    """An agent of the gateway: its id, its workspace, and its own directories with the place each goes to."""

    agent_id: str
    workspace: Path
    homes: list[tuple[Path, str]]

    def tree(self, *, but: str) -> tuple[Tree, Tree]:
        """The workspace without the file ``but`` at its top, and the agent's own directories as one."""
        workspace = _tree(self.workspace, "", {but})
        files: dict[str, Found] = {}
        directories: dict[str, None] = {}
        others: list[str] = []
        for home, dest in self.homes:
            found = _tree(home, dest, set())
            directories.update(dict.fromkeys(found.directories))
            others += found.others
            for file in found.files:
                files.setdefault(file.dest, file)
        return workspace, Tree(list(files.values()), list(directories), others)


class FormerGateway:
    """The gateway whose state directory and config these are."""

    def __init__(self, state_dir: str, config: str | None = None) -> None:
        self.state_dir = Path(state_dir)
        self.config = Path(config) if config else self.state_dir / "openclaw.json"
        self._read = self._load()

    @property
    def version(self) -> str:
        """The version of OpenClaw that wrote the config last; "" where it does not say."""
        meta = self._read.get("meta")
        return str(meta.get("lastTouchedVersion") or "") if isinstance(meta, dict) else ""

    def agents(self) -> dict[str, FormerAgent]:
        """Its agents by id, in lower case as OpenClaw takes them, from agents.list or agents.entries."""
        section = self._read.get("agents")
        section = section if isinstance(section, dict) else {}
        entries: dict[str, Mapping[str, Any]] = {}
        for entry in section.get("list") or []:
            if isinstance(entry, dict) and isinstance(entry.get("id"), str):
                entries[entry["id"].lower()] = entry
        for agent_id, entry in (section.get("entries") or {}).items():
            if isinstance(entry, dict):
                entries[agent_id.lower()] = entry
        return {agent_id: self._agent(agent_id, entry) for agent_id, entry in entries.items()}

    def jobs(self) -> dict[str, list[str]]:
        """The names of the jobs that people scheduled, by agent; heartbeats, which every gateway has, are not among them."""
        path = self.state_dir / "state" / "openclaw.sqlite"
        found: dict[str, list[str]] = {}
        if not path.is_file():
            return found
        # Of a database that nobody has open the file is all there is; opened for reading it would get files beside it.
        how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True)) as database:
                for agent_id, name in database.execute(_JOBS):
                    found.setdefault(agent_id.lower(), []).append(name)
        except sqlite3.Error as error:
            raise FormerError(f"{path} does not tell which jobs are scheduled: {error}") from error
        return found

    def in_use(self) -> bool:
        """Whether a process still has a database of it open."""
        inside = f"{self.state_dir}/"
        users = (0, self.state_dir.stat().st_uid)
        paths = (path for user in users for path in _processes.open_paths(user))
        return any(path.startswith(inside) and ".sqlite" in path for path in paths)

    def _agent(self, agent_id: str, entry: Mapping[str, Any]) -> FormerAgent:
        own = self.state_dir / "agents" / agent_id
        homes = [(own, "")]
        agent_dir = self._path(entry.get("agentDir"))
        if agent_dir is not None and own not in (agent_dir, *agent_dir.parents):
            # OpenClaw keeps the database under the id whatever agentDir says, and all else where it says.
            homes.append((agent_dir, "agent/"))
        workspace = self._path(entry.get("workspace")) or self.state_dir / f"workspace-{agent_id}"
        return FormerAgent(agent_id, workspace, homes)

    def _path(self, given: object) -> Path | None:
        if not isinstance(given, str) or not given:
            return None
        if given.startswith("~/"):
            given = pwd.getpwuid(self.state_dir.stat().st_uid).pw_dir + given[1:]
        path = Path(given)
        if not path.is_absolute() or ".." in path.parts:
            raise FormerError(
                f"{self.config} names the directory {given}, which is not a plain absolute path"
            )
        return path

    def _load(self) -> dict[str, Any]:
        try:
            data = _durable.read(self.config)
        except _durable.DurableError as error:
            raise FormerError(str(error)) from error
        if data is None:
            raise FormerError(
                f"there is no {self.config}; give the state directory of the gateway that is to be taken over, "
                "and config if it lies elsewhere"
            )
        found: Any = None
        with suppress(ValueError):
            found = json.loads(data)
        if not isinstance(found, dict):
            raise FormerError(
                f"{self.config} is not plain JSON. Any `openclaw config set` as its user writes it anew as such"
            )
        return found


def _tree(top: Path, dest: str, but: set[str]) -> Tree:
    """What lies below ``top``, for a place ``dest`` ("" or ending with a slash). No directory is an empty one."""
    files: list[Found] = []
    directories: list[str] = []
    others: list[str] = []
    for relative, entry in _walk(top):
        found = entry.lstat()
        if stat.S_ISDIR(found.st_mode):
            directories.append(dest + relative)
        elif stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            if relative not in but:
                executable = bool(found.st_mode & stat.S_IXUSR)
                files.append(Found(top, entry, dest + relative, found.st_size, executable))
        elif not stat.S_ISSOCK(found.st_mode):
            others.append(str(entry))
    return Tree(files, directories, others)


def _walk(top: Path) -> Iterator[tuple[str, Path]]:
    for where, names, files in os.walk(top, onerror=_refuse):
        names.sort()
        for name in sorted([*names, *files]):
            path = Path(where) / name
            yield str(path.relative_to(top)), path


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise FormerError(f"cannot look into {error.filename}: {error.strerror}") from error
