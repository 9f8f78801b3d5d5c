# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandboxes of a gateway's agents, brought to what is wanted of them without ending a turn.

PRIVATE to claw.fleet: may change at any time.

First it is written down what they are to be, then the roster follows in one write, then each container that is another
one is taken away while its agent is idle: the gateway makes her turn wait for that moment, and gives her a new one. An
agent who is at work for longer keeps hers, until the next run.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import _durable, _sandbox
from ansible_collections.claw.fleet.plugins.module_utils._agent_plan import change
from ansible_collections.claw.fleet.plugins.module_utils._containers import (
    Container,
    Containers,
    ContainersError,
)
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway
from ansible_collections.claw.fleet.plugins.module_utils._roster import (
    Entries,
    Roster,
    RosterChange,
    RosterError,
)
from ansible_collections.claw.fleet.plugins.module_utils._sandbox import KEYS, MARK, Sandbox

_HOLD_SECONDS = 25
_POLL_SECONDS = 1


class Outcome(NamedTuple):
    """What was done, or would be.

    ``updated``: agents whose roster entry has another sandbox; ``recreated``: those whose container was taken away, so that
    the next turn gets another; ``busy``: those who were at work and keep theirs until the next run; ``reloads`` of the
    gateway, 0 or 1; ``diff`` in Ansible's form.
    """

    changed: bool
    updated: list[str]
    recreated: list[str]
    busy: list[str]
    reloads: int
    diff: list[dict[str, str]]


NOTHING = Outcome(False, [], [], [], 0, [])


def predicted_for_a_new_gateway(wanted: Sandbox) -> Outcome:
    """What will be done on a gateway that is yet to be made, which has no agents then."""
    return Outcome(True, [], [], [], 0, [change("sandbox", "", _written(wanted))])


class AgentSandboxes:
    """The sandboxes of one gateway's agents."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.roster = Roster(gateway)

    def reconcile(self, wanted: Sandbox, *, wait: float, check: bool = False) -> Outcome:
        """Have every agent's sandbox as wanted; ``wait``: seconds that those at work may take, all together."""
        containers = Containers(self.gateway, wanted.docker_host)
        image_id = containers.image_id(wanted.image)
        if not image_id and not check:
            raise ContainersError(
                f"there is no image {wanted.image} on the machine, so nothing was changed. Run the role claw.fleet.sandbox, "
                "which builds it, or name another as sandbox_image"
            )
        _sandbox.refuse_unguarded(self.gateway)
        with nullcontext() if check else self.roster.lock():
            before = _read(self.gateway)
            after = _written(wanted)
            served = self.roster.entries()
            entries = {agent_id: self._entry(agent_id, entry, wanted) for agent_id, entry in served.items()}
            updated = [agent_id for agent_id in served if served[agent_id] != entries[agent_id]]
            roster = self._apply(before, after, entries, check)
        stale = [
            container
            for container in containers.all()
            if container.lost
            or container.environment.get(MARK) != wanted.mark
            or container.image_id != image_id
        ]
        busy = [] if check else self._remove(containers, stale, wait)
        return _outcome(before, after, updated, roster, stale, busy)

    def take_away(self, *, wait: float, check: bool = False) -> Outcome:
        """Have no agent's tools run in a sandbox, which leaves her none; ``wait``: as for `reconcile`."""
        before, former = _read(self.gateway), Sandbox.load(self.gateway)
        # Somebody may have removed what was written down.
        if former is None and not any(entry.keys() & KEYS for entry in self.roster.entries().values()):
            return NOTHING
        with nullcontext() if check else self.roster.lock():
            served = self.roster.entries()
            entries = {agent_id: _without(entry) for agent_id, entry in served.items()}
            updated = [agent_id for agent_id in served if served[agent_id] != entries[agent_id]]
            roster = self.roster.apply(entries, check=check)
        containers = self._containers_of(former) if former else None
        left = containers.all() if containers else []
        busy = [] if check or not containers else self._remove(containers, left, wait)
        if not check and not busy:
            _write(self.gateway, "")
        return _outcome(before, before if busy else "", updated, roster, left, busy)

    def _containers_of(self, former: Sandbox) -> Containers | None:
        """Where the former containers are; None where their engine has been taken away itself."""
        if not Path(former.docker_host.removeprefix("unix://")).exists():
            return None
        return Containers(self.gateway, former.docker_host)

    def _entry(self, agent_id: str, entry: dict[str, Any], wanted: Sandbox) -> dict[str, Any]:
        return {**_without(entry), **wanted.entry(self.gateway, agent_id)}

    def _apply(self, before: str, after: str, entries: Entries, check: bool) -> RosterChange:
        if check:
            return self.roster.apply(entries, check=True)
        # The descriptor first: whoever writes the roster next, after a crash of this run too, makes it of that.
        _write(self.gateway, after)
        try:
            return self.roster.apply(entries)
        except RosterError:
            _write(self.gateway, before)
            raise

    def _remove(self, containers: Containers, stale: list[Container], wait: float) -> list[str]:
        """Take away those containers as their agents become idle; the agents who did not in time.

        A gateway that runs without the fleet's plugin knows of nobody whether she is at work, and has no tools to give.
        """
        if not stale:
            return []
        deadline = time.monotonic() + wait
        held, left = self._is_held(deadline), stale
        if held is None:
            return sorted({container.agent_id for container in stale})
        while True:
            left = [container for container in left if not self._remove_idle(containers, container, held)]
            if not left or time.monotonic() >= deadline:
                return sorted({container.agent_id for container in left})
            time.sleep(_POLL_SECONDS)

    def _is_held(self, deadline: float) -> bool | None:
        """Whether the gateway can hold its agents; None where it runs and is not ready, so it is not known who is at work."""
        while (held := _sandbox.is_guarded(self.gateway)) is None and self.gateway.unit_state().running:
            if time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_SECONDS)
        return bool(held)

    def _remove_idle(self, containers: Containers, container: Container, held: bool) -> bool:
        agent_id = container.agent_id
        if held and not self.gateway.hold(agent_id, _HOLD_SECONDS):
            return False
        try:
            containers.remove(container)
        finally:
            if held:
                self.gateway.release(agent_id)
        return True


def _outcome(
    before: str, after: str, updated: list[str], roster: RosterChange, stale: list[Container], busy: list[str]
) -> Outcome:
    gone = sorted({container.agent_id for container in stale} - set(busy))
    diff = [change("sandbox", before, after)] if before != after else []
    if gone:
        what = "another" if after else "not wanted"
        diff.append(change("containers", "".join(f"{name}: {what}\n" for name in gone), ""))
    return Outcome(bool(roster.changed or diff), updated, gone, busy, roster.reloads, diff)


def _without(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in KEYS}


def _written(sandbox: Sandbox) -> str:
    return json.dumps(asdict(sandbox), indent=2, sort_keys=True) + "\n"


def _read(gateway: Gateway) -> str:
    return (_durable.read(_sandbox.descriptor(gateway)) or b"").decode("utf-8", "replace")


def _write(gateway: Gateway, text: str) -> None:
    """Have the descriptor say this, or none if it is empty; of a text that is there nothing is written."""
    path = _sandbox.descriptor(gateway)
    if text == _read(gateway):
        return
    if not text:
        _durable.remove(path)
        return
    owner = _durable.Owner(os.geteuid(), gateway.owner.gid)
    _durable.write(path, text.encode(), mode=0o640, owner=owner)
