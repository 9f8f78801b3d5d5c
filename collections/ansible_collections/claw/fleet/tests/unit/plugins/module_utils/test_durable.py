# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that survive a crash and cannot be redirected."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._durable import DurableError, Owner

COLLECTIONS = Path(__file__).resolve().parents[7]
ME = Owner(os.geteuid(), os.getegid())


def names(directory: Path) -> list[str]:
    """What is in a directory."""
    return [path.name for path in directory.iterdir()]


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that runs ``code`` with _durable imported and ``path`` set."""
    head = (
        "import os, signal, sys, time\n"
        "from ansible_collections.claw.fleet.plugins.module_utils import _durable\n"
        "path = sys.argv[1]\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_write_replaces_with_exact_mode_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for mode, data in ((0o600, b"one"), (0o640, b"two"), (0o400, b""), (0o600, b"three")):
        _durable.write(path, data, mode=mode, owner=ME)
        assert _durable.read(path) == data
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert names(tmp_path) == ["file"]


def test_absent_is_none(tmp_path: Path) -> None:
    assert _durable.read(tmp_path / "no") is None
    assert _durable.read(tmp_path / "no" / "deeper", root=tmp_path) is None
    assert _durable.inspect(tmp_path / "no" / "deeper", root=tmp_path) is None
    assert _durable.list_dir(tmp_path / "no") == []
    assert _durable.remove(tmp_path / "no") is False


@pytest.mark.parametrize("planted", ["file", "directory"])
def test_no_planted_link_is_followed(tmp_path: Path, planted: str) -> None:
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "root"
    elsewhere.mkdir()
    root.mkdir()
    (elsewhere / "file").write_text("precious")
    path = root / "dir" / "file"
    if planted == "file":
        path.parent.mkdir()
        path.symlink_to(elsewhere / "file")
    else:
        path.parent.symlink_to(elsewhere)
    with pytest.raises(DurableError):
        _durable.read(path, root=root)
    with pytest.raises(DurableError):
        _durable.write(path, b"mine", mode=0o600, root=root)
    with pytest.raises(DurableError):
        _durable.set_attributes(path, mode=0o777, root=root)
    with pytest.raises(DurableError):
        _durable.make_dir(path / "deeper", mode=0o700, root=root)
    if planted == "directory":
        with pytest.raises(DurableError):
            _durable.remove(path, root=root)
        with pytest.raises(DurableError):
            _durable.move(path, root / "moved", root=root)
    assert (elsewhere / "file").read_text() == "precious"
    assert names(elsewhere) == ["file"]


def test_links_above_the_root_are_trusted(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    _durable.write(tmp_path / "link" / "file", b"x", mode=0o600, root=tmp_path / "link")
    assert (tmp_path / "real" / "file").read_bytes() == b"x"


def test_hard_links_and_irregular_files_are_refused(tmp_path: Path) -> None:
    file, other, fifo = tmp_path / "file", tmp_path / "other", tmp_path / "fifo"
    file.write_text("x")
    other.hardlink_to(file)
    os.mkfifo(fifo)
    for path in (file, fifo):
        with pytest.raises(DurableError, match=r"hard links|not a regular file"):
            _durable.read(path)
        with pytest.raises(DurableError, match=r"hard links|not a regular file"):
            _durable.write(path, b"y", mode=0o600)
    assert other.read_text() == "x"


@pytest.mark.parametrize("path", ["relative", "/tmp/a/../b"])
def test_only_plain_absolute_paths(path: str) -> None:
    with pytest.raises(DurableError, match="plain absolute path"):
        _durable.read(path)


def test_nothing_outside_the_root(tmp_path: Path) -> None:
    with pytest.raises(DurableError, match="does not lie below"):
        _durable.write(tmp_path / "file", b"", mode=0o600, root=tmp_path / "root")


def test_directories_are_made_below_the_root_and_set_right(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    assert _durable.make_dir(deep, mode=0o700, owner=ME, root=tmp_path) is True
    assert _durable.make_dir(deep, mode=0o700, owner=ME, root=tmp_path) is False
    deep.chmod(0o755)
    assert _durable.make_dir(deep, mode=0o700, owner=ME, root=tmp_path) is True
    assert _durable.inspect(deep, tmp_path) == _durable.Entry("directory", 0o700, ME, 2)


def test_move_does_not_overwrite_unless_told(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    with pytest.raises(DurableError, match="already"):
        _durable.move(one, two)
    _durable.move(one, two, replace=True)
    assert (one.exists(), two.read_text()) == (False, "1")


def test_a_killed_writer_leaves_the_old_file_and_its_leftover_goes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    killed = python(
        "os.rename = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "_durable.write(path, b'new', mode=0o600)\n",
        path,
    )
    assert killed.wait(20) == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(names(tmp_path)) == 2
    _durable.write(path, b"newer", mode=0o600)
    assert names(tmp_path) == ["file"]


def test_the_leftover_of_a_living_writer_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    living = python(
        "rename = os.rename\n"
        "def wait(*a, **k):\n"
        "    print('here', flush=True)\n"
        "    while not os.path.exists(path + '.go'): time.sleep(0.01)\n"
        "    rename(*a, **k)\n"
        "os.rename = wait\n"
        "_durable.write(path, b'slow', mode=0o600)\n",
        path,
    )
    assert living.stdout is not None
    assert living.stdout.readline() == "here\n"
    _durable.write(path, b"quick", mode=0o600)
    assert path.read_bytes() == b"quick"
    Path(f"{path}.go").touch()
    assert living.wait(20) == 0
    assert path.read_bytes() == b"slow"


def test_many_writers_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    faults: list[Exception] = []

    def write(number: int) -> None:
        try:
            for _round in range(200):
                _durable.write(path, b"%d" % number * 1000, mode=0o600)
        except DurableError as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert path.read_bytes() in {b"%d" % number * 1000 for number in range(4)}
    assert names(tmp_path) == ["file"]


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = python(
        "with _durable.lock(path):\n    print('held', flush=True)\n    time.sleep(60)\n",
        path,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(DurableError, match=f"held by process {holder.pid} "),
        _durable.lock(path, timeout=0.2),
    ):
        raise AssertionError("two hold the lock")
    holder.kill()
    holder.wait()
    with _durable.lock(path, timeout=0.2):
        assert path.read_text() == f"{os.getpid()}\n"


def test_acting_as_oneself_is_nothing_and_as_another_needs_root(tmp_path: Path) -> None:
    with _durable.as_user(*ME):
        assert (os.geteuid(), os.getegid()) == ME
    if ME.uid == 0:
        groups = os.getgroups()
        with _durable.as_user(65534, 65534):
            assert (os.geteuid(), os.getegid(), os.getgroups()) == (65534, 65534, [])
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, ME.gid, groups)
    else:
        with pytest.raises(DurableError, match="only root"), _durable.as_user(ME.uid + 1, ME.gid):
            raise AssertionError("acted as another")


def test_a_lock_is_held_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    path = tmp_path / "lock"
    with (
        _durable.lock(path),
        pytest.raises(DurableError, match="held by another process"),
        _durable.lock(path, timeout=0),
    ):
        raise AssertionError("two hold the lock")
