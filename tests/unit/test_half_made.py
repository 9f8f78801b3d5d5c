"""What a killed gateway has begun of its databases goes, and nothing else; that it matters is shown by a real gateway."""

from __future__ import annotations

import runpy
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

PROGRAM = (
    Path(__file__).resolve().parents[2]
    / "collections/ansible_collections/claw/fleet/roles/gateway/files/half_made.py"
)
main: Callable[[Path], None] = runpy.run_path(str(PROGRAM))["main"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An agent's database, which is not there yet."""
    path = tmp_path / "agents" / "anna" / "agent" / "openclaw-agent.sqlite"
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """It, as OpenClaw begins it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL")
        yield database


def killed(path: Path, place: Path) -> Path:
    """A state directory with what the disk has of it now, as a killed process leaves it."""
    state = place / "killed"
    agent = state / "agents" / "anna" / "agent"
    agent.mkdir(parents=True)
    for name in path.parent.iterdir():
        shutil.copy(name, agent / name.name)
    return state


def test_one_that_was_only_begun_goes(
    path: Path, database: sqlite3.Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database.execute("BEGIN")
    database.execute("CREATE TABLE memory (text)")
    state = killed(path, tmp_path)
    main(state)
    assert [name for name in state.rglob("*") if name.is_file()] == []
    assert "anna" in caplog.text and "nothing in it" in caplog.text


def test_an_empty_file_goes(path: Path, tmp_path: Path) -> None:
    path.touch()
    main(tmp_path)
    assert not path.exists()


@pytest.mark.parametrize("statement", ["CREATE TABLE memory (text)", "CREATE VIEW one AS SELECT 1"])
def test_one_with_anything_in_it_stays_also_where_that_is_in_its_log(
    path: Path, database: sqlite3.Connection, tmp_path: Path, statement: str
) -> None:
    database.execute(statement)
    state = killed(path, tmp_path)
    main(state)
    with closing(sqlite3.connect(next(state.rglob("*.sqlite")))) as kept:
        assert kept.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


def test_one_that_somebody_is_at_work_in_stays(
    path: Path, database: sqlite3.Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database.execute("BEGIN IMMEDIATE")
    main(tmp_path)
    assert path.exists() and "locked" in caplog.text


@pytest.mark.parametrize("other", ["link", "directory", "no database"])
def test_what_is_no_database_stays(path: Path, tmp_path: Path, other: str) -> None:
    made: dict[str, Callable[[], Any]] = {
        "link": lambda: path.symlink_to(tmp_path / "elsewhere"),
        "directory": path.mkdir,
        "no database": lambda: path.write_text("what is this?" * 100),
    }
    (tmp_path / "elsewhere").touch()
    made[other]()
    main(tmp_path)
    assert path.is_symlink() or path.exists()
    assert (tmp_path / "elsewhere").exists()
