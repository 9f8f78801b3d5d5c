"""What is on a gateway's machine, by one look: `python3 probe.py GATEWAY` there, as root; JSON.

It stands alone and knows the files and the admin call, not our code, so that it can contradict that.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

TEMPORARY = (".claw-tmp.", ".claw-validate")


def main(name: str) -> dict[str, Any]:
    """Everything that has to hold together."""
    gateway = json.loads(Path(f"/etc/claw/{name}/gateway.json").read_text())
    state, config = Path(gateway["state_dir"]), Path(gateway["config_dir"])
    manifest = config / "manifest.json"
    return {
        "pid": _unit(gateway["unit"]),
        "roster": json.loads(Path(gateway["roster"]).read_text()),
        "served": _served(gateway["port"], state),
        "workspaces": _names(state / "workspaces"),
        "removing": sorted(json.loads(manifest.read_text())["removing"] if manifest.exists() else {}),
        "keys": _keys(state / "credentials", ".credentials.json"),
        "pending": _keys(state / "credentials", ".credentials.json.pending")
        | _secrets(state, "token.pending"),
        "secrets": _secrets(state, "token", "token.former", "provider-*.key"),
        "temporary": sorted(
            str(path)
            for top in (state, config)
            for path in top.rglob(".claw-*")
            if path.name.startswith(TEMPORARY)
        ),
        "foreign": _foreign(state, pwd.getpwnam(gateway["user"]).pw_uid),
    }


def _unit(unit: str) -> str:
    command = ["systemctl", "show", "-P", "MainPID", unit]
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()


def _served(port: int, state: Path) -> dict[str, Any]:
    """The entries that the running gateway read from its roster and has applied."""
    try:
        found = _config(port, state / "token")
    except urllib.error.HTTPError:
        # Its token is being changed, and it has not read the new one yet.
        found = _config(port, state / "token.former")
    if not found["valid"] or found["configRevisionHash"] != found["appliedConfigHash"]:
        return {"not applied": found.get("issues")}
    own = found["parsed"]["agents"]["entries"]
    entries = found["sourceConfig"]["agents"]["entries"]
    return {name: entry for name, entry in entries.items() if name not in own}


def _config(port: int, token: Path) -> dict[str, Any]:
    """What the running gateway tells of its config."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/admin/rpc",
        json.dumps({"method": "config.get", "params": {}}).encode(),
        {"authorization": f"Bearer {token.read_text().strip()}", "content-type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)["payload"]
        return found


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def _keys(directory: Path, file: str) -> dict[str, dict[str, str]]:
    """The id and the hash of each key, which never leaves the machine itself."""
    found = {}
    for path in directory.glob(f"*/{file}"):
        content = json.loads(path.read_text())
        digest = hashlib.sha256(content["api_key"].encode()).hexdigest()
        found[path.parent.name] = {"key_id": content["key_id"], "sha256": digest}
    return found


def _secrets(state: Path, *patterns: str) -> dict[str, dict[str, str]]:
    """The hash of each secret of the gateway's own, and whose its file is."""
    found = {}
    for path in (path for pattern in patterns for path in state.glob(pattern)):
        told = path.lstat()
        rights = f"{pwd.getpwuid(told.st_uid).pw_name} {oct(told.st_mode)}"
        found[path.name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "rights": rights}
    return found


def _foreign(state: Path, uid: int) -> list[str]:
    """What is not the gateway's own although it lies in its state directory."""
    found = []
    for place in ("workspaces", "agents", "credentials", "removed"):
        for top, directories, files in os.walk(state / place):
            for name in (*directories, *files):
                path = Path(top) / name
                # The gateway's own temporary files come and go.
                if path.exists() and path.lstat().st_uid != uid:
                    found.append(str(path))
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
