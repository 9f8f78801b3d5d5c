# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking over a stopped gateway: what is copied, what is refused, and what a kill leaves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._adoption import Adopted, Adoption, AdoptionError
from ansible_collections.claw.fleet.plugins.module_utils._former import FormerError, FormerGateway
from ansible_collections.claw.fleet.plugins.module_utils._keys import Keys
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import row
from ansible_collections.claw.fleet.tests.unit.plugins.offline import offline_gateway

API = "https://app.example.com/api/"


class Machine:
    """A former gateway with two agents, and the gateway of the fleet that takes over."""

    def __init__(self, place: Path) -> None:
        self.gateway = offline_gateway(place)
        self.state = Path(self.gateway.state_dir)
        self.former = place / "former"
        self.agents: list[dict[str, Any]] = [{"id": "operator", "workspace": str(self.former / "workspace")}]
        for number in (1, 2):
            workspace = place / "ws" / f"coach-{number}"
            own = self.former / "agents" / f"coach-{number}" / "agent"
            (workspace / "memory").mkdir(parents=True)
            own.mkdir(parents=True)
            (workspace / "SOUL.md").write_text(f"soul {number}")
            (workspace / "memory" / "day.md").write_text("sesame")
            (workspace / ".credentials.json").write_text(
                json.dumps({"api_key": self.key(number), "url": "x"})
            )
            (own / "openclaw-agent.sqlite").write_bytes(b"sessions")
            self.agents.append({"id": f"Coach-{number}", "workspace": str(workspace)})
        self.config({"agents": {"list": self.agents}})

    @staticmethod
    def key(number: int) -> str:
        return f"old-key-{number}"

    def config(self, content: Any) -> None:
        (self.former / "openclaw.json").write_text(
            content if isinstance(content, str) else json.dumps(content)
        )

    def row(self, number: int, **more: Any) -> dict[str, Any]:
        sha256 = hashlib.sha256(self.key(number).encode()).hexdigest()
        known = {"status": "active", "observed_generation": 1, "key_sha256": sha256, "key_generation": 1}
        return row(number, **{**known, **more})

    def adopt(self, *rows: dict[str, Any], check: bool = False) -> Adopted:
        adoption = Adoption(
            self.gateway, FormerGateway(str(self.former)), key_file=".credentials.json", key_field="api_key"
        )
        return adoption.adopt(list(rows), api_url=API, check=check)

    def tree(self, *tops: Path) -> dict[str, bytes | None]:
        return {
            str(path): path.read_bytes() if path.is_file() else None
            for top in tops or (self.state, Path(self.gateway.config_dir))
            for path in sorted(top.rglob("*"))
        }


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def reason(done: Adopted) -> str:
    return str(done.results[0]["error"]["reason"])


def test_all_is_copied_and_nothing_taken_away(machine: Machine, tmp_path: Path) -> None:
    before = machine.tree(machine.former, tmp_path / "ws")
    empty = machine.tree()
    predicted = machine.adopt(machine.row(1), machine.row(2), row(3), check=True)
    assert machine.tree() == empty

    done = machine.adopt(machine.row(1), machine.row(2), row(3))
    assert done == predicted
    assert (done.changed, done.unlisted) == (True, ["operator"])
    assert [item["agent_id"] for item in done.results] == ["coach-1", "coach-2"]
    assert machine.tree(machine.former, tmp_path / "ws") == before
    assert (machine.state / "workspaces/coach-1/memory/day.md").read_text() == "sesame"
    assert (machine.state / "agents/coach-2/agent/openclaw-agent.sqlite").read_bytes() == b"sessions"
    assert not (machine.state / "workspaces/coach-1/.credentials.json").exists()
    assert not (machine.state / "adopting/coach-1").exists()

    for check in (False, True):
        again = machine.adopt(machine.row(1), machine.row(2), row(3), check=check)
        assert (again.changed, again.diff) == (False, [])
        assert [item["agent_id"] for item in again.results] == ["coach-1", "coach-2"]


def test_the_key_stays_the_one_that_django_knows(machine: Machine) -> None:
    machine.adopt(machine.row(1))
    (told,), changed = Keys(machine.gateway).prepare([machine.row(1)], state="present", api_url=API)
    assert (told["key"]["need"], changed) == ("", False)
    (kept,) = (machine.state / "credentials/coach-1").iterdir()
    assert json.loads(kept.read_text())["api_key"] == machine.key(1)
    assert kept.stat().st_mode & 0o777 == 0o600


def test_what_became_of_her_is_not_written_over(machine: Machine) -> None:
    machine.adopt(machine.row(1))
    (machine.state / "workspaces/coach-1/SOUL.md").write_text("grown")
    (machine.state / "agents/coach-1/agent/openclaw-agent.sqlite").unlink()
    assert machine.adopt(machine.row(1)).changed is False
    assert (machine.state / "workspaces/coach-1/SOUL.md").read_text() == "grown"


def test_entries_and_an_agent_directory_elsewhere(machine: Machine, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "auth-profiles.json").write_text("{}")
    (elsewhere / "openclaw-agent.sqlite").write_text("not the one that counts")
    entry = {"workspace": machine.agents[1]["workspace"], "agentDir": str(elsewhere)}
    machine.config({"agents": {"entries": {"coach-1": entry}}})
    machine.adopt(machine.row(1))
    agent = machine.state / "agents/coach-1/agent"
    assert (agent / "auth-profiles.json").read_text() == "{}"
    assert (agent / "openclaw-agent.sqlite").read_bytes() == b"sessions"


def test_links_are_named_and_not_followed(machine: Machine, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    workspace = tmp_path / "ws/coach-1"
    (workspace / "link").symlink_to(secret)
    (workspace / "directory").symlink_to(tmp_path)
    os.link(secret, workspace / "hard")
    done = machine.adopt(machine.row(1))
    for name in ("link", "directory", "hard"):
        assert str(workspace / name) in done.warnings[0]
        assert not os.path.lexists(machine.state / "workspaces/coach-1" / name)


@pytest.mark.parametrize(
    ("content", "known", "message"),
    [
        (None, {}, "Django knows a key of coach-1, and there is no"),
        ("{}", {}, "has no api_key"),
        ('{"api_key": "another"}', {}, "is not the one that Django knows"),
    ],
)
def test_a_key_that_is_not_djangos_stops_her_alone(
    machine: Machine, tmp_path: Path, content: str | None, known: dict[str, Any], message: str
) -> None:
    path = tmp_path / "ws/coach-1/.credentials.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    done = machine.adopt(machine.row(1, **known), machine.row(2))
    assert message in reason(done)
    assert "another" not in reason(done)
    assert "error" not in done.results[1]
    assert not (machine.state / "workspaces/coach-1").exists()


def test_without_any_key_she_is_taken_over_and_gets_one_later(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "ws/coach-1/.credentials.json").unlink()
    done = machine.adopt(machine.row(1, key_sha256="", key_generation=0))
    assert done.changed
    assert not (machine.state / "credentials").exists()


def test_an_agent_who_is_here_already_is_not_written_over(machine: Machine) -> None:
    (machine.state / "workspaces/coach-1").mkdir(parents=True)
    done = machine.adopt(machine.row(1))
    assert "is there already" in reason(done)


def test_a_gateway_that_runs_is_not_copied(machine: Machine) -> None:
    with (machine.former / "agents/coach-1/agent/openclaw-agent.sqlite").open():
        assert machine.adopt(machine.row(1), check=True).changed
        with pytest.raises(AdoptionError, match="stop the former gateway"):
            machine.adopt(machine.row(1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("// a comment\n{}", "is not plain JSON"),
        ({"agents": {"list": [{"id": "coach-1", "workspace": "../up"}]}}, "not a plain absolute path"),
    ],
)
def test_a_config_that_cannot_be_read_stops_everything(machine: Machine, content: Any, message: str) -> None:
    machine.config(content)
    with pytest.raises(FormerError, match=message):
        machine.adopt(machine.row(1))


def test_another_version_is_migrated_first(machine: Machine) -> None:
    machine.config({"meta": {"lastTouchedVersion": "1"}, "agents": {"list": machine.agents}})
    with pytest.raises(AdoptionError, match="was written by OpenClaw 1"):
        machine.adopt(machine.row(1))


def test_a_run_killed_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    at, came_that_far = 0, True
    while came_that_far:
        place = tmp_path / str(at)
        place.mkdir()
        machine = Machine(place)
        came_that_far = _killed(machine, at)
        done = machine.adopt(machine.row(1), machine.row(2))
        assert [item.get("error") for item in done.results] == [None, None]
        assert machine.adopt(machine.row(1), machine.row(2)).changed is False
        for number in (1, 2):
            assert (machine.state / f"workspaces/coach-{number}/memory/day.md").read_text() == "sesame"
            assert (machine.state / f"credentials/coach-{number}/.credentials.json").is_file()
        assert list((machine.state / "adopting").iterdir()) == []
        at += 1
    assert at > 20


def _killed(machine: Machine, at: int) -> bool:
    """A run in a child process that is killed before its deed number ``at``; whether it came that far."""
    child = os.fork()
    if child == 0:
        left = [at]
        for room, name in (
            (_durable, "write"),
            (_durable, "make_dir"),
            (_durable, "move"),
            (shutil, "rmtree"),
        ):
            deed = getattr(room, name)

            def counted(*a: Any, deed: Any = deed, **k: Any) -> Any:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return deed(*a, **k)

            setattr(room, name, counted)
        try:
            machine.adopt(machine.row(1), machine.row(2))
        finally:
            os._exit(0)
    _pid, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_what_is_scheduled_and_stays_behind_is_told(machine: Machine) -> None:
    state = machine.former / "state"
    state.mkdir()
    jobs = [
        ("coach-1", "evening", "agentTurn"),
        ("coach-1", "heartbeat", "heartbeat"),
        ("operator", "x", "agentTurn"),
    ]
    with closing(sqlite3.connect(state / "openclaw.sqlite")) as database:
        database.execute("CREATE TABLE cron_jobs (agent_id, name, payload_kind)")
        database.executemany("INSERT INTO cron_jobs VALUES (?, ?, ?)", jobs)
        database.commit()
    for check in (True, False):
        (warning,) = machine.adopt(machine.row(1), machine.row(2), check=check).warnings
        assert warning.startswith("coach-1 has scheduled jobs") and ": evening. Have them" in warning
    assert machine.adopt(machine.row(1), machine.row(2)).warnings == []


def test_a_database_that_tells_no_jobs_stops_it_before_anything_is_copied(machine: Machine) -> None:
    (machine.former / "state").mkdir()
    (machine.former / "state" / "openclaw.sqlite").write_bytes(b"no database")
    before = machine.tree()
    with pytest.raises(FormerError, match="does not tell which jobs are scheduled"):
        machine.adopt(machine.row(1))
    assert machine.tree() == before
