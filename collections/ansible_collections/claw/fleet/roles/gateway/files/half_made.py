# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes what a gateway that was killed has begun of its agents' databases: half_made.py STATE_DIR, before it starts.

OpenClaw makes an agent's database in two steps: a file with nothing in it and then, in one transaction, all its tables.
Killed between the two, as for want of memory in an agent's first turn, it refuses to start from then on (78, "has no
schema ownership metadata"), with all its agents. A database without any table is nobody's memory, so it goes, and
OpenClaw makes it anew. (Its own, state/openclaw.sqlite, it goes on with.)
"""

from __future__ import annotations

import logging
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

DATABASES = "agents/*/agent/openclaw-agent.sqlite"
BESIDE = ("-wal", "-shm", "-journal")
_LOG = logging.getLogger("half_made")


def main(state_dir: Path) -> None:
    """Look at every agent's database of a gateway that does not run."""
    for path in sorted(state_dir.glob(DATABASES)):
        try:
            if is_empty(path):
                remove(path)
                _LOG.warning(
                    "%s was begun when the gateway was killed, with nothing in it; it is removed.", path
                )
        except (OSError, sqlite3.Error) as error:
            # What is to be said of it, and whether it can start with it, is OpenClaw's.
            _LOG.warning("%s cannot be looked at: %s", path, error)


def is_empty(path: Path) -> bool:
    """Whether there is a database with nothing in it, also by what is still in its log, that nobody is at work in."""
    if path.is_symlink() or not path.is_file():
        return False
    with closing(sqlite3.connect(path.as_uri() + "?mode=rw", uri=True, timeout=0)) as database:
        database.execute("BEGIN EXCLUSIVE")
        return database.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


def remove(path: Path) -> None:
    """Remove it, and first what SQLite keeps beside it, which must never come to lie beside another one."""
    for beside in (*(path.with_name(path.name + end) for end in BESIDE), path):
        beside.unlink(missing_ok=True)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    main(Path(sys.argv[1]))
