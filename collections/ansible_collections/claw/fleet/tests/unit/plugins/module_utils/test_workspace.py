# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose file is it: what the fleet writes over and what it leaves alone, also across kills."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from ansible_collections.claw.fleet.plugins.module_utils._durable import DurableError
from ansible_collections.claw.fleet.plugins.module_utils._workspace import (
    OwnedFile,
    Record,
    Workspace,
    ahead,
    behind,
    refuse_dest,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def run(
    place: Path, record: Record, files: list[OwnedFile], die: str = "", *, due: bool = True
) -> tuple[Record, list[str]]:
    """A run that may be killed "ahead" of the files or "behind" them; the saved record and what was done."""
    workspace = Workspace(place, place.parent)
    steps = workspace.plan(files, record, due=due)
    saved = ahead(steps, record)
    if die == "ahead":
        return saved, []
    workspace.write(steps)
    if die == "behind":
        return saved, []
    return behind(steps, saved), [step.action for step in steps]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    workspace = tmp_path / "coach"
    workspace.mkdir()
    return workspace


def test_a_fleet_file_follows_its_template_until_somebody_changes_it(place: Path) -> None:
    record: Record = {}
    for content, done in ((b"1", "write"), (b"1", "keep"), (b"2", "write")):
        record, actions = run(place, record, [OwnedFile("AGENTS.md", content, "fleet")])
        assert actions == [done]
        assert (place / "AGENTS.md").read_bytes() == content
    (place / "AGENTS.md").write_bytes(b"mine")
    for content in (b"2", b"3"):
        record, actions = run(place, record, [OwnedFile("AGENTS.md", content, "fleet")])
        assert actions == ["conflict"]
        assert (place / "AGENTS.md").read_bytes() == b"mine"
    (place / "AGENTS.md").unlink()
    record, actions = run(place, record, [OwnedFile("AGENTS.md", b"3", "fleet")])
    assert actions == ["write"]


def test_a_changed_template_alone_does_not_reach_a_settled_coach(place: Path) -> None:
    record, actions = run(place, {}, [OwnedFile("AGENTS.md", b"1", "fleet")])
    record, actions = run(place, record, [OwnedFile("AGENTS.md", b"2", "fleet")], due=False)
    assert actions == ["outdated"]
    assert (place / "AGENTS.md").read_bytes() == b"1"
    (place / "AGENTS.md").unlink()
    record, actions = run(place, record, [OwnedFile("AGENTS.md", b"2", "fleet")], due=False)
    assert actions == ["write"], "what is missing is made good for everybody"


def test_a_seed_is_sown_once(place: Path) -> None:
    seed = [OwnedFile("SOUL.md", b"born", "agent")]
    record, actions = run(place, {}, seed)
    assert actions == ["seed"]
    (place / "SOUL.md").write_bytes(b"grown")
    record, actions = run(place, record, [OwnedFile("SOUL.md", b"another", "agent")])
    assert (actions, (place / "SOUL.md").read_bytes()) == (["keep"], b"grown")
    (place / "SOUL.md").unlink()
    record, actions = run(place, record, seed)
    assert actions == ["keep"]
    assert not (place / "SOUL.md").exists()


def test_what_was_there_before_the_fleet_is_left_alone(place: Path) -> None:
    (place / "AGENTS.md").write_bytes(b"by hand")
    (place / "SOUL.md").write_bytes(b"by hand")
    files = [OwnedFile("AGENTS.md", b"x", "fleet"), OwnedFile("SOUL.md", b"x", "agent")]
    assert run(place, {}, files)[1] == ["conflict", "keep"]


def test_files_in_directories(place: Path) -> None:
    run(place, {}, [OwnedFile("notes/today/list.md", b"x", "agent")])
    assert (place / "notes/today/list.md").read_bytes() == b"x"


def test_a_planted_link_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (place / "AGENTS.md").symlink_to(tmp_path / "target")
    with pytest.raises(DurableError, match="symbolic link"):
        run(place, {}, [OwnedFile("AGENTS.md", b"x", "fleet")])


def test_a_change_between_plan_and_write_is_not_lost(place: Path) -> None:
    workspace = Workspace(place, place.parent)
    steps = workspace.plan([OwnedFile("AGENTS.md", b"x", "fleet")], {}, due=True)
    (place / "AGENTS.md").write_bytes(b"just now")
    with pytest.raises(DurableError, match="changed by somebody else"):
        workspace.write(steps)
    assert (place / "AGENTS.md").read_bytes() == b"just now"


@given(
    st.lists(
        st.tuples(st.sampled_from([b"1", b"2", b"3"]), st.sampled_from(["", "ahead", "behind", "edit"])),
        max_size=12,
    )
)
@settings(deadline=None, max_examples=200)
def test_kills_never_look_like_edits_and_edits_are_never_lost(story: list[tuple[bytes, str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "coach"
        place.mkdir()
        file, edited = place / "AGENTS.md", False
        record: Record = {}
        for content, event in story:
            if event == "edit":
                file.write_bytes(b"edited by the agent")
                edited = True
                continue
            record, actions = run(place, record, [OwnedFile("AGENTS.md", content, "fleet")], event)
            if edited:
                assert file.read_bytes() == b"edited by the agent"
                assert actions in ([], ["conflict"])
            elif not event:
                assert file.read_bytes() == content
                assert "conflict" not in actions


@pytest.mark.parametrize(
    ("dest", "owner"),
    [
        ("", "agent"),
        ("/etc/passwd", "agent"),
        ("../SOUL.md", "agent"),
        ("a/../../b", "agent"),
        ("a//b", "agent"),
        ("./a", "agent"),
        (".openclaw/x", "agent"),
        ("a/.credentials.json", "agent"),
        ("a\nb", "agent"),
        ("a\\b", "agent"),
        ("a/", "agent"),
        ("TOOLS.md", "fleet"),
        ("MEMORY.md", "fleet"),
        ("memory/x.md", "fleet"),
        (7, "agent"),
    ],
)
def test_unsafe_and_senseless_paths_are_refused(dest: object, owner: str) -> None:
    assert refuse_dest(dest, owner)


@pytest.mark.parametrize(
    ("dest", "owner"),
    [("SOUL.md", "agent"), ("MEMORY.md", "agent"), ("AGENTS.md", "fleet"), ("docs/how to.md", "fleet")],
)
def test_plain_paths_are_taken(dest: str, owner: str) -> None:
    assert refuse_dest(dest, owner) is None
