# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agents of a stopped gateway: rows in, files and roster out, and what a kill leaves."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _agents, _durable, _removal
from ansible_collections.claw.fleet.plugins.module_utils._agent_plan import Outcome
from ansible_collections.claw.fleet.plugins.module_utils._agents import Agents, AgentsError
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, Served
from ansible_collections.claw.fleet.plugins.module_utils._manifest import Manifest, ManifestError
from ansible_collections.claw.fleet.plugins.module_utils._roster import Entries, Roster
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import UnitState
from ansible_collections.claw.fleet.plugins.module_utils._workspace import OwnedFile
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import row
from ansible_collections.claw.fleet.tests.unit.plugins.offline import OfflineGateway, Stopped, offline_gateway


@pytest.fixture
def agents(tmp_path: Path) -> Agents:
    return Agents(offline_gateway(tmp_path))


def files(number: int, text: str = "1") -> list[OwnedFile]:
    content = f"coach {number} {text}".encode()
    return [OwnedFile("SOUL.md", content, "agent"), OwnedFile("AGENTS.md", content, "fleet")]


def run(agents: Agents, *rows: dict[str, Any], text: str = "1", **options: Any) -> Outcome:
    contents = {item["agent_id"]: files(item["pk"], text) for item in rows}
    return agents.reconcile(list(rows), contents, **options)


def tree(agents: Agents) -> dict[str, bytes | None]:
    """Everything on disk but the lock and the stamps of removals."""
    root = Path(agents.gateway.state_dir).parent
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
        if path.name != "lock"
    }


def workspace(agents: Agents, number: int) -> Path:
    return Path(agents.gateway.state_dir) / "workspaces" / f"coach-{number}"


def actions(outcome: Outcome) -> list[Any]:
    return [item.get("actions") for item in outcome.results]


def four_shots(agents: Agents, *rows: dict[str, Any], **options: Any) -> Outcome:
    """Check, apply, apply again, check again: prediction and deed are alike, and nothing is done twice."""
    before = tree(agents)
    predicted = run(agents, *rows, check=True, **options)
    assert tree(agents) == before
    done = run(agents, *rows, **options)
    assert done == predicted
    after = tree(agents)
    for check in (False, True):
        again = run(agents, *rows, check=check, **options)
        assert (again.changed, again.diff, again.reloads) == (False, [], 0)
        assert tree(agents) == after
    return done


def test_the_life_of_an_agent(agents: Agents) -> None:
    added = four_shots(agents, row(1), row(2))
    assert actions(added) == [["added", "seeded SOUL.md", "wrote AGENTS.md"]] * 2
    assert [change["after_header"] for change in added.diff][-1] == "roster"

    updated = four_shots(agents, row(1, name="Anna"), row(2), text="2")
    assert actions(updated) == [["updated", "wrote AGENTS.md"], ["wrote AGENTS.md"]]
    assert agents.roster.entries()["coach-1"]["name"] == "Anna"

    paused = four_shots(agents, row(1, wanted="paused"), row(2), text="2")
    assert actions(paused) == [["paused"], None]
    assert (workspace(agents, 1) / "SOUL.md").exists()

    resumed = four_shots(agents, row(1), row(2), text="2")
    assert actions(resumed) == [["resumed"], None]

    removed = four_shots(agents, row(1, wanted="removed"), row(2), text="2")
    assert actions(removed) == [["removed"], None]
    assert list(agents.roster.entries()) == ["coach-2"]
    assert not workspace(agents, 1).exists()
    assert Manifest(agents.gateway).files.keys() == {"coach-2"}

    back = four_shots(agents, row(1), row(2), text="2")
    assert actions(back) == [["added", "seeded SOUL.md", "wrote AGENTS.md"], None]
    assert (workspace(agents, 1) / "SOUL.md").read_bytes() == b"coach 1 2"


def test_a_paused_agent_can_be_removed(agents: Agents) -> None:
    run(agents, row(1))
    run(agents, row(1, wanted="paused"))
    assert actions(four_shots(agents, row(1, wanted="removed"))) == [["removed"]]
    assert not workspace(agents, 1).exists()


def test_a_row_in_error_is_carried_past_and_goes_on_being_served(agents: Agents) -> None:
    run(agents, row(1), row(2))
    failed = row(1, name="New", error={"step": "key", "reason": "because"})
    done = four_shots(agents, failed, row(2))
    assert done.results[0] == failed
    assert (done.changed, done.unlisted) == (False, [])
    assert agents.roster.entries()["coach-1"]["name"] == "Coach 1"


def test_a_bad_row_harms_nobody_else(agents: Agents) -> None:
    done = four_shots(agents, row(1, name="two\nlines"), row(2))
    assert done.results[0]["error"]["step"] == "row"
    assert list(agents.roster.entries()) == ["coach-2"]


def test_a_planted_link_is_that_coachs_error(agents: Agents, tmp_path: Path) -> None:
    run(agents, row(1), row(2))
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (workspace(agents, 1) / "AGENTS.md").unlink()
    (workspace(agents, 1) / "AGENTS.md").symlink_to(precious)
    done = run(agents, row(1), row(2), text="2")
    assert "symbolic link" in done.results[0]["error"]["reason"]
    assert actions(done) == [None, ["wrote AGENTS.md"]]
    assert precious.read_text() == "precious"
    assert agents.roster.entries().keys() == {"coach-1", "coach-2"}


def test_a_conflict_is_told_and_stays(agents: Agents) -> None:
    run(agents, row(1))
    (workspace(agents, 1) / "AGENTS.md").write_text("mine")
    done = four_shots(agents, row(1), text="2")
    assert done.results[0]["conflicts"] == ["AGENTS.md"]
    assert "coach-1: AGENTS.md" in done.warnings[0]
    assert (workspace(agents, 1) / "AGENTS.md").read_text() == "mine"


@pytest.mark.parametrize("left", [False, True])
def test_a_workspace_that_was_lost_is_made_anew_with_her_soul(agents: Agents, left: bool) -> None:
    """Also where somebody else made the directory again, as a container engine does."""
    run(agents, row(1), row(2))
    shutil.rmtree(workspace(agents, 1))
    if left:
        workspace(agents, 1).mkdir(mode=0o700)
    (hers, other) = actions(four_shots(agents, row(1), row(2)))
    assert (hers or [])[:2] == ["seeded SOUL.md", "wrote AGENTS.md"] and other is None


def test_a_lost_workspace_is_made_anew_also_by_the_run_after_a_killed_one(tmp_path: Path) -> None:
    at, came_that_far = 0, True
    while came_that_far:
        place = tmp_path / str(at)
        place.mkdir()
        agents = Agents(offline_gateway(place))
        run(agents, row(1))
        shutil.rmtree(workspace(agents, 1))
        came_that_far = killed_run(agents, at, row(1))
        run(agents, row(1))
        assert sorted(path.name for path in workspace(agents, 1).iterdir()) == ["AGENTS.md", "SOUL.md"]
        assert run(agents, row(1)).changed is False
        at += 1
    assert at > 3


def test_what_an_agent_took_away_of_her_own_stays_away(agents: Agents) -> None:
    run(agents, row(1))
    (workspace(agents, 1) / "SOUL.md").unlink()
    assert not four_shots(agents, row(1)).changed


def test_a_directory_that_was_opened_is_closed_again(agents: Agents) -> None:
    run(agents, row(1))
    workspace(agents, 1).chmod(0o755)
    assert actions(four_shots(agents, row(1))) == [["set workspaces/coach-1 right"]]


def test_who_is_not_in_the_list_is_left_alone(agents: Agents) -> None:
    run(agents, row(1), row(2))
    done = four_shots(agents, row(2))
    assert (done.unlisted, done.purged) == (["coach-1"], [])
    assert four_shots(agents).unlisted == ["coach-1", "coach-2"]


def test_purge_removes_who_is_not_in_the_list(agents: Agents) -> None:
    run(agents, row(1), row(2))
    before = run(agents, row(2), purge=True, check=True)
    done = run(agents, row(2), purge=True)
    assert done == before
    assert (done.unlisted, done.purged) == ([], ["coach-1"])
    assert not workspace(agents, 1).exists()
    assert run(agents, row(2), purge=True).changed is False


def test_purge_wants_a_list_that_can_be_told(agents: Agents) -> None:
    run(agents, row(1), row(2))
    before = tree(agents)
    with pytest.raises(AgentsError, match="the list is empty"):
        run(agents, purge=True)
    with pytest.raises(AgentsError, match="rows with pk 3 are faulty"):
        run(agents, row(2), row(3, agent_id="No Good"), purge=True)
    assert tree(agents) == before


@pytest.mark.parametrize("check", [True, False])
def test_not_more_may_be_removed_than_was_said(agents: Agents, check: bool) -> None:
    run(agents, *(row(number) for number in range(1, 8)))
    before = tree(agents)
    gone = [row(number, wanted="removed") for number in range(1, 8)]
    with pytest.raises(AgentsError, match=r"7 agents would be removed, and at most 5 .* max_removals: 7"):
        run(agents, *gone, check=check)
    with pytest.raises(AgentsError, match="at most 0 may be"):
        run(agents, gone[0], max_removals=0, check=check)
    assert tree(agents) == before
    assert run(agents, *gone, max_removals=7, check=check).changed is True


@pytest.mark.parametrize(("agents_", "limit"), [(0, 5), (100, 5), (119, 5), (120, 6), (200, 10)])
def test_the_limit_is_the_larger_of_5_and_5_percent(agents_: int, limit: int) -> None:
    assert _agents.default_max_removals(agents_) == limit


def test_what_is_open_of_removed_agents_is_told_by_their_id(agents: Agents) -> None:
    run(agents, row(1), row(2))
    database = Path(agents.gateway.state_dir) / "agents/coach-1/agent/openclaw-agent.sqlite"
    database.write_text("old")
    both = {"coach-1", "coach-2"}
    with database.open():
        assert _removal.still_open(agents.gateway, both, set()) == set()
        assert _removal.still_open(agents.gateway, both, {"coach-1"}) == {"coach-1"}
        run(agents, row(1, wanted="removed"), row(2, wanted="removed"))
        assert _removal.still_open(agents.gateway, both, set()) == {"coach-1"}
        assert _removal.still_open(agents.gateway, {"coach-2"}, set()) == set()
        shutil.rmtree(Path(agents.gateway.state_dir) / "removed")
        assert _removal.still_open(agents.gateway, both, set()) == {"coach-1"}
    assert _removal.still_open(agents.gateway, both, set()) == set()


def test_a_broken_manifest_stops_everything(agents: Agents) -> None:
    run(agents, row(1))
    Manifest(agents.gateway).path.write_text("{")
    before = tree(agents)
    with pytest.raises(ManifestError, match="does not hold a manifest"):
        run(agents, row(1), row(2))
    assert tree(agents) == before


DEEDS = ["write", "make_dir", "move", "set_attributes"]


def killed_run(agents: Agents, at: int, *rows: dict[str, Any], **options: Any) -> bool:
    """A run in a child process that is killed before its deed number ``at``; whether it came that far."""
    child = os.fork()
    if child == 0:
        left = [at]
        for name in DEEDS:
            deed = getattr(_durable, name)

            def counted(*a: Any, deed: Any = deed, **k: Any) -> Any:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return deed(*a, **k)

            setattr(_durable, name, counted)
        try:
            run(agents, *rows, **options)
        finally:
            os._exit(0)
    _pid, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ([], [row(1), row(2)]),
        ([row(1), row(2)], [row(1, wanted="removed"), row(2, name="Other")]),
        ([row(1), row(2)], [row(1, wanted="paused"), row(2, wanted="removed"), row(3)]),
    ],
)
def test_a_run_killed_anywhere_is_made_good_by_the_next(
    tmp_path: Path, first: list[dict[str, Any]], then: list[dict[str, Any]]
) -> None:
    at, came_that_far = 0, True
    while came_that_far:
        place = tmp_path / str(at)
        place.mkdir()
        agents = Agents(offline_gateway(place))
        run(agents, *first)
        came_that_far = killed_run(agents, at, *then, text="2")
        entries = agents.roster.entries()
        assert set(entries) in (
            {item["agent_id"] for item in first},
            {item["agent_id"] for item in then if item["wanted"] == "running"},
        )
        done = run(agents, *then, text="2")
        assert [item for item in done.results if item.get("error") or item.get("conflicts")] == []
        assert run(agents, *then, text="2").changed is False
        assert run(agents, *then, text="2", check=True).changed is False
        for item in then:
            there = workspace(agents, item["pk"]).exists()
            assert there is (item["wanted"] != "removed")
            assert (item["agent_id"] in agents.roster.entries()) is (item["wanted"] == "running")
        assert Manifest(agents.gateway).removing == {}
        left = [name for name in tree(agents) if _durable.TEMP_PREFIX in name]
        assert left == []
        at += 1
    assert at > 5


@pytest.mark.parametrize("wanted", ["running", "paused"])
def test_who_is_wanted_again_after_a_killed_removal_keeps_the_key_she_was_given_meanwhile(
    tmp_path: Path, wanted: str
) -> None:
    at, came_that_far = 0, True
    while came_that_far:
        place = tmp_path / str(at)
        place.mkdir()
        agents = Agents(offline_gateway(place))
        run(agents, row(1), row(2))
        came_that_far = killed_run(agents, at, row(1, wanted="removed"), row(2))
        # The step before this one gives whoever is to stay her key.
        key = Path(agents.gateway.state_dir) / "credentials" / "coach-1" / ".credentials.json"
        key.parent.mkdir(parents=True, exist_ok=True)
        key.write_text("her key")
        predicted = run(agents, row(1, wanted=wanted), row(2), check=True)
        done = run(agents, row(1, wanted=wanted), row(2))
        assert done.diff == predicted.diff
        assert key.read_text() == "her key"
        assert run(agents, row(1, wanted=wanted), row(2)).changed is False
        at += 1
    assert at > 5


def test_removed_files_are_found_by_their_id(agents: Agents) -> None:
    state = Path(agents.gateway.state_dir)
    for name in ("coach-1-20260101T000000Z", "coach-1-x-20260101T000000Z"):
        (state / "removed" / name).mkdir(parents=True)
    assert _removal.removed_before(agents.gateway) == {"coach-1", "coach-1-x"}


def test_jobs_of_a_former_agent_go_although_the_first_run_for_the_new_one_was_killed(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(agents, row(1))
    run(agents, row(1, wanted="removed"))
    asked: list[str] = []
    monkeypatch.setattr(Agents, "_wait_running", lambda self: True)
    monkeypatch.setattr(_removal, "remove_jobs", lambda gateway, agent_id: asked.append(agent_id))
    write = _durable.write

    def killed(path: Path, *arguments: Any, **options: Any) -> None:
        if Path(path).name == "SOUL.md":
            raise KeyboardInterrupt
        write(path, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_durable, "write", killed)
        run(agents, row(1))
    run(agents, row(1))
    assert asked == ["coach-1"]


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_gateway_is_told_more_than_once_to_let_go(
    agents: Agents, monkeypatch: pytest.MonkeyPatch, stubborn: bool
) -> None:
    told: list[str] = []

    def let_go(gateway: Gateway, agent_id: str) -> str:
        told.append(agent_id)
        return "busy"

    def still_open(gateway: Gateway, agent_ids: set[str], unfinished: set[str]) -> set[str]:
        return agent_ids if stubborn or len(told) < 2 else set()

    monkeypatch.setattr(_removal, "let_go", let_go)
    monkeypatch.setattr(_removal, "still_open", still_open)
    monkeypatch.setattr(_agents, "_LET_GO_PAUSE_SECONDS", 0)
    monkeypatch.setattr(Agents, "_wait_running", lambda self: True)
    monkeypatch.setattr(Stopped, "state", lambda self: UnitState("active", "running", 1, "success", 0))
    monkeypatch.setattr(OfflineGateway, "ready", lambda self: True)
    monkeypatch.setattr(
        OfflineGateway, "served", lambda self: Served(True, True, agents.roster.entries(), [])
    )
    done = run(agents, row(1)).results[0]
    assert told == ["coach-1"] * (5 if stubborn else 2)
    if stubborn:
        assert "still has its former database open, so it cannot answer yet (busy)" in done["error"]["reason"]
    else:
        assert "error" not in done and "let go of its former database" in done["actions"]


def test_files_of_a_killed_removal_move_only_when_nobody_is_served_from_them(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(agents, row(1))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_removal, "set_aside", _interrupt)
        run(agents, row(1, wanted="removed"))
    done: list[str] = []
    aside = _removal.set_aside

    def set_aside(*arguments: Any, **options: Any) -> bool:
        done.append("set aside")
        return aside(*arguments, **options)

    def prove(self: Roster, wanted: Entries) -> bool:
        done.append(f"proved {sorted(wanted)}")
        return False

    monkeypatch.setattr(_removal, "set_aside", set_aside)
    monkeypatch.setattr(Roster, "_prove_unchanged", prove)
    run(agents, row(1, wanted="removed"))
    assert done[:2] == ["proved []", "set aside"]


def _interrupt(*_arguments: object, **_options: object) -> bool:
    raise KeyboardInterrupt
