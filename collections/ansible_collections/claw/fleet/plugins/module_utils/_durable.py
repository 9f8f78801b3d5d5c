# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that survive a crash and cannot be redirected by a planted link.

PRIVATE to claw.fleet: may change at any time.

A write is: temporary file in the same directory, fsync, rename, fsync of the directory. Ansible's own
``atomic_move`` renames but never syncs, so a power cut can leave an empty file.

``root`` names a directory that is trusted as it stands. Every component below it is opened without following
links, because what lies there may belong to somebody who would like us to write elsewhere. Without ``root``
the file's own directory is what is trusted.

Everything here raises `DurableError`, whose text is a sentence for people.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

TEMP_PREFIX = ".claw-tmp."
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_POLL_SECONDS = 0.1
_TEMP_ATTEMPTS = 20


class DurableError(Exception):
    """A file operation that was refused or failed; str() is a plain sentence."""


class Owner(NamedTuple):
    """Numeric owner and group of a file."""

    uid: int
    gid: int


class Entry(NamedTuple):
    """What a path is: kind ("file", "directory", "link", "other"), permission bits, owner, links to it."""

    kind: str
    mode: int
    owner: Owner
    links: int


@contextmanager
def lock(path: str | Path, timeout: float = 60.0) -> Iterator[None]:
    """Hold the exclusive lock file ``path`` (made 0600 if absent), waiting at most ``timeout`` seconds.

    The kernel drops the lock with its holder, however that ends, so a lock is never stale.
    """
    path = Path(path)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DurableError(f"cannot open the lock {path}: {error.strerror}") from error
    try:
        deadline = time.monotonic() + timeout
        while not _try_lock(fd):
            if time.monotonic() >= deadline:
                raise DurableError(
                    f"{path} is still held by {_holder(fd)} after {timeout:g} s; "
                    "wait for that run to end, or end it, and run again"
                )
            time.sleep(_LOCK_POLL_SECONDS)
        # Who holds it is for a message to others, and no reason not to hold it on a full disk.
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def read(path: str | Path, root: str | Path | None = None) -> bytes | None:
    """The bytes of a regular file with a single link, or None if it (or its directory) is absent."""
    try:
        with _parent(path, root) as (directory, name):
            # O_NONBLOCK: a planted fifo must not hang the run.
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refusal(path, error, "read") from error
    with os.fdopen(fd, "rb") as stream:
        _require_plain(path, os.fstat(stream.fileno()))
        return stream.read()


def write(
    path: str | Path, data: bytes, *, mode: int, owner: Owner | None = None, root: str | Path | None = None
) -> None:
    """Replace ``path`` by ``data`` durably, with exactly this mode and owner. Its directory must exist.

    Leftovers of killed writers of the same file are cleaned on the way.
    """
    try:
        with _parent(path, root) as (directory, name):
            found = _stat(directory, name)
            if found is not None:
                _require_plain(path, found)
            _clean_leftovers(directory, name)
            for _attempt in range(_TEMP_ATTEMPTS):
                if _write_once(directory, name, data, mode, owner):
                    return
    except OSError as error:
        raise _refusal(path, error, "write") from error
    raise DurableError(f"cannot write {path}: another process keeps removing the temporary file beside it")


def make_dir(
    path: str | Path, *, mode: int, owner: Owner | None = None, root: str | Path | None = None
) -> bool:
    """Have the directory ``path`` with this mode and owner; true if anything changed.

    Missing directories between ``root`` and ``path`` are made alike; existing ones are left as they are.
    """
    changed = False
    for step in _steps(path, root):
        try:
            with _parent(step, root) as (directory, name):
                try:
                    os.mkdir(name, 0o700, dir_fd=directory)
                    made = True
                except FileExistsError:
                    made = False
                fd = os.open(name, _OPEN_DIR, dir_fd=directory)
                try:
                    if made or step == Path(path):
                        changed |= _set_attributes(fd, mode, owner) or made
                    if made:
                        os.fsync(fd)
                        os.fsync(directory)
                finally:
                    os.close(fd)
        except OSError as error:
            raise _refusal(step, error, "make the directory") from error
    return changed


def set_attributes(
    path: str | Path, *, mode: int, owner: Owner | None = None, root: str | Path | None = None
) -> bool:
    """Give an existing regular file or directory this mode and owner; true if anything changed."""
    try:
        with _parent(path, root) as (directory, name):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=directory)
            try:
                found = os.fstat(fd)
                if not stat.S_ISDIR(found.st_mode):
                    _require_plain(path, found)
                changed = _set_attributes(fd, mode, owner)
                if changed:
                    os.fsync(fd)
                return changed
            finally:
                os.close(fd)
    except OSError as error:
        raise _refusal(path, error, "set mode and owner of") from error


def inspect(path: str | Path, root: str | Path | None = None) -> Entry | None:
    """What ``path`` is, without following it; None if it (or its directory) is absent."""
    try:
        with _parent(path, root) as (directory, name):
            found = _stat(directory, name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refusal(path, error, "look at") from error
    if found is None:
        return None
    kind = "other"
    for test, word in ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link")):
        if test(found.st_mode):
            kind = word
    owner = Owner(found.st_uid, found.st_gid)
    return Entry(kind, stat.S_IMODE(found.st_mode), owner, found.st_nlink)


def list_dir(path: str | Path, root: str | Path | None = None) -> list[str]:
    """The sorted names in a directory; empty if it is absent."""
    try:
        with _parent(path, root) as (directory, name):
            fd = os.open(name, _OPEN_DIR, dir_fd=directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _refusal(path, error, "list") from error
    try:
        with os.scandir(fd) as found:
            return sorted(entry.name for entry in found)
    finally:
        os.close(fd)


def move(src: str | Path, dst: str | Path, *, root: str | Path | None = None, replace: bool = False) -> None:
    """Rename durably. An existing ``dst`` is refused, or with ``replace`` replaced if it is a plain file."""
    try:
        with _parent(src, root) as (from_dir, from_name), _parent(dst, root) as (to_dir, to_name):
            found = _stat(to_dir, to_name)
            if found is not None:
                if not replace:
                    raise DurableError(f"cannot move {src} to {dst}: there is something at {dst} already")
                _require_plain(dst, found)
            os.rename(from_name, to_name, src_dir_fd=from_dir, dst_dir_fd=to_dir)
            # The new name first: a crash in between may show both names, never none.
            os.fsync(to_dir)
            os.fsync(from_dir)
    except OSError as error:
        raise _refusal(src, error, f"move to {dst}") from error


def remove(path: str | Path, *, root: str | Path | None = None) -> bool:
    """Remove a file or link durably; false if it was absent."""
    try:
        with _parent(path, root) as (directory, name):
            os.unlink(name, dir_fd=directory)
            os.fsync(directory)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _refusal(path, error, "remove") from error
    return True


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """Do what follows with this effective user, group and no others; nothing if that is who we are.

    For everything below a directory that belongs to an unprivileged user: whatever that user plants there,
    we can do no more than the user could.
    """
    if (os.geteuid(), os.getegid()) == (uid, gid):
        yield
        return
    if os.geteuid() != 0:
        raise DurableError(f"only root can act as the user with uid {uid}; run this with become")
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


@contextmanager
def _parent(path: str | Path, root: str | Path | None) -> Iterator[tuple[int, str]]:
    """An open descriptor of the directory of ``path``, and the last component's name."""
    names = _below(path, root)
    fd = os.open(Path(root) if root is not None else Path(path).parent, _OPEN_DIR & ~os.O_NOFOLLOW)
    try:
        for name in names[:-1]:
            inner = os.open(name, _OPEN_DIR, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd, names[-1]
    finally:
        os.close(fd)


def _below(path: str | Path, root: str | Path | None) -> tuple[str, ...]:
    path = Path(path)
    if not path.is_absolute() or ".." in path.parts:
        raise DurableError(f"{path} is not a plain absolute path")
    if root is None:
        return (path.name,)
    if Path(root) not in path.parents:
        raise DurableError(f"{path} does not lie below {root}")
    return path.relative_to(root).parts


def _steps(path: str | Path, root: str | Path | None) -> list[Path]:
    """The directories from just below the root down to ``path`` itself."""
    path = Path(path)
    depth = len(_below(path, root))
    return [*reversed(path.parents[: depth - 1]), path]


def _stat(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _require_plain(path: str | Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise DurableError(f"{path} is not a regular file; move it away and run again")
    # It has none in the moment in which another writer takes its place.
    if found.st_nlink > 1:
        raise DurableError(f"{path} has {found.st_nlink} hard links; replace it by a copy and run again")


def _refusal(path: str | Path, error: OSError, deed: str) -> DurableError:
    reason = error.strerror or str(error)
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        reason = "a component of the path is a symbolic link or not a directory, and links are not followed"
    return DurableError(f"cannot {deed} {path}: {reason}")


def _set_attributes(fd: int, mode: int, owner: Owner | None) -> bool:
    found = os.fstat(fd)
    changed = False
    if owner is not None and (found.st_uid, found.st_gid) != owner:
        os.fchown(fd, owner.uid, owner.gid)
        changed = True
    if stat.S_IMODE(found.st_mode) != mode:
        os.fchmod(fd, mode)
        changed = True
    return changed


def _write_once(directory: int, name: str, data: bytes, mode: int, owner: Owner | None) -> bool:
    """One attempt; false if a cleaner took the temporary file for a leftover before it was locked."""
    temp = f"{TEMP_PREFIX}{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temp, flags, 0o600, dir_fd=directory)
    try:
        # The lock tells a cleaner that this file's writer is alive; it ends with the process.
        fcntl.flock(fd, fcntl.LOCK_EX)
        with os.fdopen(os.dup(fd), "wb") as stream:
            stream.write(data)
        _set_attributes(fd, mode, owner)
        os.fsync(fd)
        if os.fstat(fd).st_nlink == 0:
            return False
        os.rename(temp, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
        return True
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temp, dir_fd=directory)
        raise
    finally:
        os.close(fd)


def _clean_leftovers(directory: int, name: str) -> None:
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries]
    for found in names:
        if not found.startswith(f"{TEMP_PREFIX}{name}."):
            continue
        try:
            fd = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            # Not ours to judge: our own temporary files can always be opened by the user who made them.
            continue
        try:
            if _try_lock(fd):
                os.unlink(found, dir_fd=directory)
        except FileNotFoundError:
            pass
        finally:
            os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> str:
    pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    if not pid.isdigit():
        return "another process"
    try:
        command = Path(f"/proc/{pid}/comm").read_text("utf-8").strip()
    except OSError:
        return f"process {pid}"
    return f"process {pid} ({command})"
