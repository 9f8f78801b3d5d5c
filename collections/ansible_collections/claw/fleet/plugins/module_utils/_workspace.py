# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A workspace's files: which are the fleet's, which are the agent's, and what may be written over.

PRIVATE to claw.fleet: may change at any time.

A file owned by the ``agent`` is seeded once and never touched again; where none of a workspace's files is left, they
were lost, and the caller has them planned afresh. A file owned by the ``fleet`` is
replaced only where it is still what the fleet wrote: three-way, by what we wrote, what is there and what we
would write. What somebody changed is a conflict and stays. So does, for a coach of whom nothing new is wanted, a
file that only a changed template would make different: it is outdated, until she is due. The record of what we wrote is saved before the
file, so a crash in between never makes our own file look like somebody else's.

The caller acts as the gateway's user, because an agent can plant links in its workspace.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import _durable

OWNERS = ("agent", "fleet")
FILE_MODE = 0o600
DIR_MODE = 0o700
WORKSPACE_OPTIONS: dict[str, Any] = {
    "workspace_files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "src": {"type": "str", "required": True},
            "dest": {"type": "str", "required": True},
            "owner": {"type": "str", "required": True, "choices": list(OWNERS)},
        },
    },
    "template_paths": {"type": "list", "elements": "path", "default": []},
}
"""The options of the documentation fragment claw.fleet.workspace."""
RENDERED_OPTIONS: dict[str, Any] = {"contents": {"type": "dict", "default": {}}}
"""The options of claw.fleet.workspace.rendered."""
_AGENTS_OWN = ("MEMORY.md", "memory", "relationships")

Record = dict[str, list[str]]
"""{path in the workspace: sha256 hashes of what the fleet wrote there, newest first}"""


class OwnedFile(NamedTuple):
    """A file as it should be: path in the workspace, content, and whose it is ("agent" or "fleet")."""

    dest: str
    content: bytes
    owner: str


def owned_files(params: dict[str, Any]) -> dict[str, list[OwnedFile]]:
    """The files of each agent: what was rendered, and whose it is."""
    return {
        agent_id: [
            OwnedFile(file["dest"], rendered[file["dest"]].encode(), file["owner"])
            for file in params["workspace_files"]
        ]
        for agent_id, rendered in params["contents"].items()
    }


class FileStep(NamedTuple):
    """What happens to a file: "keep", "write", "seed", "conflict" or "outdated"; its content before and after."""

    dest: str
    action: str
    before: bytes | None
    after: bytes


def refuse_dest(dest: object, owner: str) -> str | None:
    """Why a path cannot be a workspace file of this owner, as the end of a sentence; None if it can."""
    if not isinstance(dest, str) or not dest:
        return "must be a path within the workspace"
    if any(unicodedata.category(character).startswith("C") for character in dest) or "\\" in dest:
        return "holds characters that do not belong in a path"
    parts = dest.split("/")
    if "" in parts or any(part.startswith(".") for part in parts):
        return "must be relative, without empty parts and parts that begin with a dot"
    if dest == "TOOLS.md":
        return "is not read by OpenClaw any more; include that template in the one for AGENTS.md"
    if owner == "fleet" and parts[0] in _AGENTS_OWN:
        return "belongs to the agent; give it owner: agent"
    return None


class Workspace:
    """The directory of one agent, below a trusted root."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path
        self._root = root

    def plan(
        self, files: Iterable[OwnedFile], record: Record, *, due: bool, fresh: bool = False
    ) -> list[FileStep]:
        """What is to be done. Writes nothing.

        ``due``: whether anything is wanted of this coach, so that her files follow; otherwise only what is missing
        is written. ``fresh``: as if nothing were there.
        """
        if fresh:
            return [_step(file, None, [], due) for file in files]
        return [_step(file, self._read(file.dest), record.get(file.dest, []), due) for file in files]

    def write(self, steps: Iterable[FileStep]) -> None:
        """Do what was planned, except where the file is not what it was when that was planned."""
        for step in steps:
            if step.action not in ("write", "seed"):
                continue
            if self._read(step.dest) != step.before:
                raise _durable.DurableError(
                    f"{self.path / step.dest} was changed by somebody else meanwhile; run again"
                )
            path = self.path / step.dest
            if len(PurePosixPath(step.dest).parts) > 1:
                _durable.make_dir(path.parent, mode=DIR_MODE, root=self._root)
            _durable.write(path, step.after, mode=FILE_MODE, root=self._root)

    def _read(self, dest: str) -> bytes | None:
        return _durable.read(self.path / dest, root=self._root)


def ahead(steps: Iterable[FileStep], record: Record) -> Record:
    """The record to save before the files are written: each file is then what it was or what it will be.

    A seed is not known to be there, also one that was there and was lost.
    """
    result = dict(record)
    for step in steps:
        if step.action == "write" or (step.action == "keep" and step.before == step.after):
            hashes = [digest(step.after)]
            if step.before is not None and step.before != step.after:
                hashes.append(digest(step.before))
            result[step.dest] = hashes
        elif step.action == "seed":
            result.pop(step.dest, None)
    return result


def behind(steps: Iterable[FileStep], record: Record) -> Record:
    """The record to save after the files were written: only then are seeds known to be there."""
    result = dict(record)
    for step in steps:
        if step.action in ("write", "seed") or (step.action == "keep" and step.dest not in result):
            result[step.dest] = [digest(step.after)]
    return result


def digest(content: bytes) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _step(file: OwnedFile, found: bytes | None, ours: list[str], due: bool) -> FileStep:
    if file.owner == "agent":
        action = "seed" if found is None and not ours else "keep"
    elif found == file.content:
        action = "keep"
    elif found is None:
        action = "write"
    elif digest(found) in ours:
        action = "write" if due else "outdated"
    else:
        action = "conflict"
    return FileStep(file.dest, action, found, file.content)
