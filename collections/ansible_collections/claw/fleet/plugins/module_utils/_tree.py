# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenClaw's tree: what npm makes of one lock file, with OpenClaw and the Node it runs on.

PRIVATE to claw.fleet: may change at any time.

A tree is made beside its place and renamed into it when it is complete and on the disk, under a lock: whoever sees
the directory sees all of it, however many makers there are and wherever they are killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import _command, _durable

# The names of processors: Python's and Linux's on the left, npm's on the right.
ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}
_UNFINISHED = ".unfinished-"
_LOCK_SECONDS = 1800


class TreeError(Exception):
    """A tree that cannot be made or is not what the lock file says; str() is a plain sentence."""


class Lock(NamedTuple):
    """What a lock file pins. ``package``, ``content``: the bytes of package.json and package-lock.json."""

    package: bytes
    content: bytes
    openclaw: str
    node: dict[str, str]

    @property
    def name(self) -> str:
        """The name of the tree's directory."""
        return f"{self.openclaw}-{hashlib.sha256(self.content).hexdigest()[:12]}"


class Tree(NamedTuple):
    """Where things are in a tree, for one architecture in npm's words."""

    path: Path
    arch: str

    @property
    def node(self) -> Path:
        """The Node binary."""
        return self.path / "node_modules" / f"node-linux-{self.arch}" / "bin" / "node"

    @property
    def entry(self) -> Path:
        """What Node runs."""
        return self.path / "node_modules" / "openclaw" / "openclaw.mjs"

    @property
    def present(self) -> bool:
        """Whether it is there; it is renamed into its place only when it is complete."""
        return self.path.is_dir()


def read_lock(package: bytes, content: bytes) -> Lock:
    """What these two files pin; refused unless every package has an integrity."""
    try:
        json.loads(package)
        packages: dict[str, dict[str, Any]] = json.loads(content)["packages"]
        openclaw = str(packages["node_modules/openclaw"]["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise TreeError(
            f"the lock file is not a package-lock.json (version 2 or 3) that pins openclaw: {error!r}; make it "
            "with `npm install --package-lock-only` beside a package.json that depends on openclaw"
        ) from error
    loose = sorted(name for name, entry in packages.items() if name and not _pinned(entry))
    if loose:
        raise TreeError(f"the lock file has no integrity for {', '.join(loose[:5])}; make it again with npm")
    node = {
        arch: str(packages[f"node_modules/node-linux-{arch}"]["version"])
        for arch in ARCHITECTURES.values()
        if f"node_modules/node-linux-{arch}" in packages
    }
    return Lock(package, content, openclaw, node)


def _pinned(entry: Mapping[str, Any]) -> bool:
    # A bundled package is inside the archive of the one that brings it, whose integrity covers it.
    return bool(entry.get("integrity") or entry.get("inBundle"))


def build(
    tree: Tree,
    lock: Lock,
    npm: Sequence[str],
    environment: Mapping[str, str],
    *,
    foreign: bool,
    private_cache: bool,
) -> bool:
    """Have the tree, by npm from its registry; false if it was there.

    Args:
        npm: the command.
        environment: added to the process's own, for npm.
        foreign: the tree is for another machine than this one: its processor is named to npm, and its Node is not run.
        private_cache: keep npm's cache out of the user's home, and throw it away.
    """

    def fill(place: Path) -> None:
        _write_lock(place, lock.package, lock.content)
        command = [*npm, "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"]
        cache = place / ".npm-cache"
        command += [f"--cache={cache}"] if private_cache else []
        command += ["--os=linux", f"--cpu={tree.arch}", "--libc=glibc"] if foreign else []
        settings = {**os.environ, **environment}
        if not foreign:
            # npm leaves out what the Node it runs on is too old for; so it runs on the Node that the lock file pins.
            node = _node_alone(place / ".node", tree.arch, lock, command, settings)
            settings["PATH"] = f"{node.parent}:{settings.get('PATH', os.defpath)}"
        _command.run(command, place, settings)
        shutil.rmtree(place / ".node", ignore_errors=True)
        shutil.rmtree(cache, ignore_errors=True)
        _verify(Tree(place, tree.arch), lock, foreign=foreign)

    return _make(tree.path, fill)


def _node_alone(
    place: Path, arch: str, lock: Lock, command: Sequence[str], settings: Mapping[str, str]
) -> Path:
    """The pinned Node by itself, checked against the same integrity."""
    name = f"node-linux-{arch}"
    wanted = {"name": "node", "version": "1.0.0", "dependencies": {name: lock.node[arch]}}
    content = json.loads(lock.content)
    module = f"node_modules/{name}"
    packages = {"": wanted, module: {**content["packages"][module], "optional": False}}
    place.mkdir()
    locked = {**wanted, "lockfileVersion": 3, "packages": packages}
    _write_lock(place, json.dumps(wanted).encode(), json.dumps(locked).encode())
    _command.run(command, place, settings)
    return Tree(place, arch).node


def _write_lock(place: Path, package: bytes, content: bytes) -> None:
    """What npm installs by."""
    _durable.write(place / "package.json", package, mode=0o644)
    _durable.write(place / "package-lock.json", content, mode=0o644)


def pack(archive: Path, tree: Tree) -> bool:
    """Have the tree as one archive, everything root's; false if it was there."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    def fill(place: Path) -> None:
        # Fast rather than small: it goes over the wire once for each machine.
        with tarfile.open(place / archive.name, "w:gz", compresslevel=1) as bundle:
            bundle.add(tree.path, arcname=".", filter=plain)

    return _make(archive.parent, fill)


def unpack(tree: Tree, lock: Lock, archive: Path) -> bool:
    """Have the tree from an archive that `pack` made; false if it was there."""

    def fill(place: Path) -> None:
        _command.run(["tar", "-xzf", str(archive), "--no-same-owner", "-C", str(place)], place, os.environ)
        if (place / "package-lock.json").read_bytes() != lock.content:
            raise TreeError(f"{archive} was made from another lock file than the one given")
        _verify(Tree(place, tree.arch), lock, foreign=False)

    return _make(tree.path, fill)


def _make(target: Path, fill: Callable[[Path], None]) -> bool:
    """Have the directory ``target`` with what ``fill`` puts into it; false if it was there."""
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _durable.lock(target.parent / ".lock", timeout=_LOCK_SECONDS):
        if target.is_dir():
            return False
        with _unfinished(target) as place:
            fill(place)
            # Some ten thousand files: syncing everything once is cheaper than each by itself.
            os.sync()
            place.rename(target)
        os.sync()
    return True


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    # Under the lock nobody else is making anything: what is unfinished was left by somebody who was killed.
    for left in target.parent.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left)
    place = target.parent / f"{_UNFINISHED}{target.name}"
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _verify(tree: Tree, lock: Lock, *, foreign: bool) -> None:
    try:
        found = json.loads((tree.entry.parent / "package.json").read_bytes())["version"]
    except (OSError, ValueError, KeyError) as error:
        raise TreeError(f"the tree that was made holds no OpenClaw: {error}") from error
    if found != lock.openclaw or not tree.entry.is_file():
        raise TreeError(f"the tree that was made holds OpenClaw {found}, not {lock.openclaw}")
    if not tree.node.is_file():
        raise TreeError(f"the lock file pins no Node for this processor (package node-linux-{tree.arch})")
    absent = sorted(name for name in _native(lock, tree.arch) if not (tree.path / name).is_dir())
    if absent:
        raise TreeError(
            f"npm left out {', '.join(absent)}; let it run on Node {lock.node[tree.arch]} or one near it"
        )
    if not foreign:
        _try_out(tree, lock)


def _native(lock: Lock, arch: str) -> list[str]:
    """The packages that the lock file holds for just this kind of machine."""
    packages: dict[str, dict[str, Any]] = json.loads(lock.content)["packages"]
    return [
        name
        for name, entry in packages.items()
        if "linux" in entry.get("os", [])
        and arch in entry.get("cpu", [])
        and "glibc" in entry.get("libc", ["glibc"])
    ]


def _try_out(tree: Tree, lock: Lock) -> None:
    """Run what was made, here where it will be used.

    OpenClaw's first run completes its package in place of the install scripts that npm did not run. Gateways cannot
    do that, because they cannot write here.
    """
    home = tree.path / ".first-run"
    home.mkdir(mode=0o700)
    environment = {
        "HOME": str(home),
        "OPENCLAW_STATE_DIR": str(home),
        "PATH": f"{tree.node.parent}:/usr/bin:/bin",
    }
    version = _command.run([str(tree.node), "--version"], home, environment).strip()
    if version != f"v{lock.node[tree.arch]}":
        raise TreeError(f"the tree that was made holds Node {version}, not v{lock.node[tree.arch]}")
    said = _command.run([str(tree.node), str(tree.entry), "--version"], home, environment).strip()
    if lock.openclaw not in said:
        raise TreeError(f"the OpenClaw that was made calls itself {said!r}, not {lock.openclaw}")
    if (tree.entry.parent / ".openclaw-lifecycle-pending").exists():
        raise TreeError("OpenClaw did not complete its package when it was first run")
    shutil.rmtree(home)
