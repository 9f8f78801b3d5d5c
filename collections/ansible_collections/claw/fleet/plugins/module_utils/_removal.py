# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Setting aside what a removed agent leaves: its workspace, its own directory, its credentials.

PRIVATE to claw.fleet: may change at any time.

An agent is removed when it has left the roster. Nothing is deleted: its directories are moved under
``<state>/removed/<id>-<stamp>/``. The same id may come back and must find nothing, with one difficulty: a
running OpenClaw keeps the agent's database open under the agent's id, whatever its directory, long after its
last use. An agent that comes back meanwhile gets an error at each turn, until the gateway lets go of the file.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ansible_collections.claw.fleet.plugins.module_utils import _durable, _processes
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayRefused

_KEYED = "credentials"
_PLACES = {"workspace": "workspaces", "agent": "agents", _KEYED: "credentials"}


def stamp() -> str:
    """The name of a removal: the time in UTC, as 20260131T235959Z."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def leftovers(gateway: Gateway, agent_id: str, *, comes_back: bool = False) -> list[str]:
    """The directories of an agent that exist and are to go, relative to the state directory.

    ``comes_back``: she is to stay by now, so the credentials that are there are the ones she has been given since.
    """
    state = Path(gateway.state_dir)
    found = (f"{place}/{agent_id}" for name, place in _PLACES.items() if not (comes_back and name == _KEYED))
    return [path for path in found if _durable.inspect(state / path, root=state) is not None]


def set_aside(gateway: Gateway, agent_id: str, stamp: str, *, comes_back: bool = False) -> bool:
    """Move what is left of an agent to its place among the removed; whether there was anything to move.

    May be repeated after a crash with the same stamp. The caller acts as the gateway's user. ``comes_back``: as above.
    """
    state = Path(gateway.state_dir)
    goal = state / "removed" / f"{agent_id}-{stamp}"
    names = {place: name for name, place in _PLACES.items()}
    found = leftovers(gateway, agent_id, comes_back=comes_back)
    for path in found:
        _durable.make_dir(goal, mode=0o700, root=state)
        _durable.move(state / path, goal / names[path.partition("/")[0]], root=state)
    return bool(found)


def removed_before(gateway: Gateway) -> set[str]:
    """The ids of which something was set aside."""
    state = Path(gateway.state_dir)
    return {name.rpartition("-")[0] for name in _durable.list_dir(state / "removed", root=state)}


def still_open(gateway: Gateway, agent_ids: set[str], unfinished: set[str]) -> set[str]:
    """Those of these ids whose removed files a process of the gateway's user holds open.

    Also where somebody has deleted those files since. ``unfinished``: ids whose files are yet to be moved, so
    what is open at their old place counts. Needs root's eyes: the gateway may run in a user namespace, where
    its own user cannot look.
    """
    if not agent_ids:
        return set()
    held: set[str] = set()
    for path in _processes.open_paths(gateway.owner.uid):
        place, _slash, name = path.removeprefix(f"{gateway.state_dir}/").partition("/")
        name = name.partition("/")[0]
        if place == "removed":
            held.add(name.rpartition("-")[0])
        elif place == "agents" and name in unfinished:
            held.add(name)
    return held & agent_ids


def let_go(gateway: Gateway, agent_id: str) -> str:
    """Have the running gateway close what it holds open of an agent that came back and is served; its words.

    OpenClaw has one call that closes an agent's database: the first step of deleting the agent. The deletion
    itself it refuses, and rolls back, because the roster is not its own to write; so the refusal is the good
    answer here, and whether the files were closed is for `still_open` to tell.
    """
    try:
        gateway.rpc("agents.delete", {"agentId": agent_id, "deleteFiles": False})
    except GatewayRefused as error:
        return error.reason
    return "it said that the agent was deleted"


def remove_jobs(gateway: Gateway, agent_id: str) -> bool:
    """Remove the scheduled jobs of an agent, which the gateway keeps outside of the agent's directories."""
    changed = False
    while True:
        page = gateway.rpc("cron.list", {"agentId": agent_id, "includeDisabled": True})
        found = [job["id"] for job in page.get("jobs") or [] if job.get("agentId") == agent_id]
        for job_id in found:
            gateway.rpc("cron.remove", {"id": job_id})
            changed = True
        if not found or not page.get("hasMore"):
            return changed
