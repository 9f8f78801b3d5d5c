"""What a workspace holds too much of, as the program on a machine with sandboxes sees it."""

from __future__ import annotations

import os
import runpy
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.claw.fleet.plugins.module_utils._durable import as_user

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "collections/ansible_collections/claw/fleet/roles/sandbox/files/workspaces.py"
Holds = Callable[[Path, int, int], str | None]


@pytest.fixture(scope="module")
def holds() -> Holds:
    """The program's own measure."""
    found: Holds = runpy.run_path(str(PROGRAM))["holds"]
    return found


def test_what_fits_is_left_alone(tmp_path: Path, holds: Holds) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "deep" / "deeper" / "note").write_bytes(b"x" * 5000)
    assert holds(tmp_path, 100_000, 3) is None


def test_bytes_are_counted_at_any_depth(tmp_path: Path, holds: Holds) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "deep" / "deeper" / "note").write_bytes(b"x" * 100_000)
    assert holds(tmp_path, 50_000, 100) == "more than 50000 bytes"


def test_a_file_of_holes_counts_as_what_it_takes(tmp_path: Path, holds: Holds) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(10**6)
    assert holds(tmp_path, 50_000, 100) is None


def test_files_are_counted_too(tmp_path: Path, holds: Holds) -> None:
    for number in range(4):
        (tmp_path / str(number)).touch()
    assert holds(tmp_path, 10**9, 3) == "more than 3 files"


def test_what_lies_too_deep_to_be_counted_is_too_much(tmp_path: Path, holds: Holds) -> None:
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(20):
            os.mkdir("d" * 250)  # noqa: PTH102 - no path of it can be told
            os.chdir("d" * 250)
        with open("beyond", "wb") as file:  # noqa: PTH123
            file.write(b"x" * 2**20)
    finally:
        os.chdir(here)
    assert holds(tmp_path, 2**30, 1000) == "something that cannot be looked at (File name too long)"
    # pytest itself cannot remove it.
    subprocess.run(["rm", "-rf", tmp_path / ("d" * 250)], check=True)


def test_no_link_is_followed(tmp_path: Path, holds: Holds) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    (tmp_path / "workspace" / "file").symlink_to(tmp_path / "large")
    (tmp_path / "workspace" / "up").symlink_to(tmp_path)
    assert holds(tmp_path / "workspace", 50_000, 3) is None


def test_a_workspace_that_is_gone_holds_nothing(tmp_path: Path, holds: Holds) -> None:
    assert holds(tmp_path / "none", 1, 1) is None


NOBODY = 65534


@contextmanager
def a_workspace_of_nobodys() -> Iterator[Path]:
    """Within the block we are nobody too: root may look at everything."""
    whom = (NOBODY, NOBODY) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    with as_user(*whom), tempfile.TemporaryDirectory() as place:
        yield Path(place)
        Path(place).chmod(0o700)


def test_a_directory_that_is_shut_could_hold_anything(holds: Holds) -> None:
    with a_workspace_of_nobodys() as workspace:
        (workspace / "shut").mkdir(mode=0)
        try:
            assert holds(workspace, 10**9, 100) == "a directory that is shut"
        finally:
            (workspace / "shut").chmod(0o700)


def test_who_shuts_her_workspace_ends_nobodys_watch(holds: Holds) -> None:
    with a_workspace_of_nobodys() as workspace:
        workspace.chmod(0)
        assert holds(workspace, 10**9, 100) == "a directory that is shut"


def test_a_workspace_that_may_not_be_looked_at_is_not_an_empty_one(holds: Holds) -> None:
    with a_workspace_of_nobodys(), pytest.raises(PermissionError):
        holds(Path("/root"), 10**9, 100)
