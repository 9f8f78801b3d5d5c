# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the processes of a user hold open, and who listens on a port.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import pwd
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"


def open_paths(uid: int) -> set[str]:
    """The paths of all files that processes of this user hold open. Needs root's eyes, or that user's."""
    paths: set[str] = set()
    for process in _PROC.iterdir():
        # What ends or is closed while we look is not held open.
        with suppress(OSError):
            if process.name.isdigit() and process.stat().st_uid == uid:
                for descriptor in (process / "fd").iterdir():
                    with suppress(OSError):
                        paths.add(str(descriptor.readlink()))
    return paths


def listener(port: int | None) -> str:
    """The user of the process that listens on this TCP port of any address."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text("ascii").splitlines()[1:]
        except FileNotFoundError:
            continue
        for fields in (line.split() for line in lines):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                uid = int(fields[7])
                try:
                    return pwd.getpwuid(uid).pw_name
                except KeyError:
                    return f"uid {uid}"
    return ""
