"""What a bare rename of the roster file costs: changes it as anybody could, and waits until the gateway serves it.

    bare_roster.py NAME add ID ...       agents more
    bare_roster.py NAME drop ID ...      agents less

Prints the seconds from the rename until it is served. Needs the standard library alone, because it runs on the
machines.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.1


def main(name: str, verb: str, *ids: str) -> None:
    """Rename, and wait."""
    descriptor = json.loads(Path("/etc/claw", name, "gateway.json").read_text())
    path = Path(descriptor["roster"])
    entries = json.loads(path.read_text())
    state = Path(descriptor["state_dir"])
    owner = state.stat()
    for agent_id in ids:
        if verb == "drop":
            del entries[agent_id]
            continue
        workspace, own = state / "workspaces" / agent_id, state / "agents" / agent_id
        for place in (workspace.parent, workspace, own.parent, own, own / "agent", own / "sessions"):
            if not place.is_dir():
                place.mkdir(mode=0o700)
                os.chown(place, owner.st_uid, owner.st_gid)
        entries[agent_id] = {"name": agent_id, "workspace": str(workspace), "agentDir": str(own / "agent")}
    temporary = path.with_name("agents.json.bare")
    temporary.write_text(json.dumps(entries))
    temporary.chmod(0o640)
    os.chown(temporary, path.stat().st_uid, path.stat().st_gid)
    began = time.monotonic()
    temporary.replace(path)
    while not _serves(descriptor, entries):
        time.sleep(POLL_SECONDS)
    sys.stdout.write(f"{time.monotonic() - began:.3f}\n")


def _serves(descriptor: dict[str, Any], entries: dict[str, Any]) -> bool:
    token = Path(descriptor["token_file"]).read_text().strip()
    connection = http.client.HTTPConnection("127.0.0.1", descriptor["port"], timeout=60)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    try:
        connection.request("POST", "/api/v1/admin/rpc", '{"method": "config.get", "params": {}}', headers)
        found = json.load(connection.getresponse())["payload"]
    except (OSError, KeyError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    served = set(found["sourceConfig"]["agents"]["entries"]) - {"main", "$include"}
    return found["configRevisionHash"] == found["appliedConfigHash"] and served == set(entries)


if __name__ == "__main__":
    main(*sys.argv[1:])
