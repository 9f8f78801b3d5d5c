# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has the tokens of the machine's gateways where the tunnel's watcher reads them: tokens.py CONFIG_DIR PLACE GROUP.

It is root for that moment. A token lies in a directory of its gateway's, which could have put a link there to what another
gateway, or the machine, keeps secret, and would be told it; so no link is followed, as systemd's LoadCredential would.
One that cannot be read keeps the watcher from none of the others.
"""

from __future__ import annotations

import grp
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _durable import DurableError, Owner, read, write

STATES = Path("/var/lib/claw")
READ_BY_GROUP = 0o640


def main(config_dir: Path, place: Path, group: str) -> None:
    """Entry point."""
    owner = Owner(0, grp.getgrnam(group).gr_gid)
    place.mkdir(mode=0o700, exist_ok=True)
    os.chown(place, *owner)
    # Whatever the unit's umask takes away.
    place.chmod(0o750)
    tokens = {}
    for known in sorted((config_dir / "gateways.d").glob("*.json")):
        state = STATES / known.stem
        try:
            token = read(state / "token", root=state)
        except DurableError as error:
            sys.stderr.write(f"{error}\n")
            continue
        if token:
            tokens[known.stem] = token
    for left in place.iterdir():
        if left.name not in tokens:
            left.unlink()
    for name, token in tokens.items():
        write(place / name, token, mode=READ_BY_GROUP, owner=owner)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
