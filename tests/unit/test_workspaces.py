"""What a workspace holds too much of, as the program on a machine with sandboxes sees it."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_no_link_is_followed(tmp_path: Path, holds: Holds) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    (tmp_path / "workspace" / "file").symlink_to(tmp_path / "large")
    (tmp_path / "workspace" / "up").symlink_to(tmp_path)
    assert holds(tmp_path / "workspace", 50_000, 3) is None


def test_a_workspace_that_is_gone_holds_nothing(tmp_path: Path, holds: Holds) -> None:
    assert holds(tmp_path / "none", 1, 1) is None
