# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running a program that installs something, and saying what it said where it fails.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# A registry may be slow and a package large.
_SECONDS = 1800
_SHOWN_CHARACTERS = 1500
_SHOWN_WORDS = 5


class CommandError(Exception):
    """A program could not be run or failed; str() is a plain sentence with its last words."""


def run(command: Sequence[str], place: Path, environment: Mapping[str, str]) -> str:
    """What the program printed, run in this directory with just this environment; what it makes, all may read."""
    try:
        done = subprocess.run(
            command,
            cwd=place,
            env=dict(environment),
            umask=0o022,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            # mmdebstrap ends every process of its group, us too, where it cannot write.
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"cannot run {command[0]}: {error}") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip())[-_SHOWN_CHARACTERS:]
        shown = " ".join(command[:_SHOWN_WORDS])
        raise CommandError(f"`{shown}` failed with status {done.returncode}: {words}")
    return done.stdout
