# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agents of one gateway, brought to what their coaches' rows want.

PRIVATE to claw.fleet: may change at any time.

First everything is looked at and planned, then the plan is carried out: files, one write of the roster (the
commit point of additions and removals alike), and last what removed agents leave behind. Check mode ends
after the plan, so what it tells is what a run does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils import _coach, _durable, _removal
from ansible_collections.claw.fleet.plugins.module_utils._agent_plan import (
    Outcome,
    Plan,
    Seen,
    change,
    diff_of,
    is_recorded,
    wanted_entries,
    warnings,
)
from ansible_collections.claw.fleet.plugins.module_utils._coach import Row
from ansible_collections.claw.fleet.plugins.module_utils._containers import Containers, ContainersError
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayError
from ansible_collections.claw.fleet.plugins.module_utils._manifest import Manifest, ManifestError
from ansible_collections.claw.fleet.plugins.module_utils._roster import Entries, Roster, RosterError
from ansible_collections.claw.fleet.plugins.module_utils._sandbox import Sandbox, refuse_unguarded
from ansible_collections.claw.fleet.plugins.module_utils._workspace import (
    DIR_MODE,
    OwnedFile,
    Workspace,
    ahead,
    behind,
)

_FREE_REMOVALS = 5
_FREE_PERCENT = 5
_LET_GO_ATTEMPTS = 5
_LET_GO_PAUSE_SECONDS = 2


class AgentsError(Exception):
    """The list as a whole cannot be carried out and nothing was changed; str() is a plain sentence."""


ERRORS = (
    AgentsError,
    ContainersError,
    GatewayError,
    ManifestError,
    RosterError,
    _coach.CoachListError,
    _durable.DurableError,
)
"""What `Agents` raises about all of them."""


class Agents:
    """The agents of one gateway."""

    def __init__(self, gateway: Gateway, roster: Roster | None = None) -> None:
        self.gateway = gateway
        self.roster = roster or Roster(gateway)
        self.sandbox = Sandbox.load(gateway)
        self._state = Path(gateway.state_dir)

    def reconcile(
        self,
        rows: list[Row],
        files: Mapping[str, list[OwnedFile]],
        *,
        purge: bool = False,
        max_removals: int | None = None,
        check: bool = False,
    ) -> Outcome:
        """Bring the agents of ``rows`` to what they want; ``files``: {agent id: workspace files}.

        A row that cannot be carried out comes back with "error" and keeps the agent it has; `AgentsError` and
        the errors of roster, gateway and manifest are about all of them.
        """
        rows = _coach.check_rows(rows)
        if self.sandbox:
            refuse_unguarded(self.gateway)
        with nullcontext() if check else self.roster.lock():
            served = self.roster.entries()
            manifest = Manifest(self.gateway)
            unfinished = _unfinished(served, manifest)
            unlisted = _unlisted(rows, served)
            purged = unlisted if purge else []
            _refuse_blind_purge(rows, served, purged)
            with self._as_gateway():
                plans = [self._plan(row, served, manifest, unfinished, files) for row in rows]
            self._find_haunted(plans, unfinished, manifest)
            gone = {plan.agent_id for plan in plans if plan.verb == "removed"} | set(purged)
            _guard(gone, len(served), max_removals)
            back = {plan.agent_id for plan in plans if plan.row["wanted"] != "removed"}
            recorded = is_recorded(plans, manifest)
            moved = [self._removal_diff(agent_id, agent_id in back) for agent_id in sorted(gone | unfinished)]
            if not check:
                if unfinished:
                    # The run that took them out of the roster may not have lived to see that they are not served.
                    self.roster.apply(served)
                self._finish(unfinished, manifest, back)
                self._forget_jobs(plans)
                self._write_files(plans, manifest)
            wanted = wanted_entries(plans, served, gone)
            diff = diff_of(plans, served, wanted) + moved
            if not check:
                self._announce(gone, manifest)
            done = self.roster.apply(wanted, check=check)
            if not check:
                self._finish(gone, manifest)
                if done.served:
                    self._let_go(plans, wanted)
            return Outcome(
                results=[plan.result() for plan in plans],
                changed=done.changed or bool(gone or unfinished) or any(plan.changes for plan in plans),
                reloads=done.reloads,
                served=done.served,
                unlisted=[] if purge else unlisted,
                purged=purged,
                diff=diff,
                warnings=warnings(plans),
                recorded=recorded,
            )

    def look(
        self,
        rows: list[Row],
        files: Mapping[str, list[OwnedFile]],
        *,
        purge: bool = False,
        max_removals: int | None = None,
    ) -> Seen:
        """Whether `reconcile` has anything to do."""
        found = self.reconcile(rows, files, purge=purge, max_removals=max_removals, check=True)
        quiet = not (found.changed or found.warnings or any(map(_coach.has_error, found.results)))
        settled = quiet and found.recorded and found.served and self.roster.is_served()
        outdated = {row["agent_id"]: row["outdated"] for row in found.results if row.get("outdated")}
        return Seen(settled, found.unlisted, outdated)

    @contextmanager
    def _as_gateway(self) -> Iterator[None]:
        with _durable.as_user(*self.gateway.owner):
            yield

    def _plan(
        self,
        row: Row,
        served: Entries,
        manifest: Manifest,
        unfinished: set[str],
        files: Mapping[str, list[OwnedFile]],
    ) -> Plan:
        plan = Plan(row)
        if _coach.has_error(row):
            return plan
        agent_id, wanted = plan.agent_id, row["wanted"]
        fresh = agent_id in unfinished
        try:
            if wanted == "running":
                self._plan_running(plan, served, manifest, fresh, files.get(agent_id, []))
            elif wanted == "paused":
                plan.verb = "paused" if agent_id in served else ""
            elif agent_id in served or (not fresh and _removal.leftovers(self.gateway, agent_id)):
                plan.verb = "removed"
        except _durable.DurableError as error:
            plan.fail(error)
        return plan

    def _plan_running(
        self, plan: Plan, served: Entries, manifest: Manifest, fresh: bool, files: list[OwnedFile]
    ) -> None:
        agent_id = plan.agent_id
        known = not fresh and agent_id in manifest.files
        home = self._state / "workspaces" / agent_id
        plan.entry = self._entry(plan.row)
        if agent_id not in served:
            plan.verb = "resumed" if known else "added"
        elif served[agent_id] != plan.entry:
            plan.verb = "updated"
        plan.directories = self._directories(agent_id, fresh)
        workspace, due = Workspace(home, self._state), _coach.is_due(plan.row)
        plan.steps = workspace.plan(files, manifest.files.get(agent_id, {}), due=due, fresh=fresh)
        if plan.lost_files:
            plan.steps = workspace.plan(files, {}, due=due, fresh=True)

    def _entry(self, row: Row) -> dict[str, Any]:
        agent_id = row["agent_id"]
        return {
            "name": row["name"],
            "workspace": str(self._state / "workspaces" / agent_id),
            "agentDir": str(self._state / "agents" / agent_id / "agent"),
            **(self.sandbox.entry(self.gateway, agent_id) if self.sandbox else {}),
        }

    def _directories(self, agent_id: str, fresh: bool) -> list[tuple[str, str]]:
        """Directories to be made or set right, with what they are now.

        OpenClaw starts and reloads much slower where an agent's own directories are missing.
        """
        owner = self.gateway.owner
        found: list[tuple[str, str]] = []
        for path in (
            f"workspaces/{agent_id}",
            f"agents/{agent_id}",
            f"agents/{agent_id}/agent",
            f"agents/{agent_id}/sessions",
        ):
            entry = None if fresh else _durable.inspect(self._state / path, root=self._state)
            if entry is None:
                found.append((path, "absent"))
            elif entry.kind != "directory":
                raise _durable.DurableError(
                    f"{self._state / path} is not a directory; move it away and run again"
                )
            elif (entry.mode, entry.owner) != (DIR_MODE, owner):
                found.append((path, f"{entry.mode:04o} of {entry.owner.uid}:{entry.owner.gid}"))
        return found

    def _find_haunted(self, plans: list[Plan], unfinished: set[str], manifest: Manifest) -> None:
        """Also among those who are served: a run may have been killed before it made the gateway let go.

        And among those who have not answered yet: what was set aside of their forerunner may be deleted by now.
        """
        if not self.gateway.unit_state().running:
            return
        there = {plan.agent_id for plan in plans if plan.entry is not None}
        before = unfinished | _removal.removed_before(self.gateway)
        held = _removal.still_open(self.gateway, (there & before) | (there - manifest.activated), unfinished)
        for plan in plans:
            plan.haunted = plan.entry is not None and plan.agent_id in held

    def _let_go(self, plans: list[Plan], wanted: Entries) -> None:
        haunted = [plan for plan in plans if plan.haunted]
        for plan in haunted:
            words = self._let_go_of(plan.agent_id)
            if words is not None:
                plan.fail(
                    f"{plan.agent_id} was removed before, and gateway {self.gateway.name} still has its former "
                    f"database open, so it cannot answer yet ({words}). Run again when the gateway has been "
                    f"restarted: systemctl restart {self.gateway.unit}"
                )
        if haunted:
            self.roster.apply(wanted)

    def _let_go_of(self, agent_id: str) -> str | None:
        """None, or what the gateway said last if it holds on. A busy one may need to be told more than once."""
        for attempt in range(_LET_GO_ATTEMPTS):
            if attempt:
                time.sleep(_LET_GO_PAUSE_SECONDS)
            words = _removal.let_go(self.gateway, agent_id)
            if not _removal.still_open(self.gateway, {agent_id}, set()):
                return None
        return words

    def _write_files(self, plans: list[Plan], manifest: Manifest) -> None:
        self._remove_containers({plan.agent_id for plan in plans if plan.lost_workspace})
        for plan in plans:
            if plan.steps:
                manifest.files[plan.agent_id] = ahead(plan.steps, manifest.files.get(plan.agent_id, {}))
        manifest.save()
        owner = self.gateway.owner
        with self._as_gateway():
            for plan in plans:
                try:
                    for path, _before in plan.directories:
                        _durable.make_dir(self._state / path, mode=DIR_MODE, owner=owner, root=self._state)
                    Workspace(self._state / "workspaces" / plan.agent_id, self._state).write(plan.steps)
                except _durable.DurableError as error:
                    plan.fail(error)
        for plan in plans:
            if plan.entry is not None:
                record = manifest.files.get(plan.agent_id, {})
                manifest.files[plan.agent_id] = behind(plan.steps, record)
        manifest.save()

    def _announce(self, gone: set[str], manifest: Manifest) -> None:
        """Before the commit point: who is about to be removed, so that a crash after it is finished later."""
        stamp = _removal.stamp()
        manifest.removing.update((agent_id, stamp) for agent_id in gone)
        manifest.save()

    def _forget_jobs(self, plans: list[Plan]) -> None:
        """An agent that was removed while the gateway was down may have left scheduled jobs in it.

        Before anything is written, because from then on she counts as one who has been here already.
        """
        coming = {plan.agent_id for plan in plans if plan.verb == "added"}
        again = coming & _removal.removed_before(self.gateway)
        if again and self._wait_running():
            for agent_id in again:
                _removal.remove_jobs(self.gateway, agent_id)

    def _wait_running(self) -> bool:
        if not self.gateway.unit_state().running:
            return False
        self.roster.wait_ready()
        return True

    def _finish(self, gone: set[str], manifest: Manifest, back: Set[str] = frozenset()) -> None:
        """Set aside what is left of these; ``back``: those who are to stay by now."""
        if not gone:
            return
        running = self._wait_running()
        self._remove_containers(gone)
        for agent_id in sorted(gone):
            if running:
                _removal.remove_jobs(self.gateway, agent_id)
            with self._as_gateway():
                stamp = manifest.removing[agent_id]
                _removal.set_aside(self.gateway, agent_id, stamp, comes_back=agent_id in back)
            manifest.forget(agent_id)
            manifest.save()

    def _remove_containers(self, gone: set[str]) -> None:
        """Of those whose directory is not there, or will not be: a container goes on with the one it was started with."""
        if not self.sandbox or not gone:
            return
        containers = Containers(self.gateway, self.sandbox.docker_host)
        for container in containers.all():
            if container.agent_id in gone:
                containers.remove(container)

    def _removal_diff(self, agent_id: str, comes_back: bool) -> dict[str, str]:
        with self._as_gateway():
            left = _removal.leftovers(self.gateway, agent_id, comes_back=comes_back)
        before = "".join(f"{path}\n" for path in left)
        return change(f"{agent_id}: set aside below {self._state}/removed", before, "")


def default_max_removals(agents: int) -> int:
    """How many of this many agents may be removed in one run without a number being given."""
    return max(_FREE_REMOVALS, agents * _FREE_PERCENT // 100)


def _unlisted(rows: list[Row], served: Entries) -> list[str]:
    listed = {row["agent_id"] for row in rows}
    return sorted(agent_id for agent_id in served if agent_id not in listed)


def _unfinished(served: Entries, manifest: Manifest) -> set[str]:
    """Removals that an earlier run committed, but did not live to finish."""
    for agent_id in [name for name in manifest.removing if name in served]:
        # That run ended before its commit point, so this one decides anew.
        del manifest.removing[agent_id]
    return set(manifest.removing)


def _refuse_blind_purge(rows: list[Row], served: Entries, purged: list[str]) -> None:
    if not purged:
        return
    if not rows:
        raise AgentsError(
            f"purge would remove all {len(purged)} agents, because the list is empty. An empty list is taken "
            "for a mistake; set wanted to removed for those who are to go"
        )
    faulty = [row for row in rows if _coach.has_error(row) and row["error"].get("step") == "row"]
    nameless = [str(row["pk"]) for row in faulty if row["agent_id"] not in served]
    if nameless:
        raise AgentsError(
            f"purge cannot know whom to keep while the rows with pk {', '.join(nameless)} are faulty; "
            "correct them in Django, or run without purge"
        )


def _guard(gone: set[str], served: int, max_removals: int | None) -> None:
    limit = default_max_removals(served) if max_removals is None else max_removals
    if len(gone) > limit:
        raise AgentsError(
            f"{len(gone)} agents would be removed, and at most {limit} may be without asking, so nothing was "
            f"changed. If that is meant, run again with max_removals: {len(gone)}"
        )
