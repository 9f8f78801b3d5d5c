# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one coach's row needs on a machine, and how that is told to people.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import _coach
from ansible_collections.claw.fleet.plugins.module_utils._coach import Row
from ansible_collections.claw.fleet.plugins.module_utils._manifest import Manifest
from ansible_collections.claw.fleet.plugins.module_utils._roster import Entries
from ansible_collections.claw.fleet.plugins.module_utils._workspace import DIR_MODE, FileStep, ahead, behind


@dataclass
class Plan:
    """One row and what it needs.

    ``verb``: what happens to the agent, one of "added", "resumed", "updated", "paused", "removed" or "" for
    nothing; ``entry``: its roster entry, None if it is to have none or the row is in error; ``directories``:
    those to be made or set right, with what they are now; ``steps``: its workspace files; ``haunted``: whether
    the gateway still has files open of a former agent of that id.
    """

    row: Row
    verb: str = ""
    entry: dict[str, Any] | None = None
    directories: list[tuple[str, str]] = field(default_factory=list)
    steps: list[FileStep] = field(default_factory=list)
    haunted: bool = False

    @property
    def agent_id(self) -> str:
        """The agent's id; not to be trusted where the row is in error."""
        return str(self.row["agent_id"])

    @property
    def lost_workspace(self) -> bool:
        """Whether an agent who was here already gets her directory anew."""
        return self.verb != "added" and (f"workspaces/{self.agent_id}", "absent") in self.directories

    @property
    def lost_files(self) -> bool:
        """Whether none of her files is there: if ever they were, they were lost, and her own are seeded again too."""
        return all(step.before is None for step in self.steps)

    @property
    def writes(self) -> list[FileStep]:
        """The files that will be different."""
        return [step for step in self.steps if step.action in ("write", "seed")]

    @property
    def conflicts(self) -> list[str]:
        """The files that somebody changed and that stay as they are."""
        return [step.dest for step in self.steps if step.action == "conflict"]

    @property
    def outdated(self) -> list[str]:
        """The files that a changed template would make different, but nothing is wanted of the coach."""
        return [step.dest for step in self.steps if step.action == "outdated"]

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.verb or self.writes or self.directories or self.haunted)

    def fail(self, reason: object) -> None:
        """Put the row in error; nothing is done for it any more."""
        self.row["error"] = _coach.error("agent", str(reason))
        self.verb, self.entry, self.directories, self.steps, self.haunted = "", None, [], [], False

    def result(self) -> Row:
        """The row as it is handed on."""
        row = dict(self.row)
        if self.changes:
            done = [self.verb] if self.verb else []
            done += [f"{'seeded' if step.action == 'seed' else 'wrote'} {step.dest}" for step in self.writes]
            done += [f"set {path} right" for path, _before in self.directories if not self.verb]
            done += ["let go of its former database"] if self.haunted else []
            row["actions"] = [*(row.get("actions") or []), *done]
        if self.conflicts:
            row["conflicts"] = self.conflicts
        if self.outdated:
            row["outdated"] = self.outdated
        return row


class Outcome(NamedTuple):
    """What was done, or would be.

    ``results``: the rows; ``reloads`` of the gateway, 0 or 1; ``served``: whether it runs and serves them; ids that were
    served but not in the list, left alone as ``unlisted`` or removed as ``purged``; ``diff`` in Ansible's form;
    ``warnings`` for people; ``recorded``: whether the manifest said before what it is to say of their files.
    """

    results: list[Row]
    changed: bool
    reloads: int
    served: bool
    unlisted: list[str]
    purged: list[str]
    diff: list[dict[str, str]]
    warnings: list[str]
    recorded: bool


class Seen(NamedTuple):
    """What a look found.

    ``settled``: whether there is nothing to do, and nothing to warn of, while the gateway serves these agents; ``unlisted``:
    ids that it serves too; ``outdated``: {agent id: files} that a changed template would make different.
    """

    settled: bool
    unlisted: list[str]
    outdated: dict[str, list[str]]


def wanted_entries(plans: list[Plan], served: Entries, gone: set[str]) -> Entries:
    """The roster that the plans make of ``served``, without those who are ``gone``."""
    wanted = {agent_id: entry for agent_id, entry in served.items() if agent_id not in gone}
    for plan in plans:
        if plan.entry is not None:
            wanted[plan.agent_id] = plan.entry
        elif plan.verb == "paused":
            wanted.pop(plan.agent_id, None)
    return wanted


def is_recorded(plans: list[Plan], manifest: Manifest) -> bool:
    """Whether the manifest on disk says of these agents' files what it is to say once the plans are carried out."""
    wanted = {
        plan.agent_id: behind(plan.steps, ahead(plan.steps, manifest.files.get(plan.agent_id, {})))
        for plan in plans
        if plan.entry is not None
    }
    return manifest.is_saved() and {**manifest.files, **wanted} == manifest.files


def warnings(plans: list[Plan]) -> list[str]:
    """A sentence for each agent whose files are in conflict."""
    return [
        f"{plan.agent_id}: {', '.join(plan.conflicts)} in its workspace is not what the fleet wrote and was "
        "left alone. Move it away to have it written anew, or leave it as it is"
        for plan in plans
        if plan.conflicts
    ]


def diff_of(plans: list[Plan], served: Entries, wanted: Entries) -> list[dict[str, str]]:
    """The differences in Ansible's form: each agent's directories and files, then the roster."""
    diff: list[dict[str, str]] = []
    for plan in plans:
        if plan.directories:
            before = "".join(f"{path}: {state}\n" for path, state in plan.directories)
            after = "".join(f"{path}: {DIR_MODE:04o}\n" for path, _state in plan.directories)
            diff.append(change(f"{plan.agent_id}: directories", before, after))
        for step in plan.writes:
            before = (step.before or b"").decode("utf-8", "replace")
            after = step.after.decode("utf-8", "replace")
            diff.append(change(f"{plan.agent_id}: {step.dest}", before, after))
    if served != wanted:
        ids = [name for name in sorted(served.keys() | wanted.keys()) if served.get(name) != wanted.get(name)]
        diff.append(change("roster", _shown(served, ids), _shown(wanted, ids)))
    return diff


def change(what: str, before: str, after: str) -> dict[str, str]:
    """One difference in Ansible's form."""
    return {"before_header": what, "after_header": what, "before": before, "after": after}


def _shown(entries: Entries, ids: list[str]) -> str:
    found = {name: entries[name] for name in ids if name in entries}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"
