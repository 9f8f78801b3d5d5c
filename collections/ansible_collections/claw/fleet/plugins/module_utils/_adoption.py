# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking over the agents of a gateway that was set up by other hands: their memories, sessions and keys.

PRIVATE to claw.fleet: may change at any time.

All is copied and nothing moved, so the former gateway can be started again as it was. An agent's things are copied
below ``<state>/adopting/<id>/``, marked complete, and only then moved to their places; what was taken over is written
to ``<config_dir>/adopted.json``. A run that was killed anywhere is finished by the next, and a coach who was taken
over once is never taken over again, whatever became of her since.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import _coach, _durable
from ansible_collections.claw.fleet.plugins.module_utils._coach import Row
from ansible_collections.claw.fleet.plugins.module_utils._former import (
    FormerAgent,
    FormerError,
    FormerGateway,
    Found,
    Tree,
)
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway
from ansible_collections.claw.fleet.plugins.module_utils._keys import FINAL, Credentials

_STAGE = "adopting"
_COMPLETE = "complete"
_PLACES = {"credentials": "credentials", "workspace": "workspaces", "agent": "agents"}
_STEP = "adoption"
_DIR_MODE = 0o700


class AdoptionError(Exception):
    """The takeover as a whole cannot be done and nothing was changed; str() is a plain sentence."""


class Adopted(NamedTuple):
    """What was done, or would be.

    ``results``: the rows whose agents the former gateway has or had; ``changed``; ``unlisted``: ids of its agents
    without a coach, which stay where they are; ``diff`` in Ansible's form; ``warnings`` for people.
    """

    results: list[Row]
    changed: bool
    unlisted: list[str]
    diff: list[dict[str, str]]
    warnings: list[str]


class Adoption:
    """One gateway that takes over another's agents."""

    def __init__(self, gateway: Gateway, former: FormerGateway, *, key_file: str, key_field: str) -> None:
        """``key_file``: where in a workspace an agent's key is; ``key_field``: the field of that JSON file."""
        self.gateway = gateway
        self.former = former
        self._key_file = key_file
        self._key_field = key_field
        self._state = Path(gateway.state_dir)
        self._record_path = Path(gateway.config_dir) / "adopted.json"

    def adopt(self, rows: list[Row], *, api_url: str, check: bool = False) -> Adopted:
        """Take over the agents of ``rows`` whom the former gateway has; it must be stopped, except in check mode."""
        rows = _coach.check_rows(rows)
        agents = self.former.agents()
        record = self._record()
        mine = [row for row in rows if row["agent_id"] in agents or row["agent_id"] in record]
        known = {row["agent_id"] for row in rows}
        due = [row for row in mine if row["agent_id"] not in record and row["wanted"] != "removed"]
        if due:
            self._refuse_other_version()
            if not check and self.former.in_use():
                raise AdoptionError(
                    f"a process still has databases below {self.former.state_dir} open; stop the former gateway, so "
                    "that what is copied is whole, and run again"
                )
        if not check:
            self._sweep(record)
        diff: list[dict[str, str]] = []
        warnings = self._scheduled(due)
        changed = False
        for row in due:
            if _coach.has_error(row):
                continue
            try:
                self._adopt(row, agents[row["agent_id"]], record, api_url, check, diff, warnings)
                changed = True
            except (_durable.DurableError, FormerError) as error:
                row["error"] = _coach.error(_STEP, str(error))
        unlisted = sorted(agents.keys() - known - record.keys())
        return Adopted(mine, changed, unlisted, diff, warnings)

    def _scheduled(self, due: list[Row]) -> list[str]:
        """What stays behind of those who are to be taken over: a job's rights are the former gateway's to give."""
        jobs = self.former.jobs() if due else {}
        return [
            f"{row['agent_id']} has scheduled jobs, which stay with the former gateway and run no more: "
            f"{', '.join(jobs[row['agent_id']])}. Have them made anew on {self.gateway.name}"
            for row in due
            if row["agent_id"] in jobs
        ]

    def _adopt(
        self,
        row: Row,
        agent: FormerAgent,
        record: dict[str, Any],
        api_url: str,
        check: bool,
        diff: list[dict[str, str]],
        warnings: list[str],
    ) -> None:
        agent_id = agent.agent_id
        stage = self._state / _STAGE / agent_id
        complete = self._inspect(stage / _COMPLETE) is not None
        if not complete:
            for place in _PLACES.values():
                if self._inspect(self._state / place / agent_id) is not None:
                    raise _durable.DurableError(
                        f"{self._state / place / agent_id} is there already, so {agent_id} cannot be taken over; if "
                        "that is a new agent made by mistake, set her removed in Django, provision, and run again"
                    )
        key = self._key(row, agent, api_url)
        workspace, home = agent.tree(but=self._key_file)
        count, size = len(workspace.files) + len(home.files), workspace.size + home.size
        row["actions"] = [
            f"took over {count} files ({size} bytes) from {agent.workspace} and {agent.homes[0][0]}"
        ]
        diff.append(_shown(agent_id, self._state, workspace, home, key is not None))
        if workspace.others or home.others:
            left = ", ".join(workspace.others + home.others)
            warnings.append(f"{agent_id}: links and special files are not taken over: {left}")
        if check:
            return
        if not complete:
            self._copy(stage, workspace, home, key)
        self._commit(stage, agent_id, record)

    def _key(self, row: Row, agent: FormerAgent, api_url: str) -> Credentials | None:
        """The agent's key as the fleet keeps it; None if there never was one."""
        path = agent.workspace / self._key_file
        data = _durable.read(path, root=agent.workspace)
        if data is None:
            if not row["key_sha256"]:
                return None
            raise FormerError(
                f"Django knows a key of {agent.agent_id}, and there is no {path} that could hold it; a new key "
                "would end what still uses the old one. Give key_file, or rotate her key in Django to have a new one"
            )
        key: Any = None
        with suppress(ValueError, AttributeError):
            key = json.loads(data).get(self._key_field)
        if not isinstance(key, str) or not key:
            raise FormerError(
                f"{path} has no {self._key_field}; give key_field, the name of the field with the key"
            )
        generation = row["key_generation"] or row["key_wanted_generation"]
        found = Credentials(agent.agent_id, key, api_url, row["key_id"] or "adopted", generation)
        if row["key_sha256"] and found.sha256 != row["key_sha256"]:
            raise FormerError(
                f"the key in {path} is not the one that Django knows for {agent.agent_id}; find out which one is in "
                "use, or rotate her key in Django to have a new one"
            )
        return found if row["key_id"] else replace(found, key_id=f"former-{found.sha256[:12]}")

    def _copy(self, stage: Path, workspace: Tree, home: Tree, key: Credentials | None) -> None:
        with _durable.as_user(*self.gateway.owner):
            if self._inspect(stage) is not None:
                # A copy that was cut short. It is below our own directory, and rmtree follows no links.
                shutil.rmtree(stage)
            _durable.make_dir(stage, mode=_DIR_MODE, root=self._state)
        for name, tree in (("workspace", workspace), ("agent", home)):
            self._make(stage / name)
            for relative in tree.directories:
                self._make(stage / name / relative)
            for file in tree.files:
                self._copy_file(file, stage / name / file.dest)
        if key is not None:
            self._make(stage / "credentials")
            data = (json.dumps(asdict(key), indent=1) + "\n").encode()
            self._write(stage / "credentials" / FINAL, data, 0o600)
        self._write(stage / _COMPLETE, b"", 0o600)

    def _copy_file(self, file: Found, dest: Path) -> None:
        data = _durable.read(file.path, root=file.top)
        if data is None:
            raise _durable.DurableError(f"{file.path} went away while it was copied; run again")
        self._write(dest, data, 0o700 if file.executable else 0o600)

    def _commit(self, stage: Path, agent_id: str, record: dict[str, Any]) -> None:
        with _durable.as_user(*self.gateway.owner):
            for name, place in _PLACES.items():
                if self._inspect(stage / name) is not None:
                    _durable.make_dir(self._state / place, mode=_DIR_MODE, root=self._state)
                    _durable.move(stage / name, self._state / place / agent_id, root=self._state)
        record[agent_id] = {
            "from": str(self.former.state_dir),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _durable.write(self._record_path, (json.dumps(record, indent=1) + "\n").encode(), mode=0o600)
        self._sweep(record)

    def _sweep(self, record: dict[str, Any]) -> None:
        """Remove what is left of the stages of those who were taken over."""
        stages = self._state / _STAGE
        with _durable.as_user(*self.gateway.owner):
            for agent_id in _durable.list_dir(stages, root=self._state):
                if agent_id in record:
                    shutil.rmtree(stages / agent_id)

    def _make(self, path: Path) -> None:
        with _durable.as_user(*self.gateway.owner):
            _durable.make_dir(path, mode=_DIR_MODE, root=self._state)

    def _write(self, path: Path, data: bytes, mode: int) -> None:
        with _durable.as_user(*self.gateway.owner):
            _durable.write(path, data, mode=mode, root=self._state)

    def _inspect(self, path: Path) -> _durable.Entry | None:
        return _durable.inspect(path, root=self._state)

    def _record(self) -> dict[str, Any]:
        data = _durable.read(self._record_path)
        if data is None:
            return {}
        with suppress(ValueError):
            found = json.loads(data)
            if isinstance(found, dict):
                return found
        raise AdoptionError(
            f"{self._record_path} does not say who was taken over; restore it from a backup, so that nobody is taken "
            "over twice"
        )

    def _refuse_other_version(self) -> None:
        if self.former.version not in ("", self.gateway.version):
            raise AdoptionError(
                f"{self.former.config} was written by OpenClaw {self.former.version}, and gateway {self.gateway.name} "
                f"runs {self.gateway.version}. Bring the former gateway to that version first, which migrates its data"
            )


def _shown(agent_id: str, state: Path, workspace: Tree, home: Tree, key: bool) -> dict[str, str]:
    """What is copied where, in Ansible's form."""
    lines = [f"{state}/workspaces/{agent_id}/{file.dest}" for file in workspace.files]
    lines += [f"{state}/agents/{agent_id}/{file.dest}" for file in home.files]
    lines += [f"{state}/credentials/{agent_id}/{FINAL}"] if key else []
    header = f"{agent_id}: taken over"
    return {
        "before_header": header,
        "after_header": header,
        "before": "",
        "after": "".join(f"{line}\n" for line in lines),
    }
