"""What answers in a gateway's place where fifty are needed: its files are real, its process is not OpenClaw.

It has a gateway's user, directories, descriptor, config, token and unit, and answers the few questions that the
fleet asks of one: whether it is ready, what it serves, a first turn, and whether a config is valid. What it does
not prove: anything of OpenClaw's own time.

Needs the standard library alone, because it runs on the machines:

    gateway_stand_in.py install FIRST LAST    as root: the gateways gw-FIRST to gw-LAST with their users and units
    gateway_stand_in.py serve NAME            what the unit runs
    gateway_stand_in.py config validate --json
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CONFIG_ROOT = Path("/etc/claw")
STATE_ROOT = Path("/var/lib/claw")
PROGRAM = Path("/opt/claw-benchmark/gateway_stand_in.py")
FIRST_PORT = 20000
UNIT = f"""[Service]
ExecStart=/usr/bin/python3 {PROGRAM} serve %i
User=claw-%i
"""


def gateway_name(number: int) -> str:
    """The name of a gateway."""
    return f"gw-{number:04}"


def lay_out(name: str, port: int, user: str, *, config_root: Path, state_root: Path) -> None:
    """Make the directories, descriptor, config and token of a gateway without agents; again, if there was one."""
    config_dir, state = config_root / name, state_root / name
    owner = pwd.getpwnam(user)
    for path, mode in ((config_dir, 0o750), (state, 0o700)):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        path.chmod(mode)
    os.chown(config_dir, os.geteuid(), owner.pw_gid)
    entries = {
        "main": {"workspace": str(state / "workspaces/main"), "agentDir": str(state / "agents/main/agent")},
        "$include": [str(config_dir / "agents.json")],
    }
    descriptor = {
        "name": name,
        "user": user,
        "group": user,
        "unit": f"openclaw-gateway@{name}.service",
        "port": port,
        "state_dir": str(state),
        "config_dir": str(config_dir),
        "config": str(state / "openclaw.json"),
        "roster": str(config_dir / "agents.json"),
        "token_file": str(state / "token"),
        "tree": str(PROGRAM.parent),
        "node": sys.executable,
        "entry": str(PROGRAM if PROGRAM.exists() else Path(__file__).resolve()),
        "version": "0",
    }
    contents = {
        config_dir / "gateway.json": json.dumps(descriptor),
        config_dir / "agents.json": "{}\n",
        state / "openclaw.json": json.dumps({"agents": {"entries": entries}}),
        state / "token": hashlib.sha256(name.encode()).hexdigest()[:48],
    }
    for path, content in contents.items():
        path.write_text(content)
        path.chmod(0o600 if state in path.parents else 0o640)
        os.chown(path, os.geteuid(), owner.pw_gid)
    for path in (state, state / "openclaw.json", state / "token"):
        os.chown(path, owner.pw_uid, owner.pw_gid)


def install(first: int, last: int) -> None:
    """The gateways of a machine, running."""
    if Path(__file__).resolve() != PROGRAM:
        PROGRAM.parent.mkdir(exist_ok=True)
        shutil.copy(__file__, PROGRAM)
    Path("/etc/systemd/system/openclaw-gateway@.service").write_text(UNIT)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    for number in range(first, last + 1):
        name = gateway_name(number)
        user = f"claw-{name}"
        try:
            pwd.getpwnam(user)
        except KeyError:
            subprocess.run(["useradd", "--system", "--user-group", "--no-create-home", user], check=True)
        lay_out(name, FIRST_PORT + number, user, config_root=CONFIG_ROOT, state_root=STATE_ROOT)
        subprocess.run(["systemctl", "restart", f"openclaw-gateway@{name}.service"], check=True)


class _Handler(BaseHTTPRequestHandler):
    descriptor: dict[str, Any]

    def do_GET(self) -> None:
        self._answer({"ready": True})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
        if self.path == "/v1/responses":
            said = {"content": [{"type": "output_text", "text": "Hello."}]}
            self._answer({"status": "completed", "output": [said]})
        elif body["method"] == "config.get":
            self._answer({"ok": True, "payload": self._config()})
        else:
            self._answer({"ok": True, "payload": {"ok": True, "jobs": []}})

    def _config(self) -> dict[str, Any]:
        """What it serves is what its files say, at once."""
        own = json.loads(Path(self.descriptor["config"]).read_text())
        roster = Path(self.descriptor["roster"]).read_bytes()
        agents = {**own["agents"]["entries"], **json.loads(roster)}
        mark = hashlib.sha256(roster).hexdigest()
        return {
            "valid": True,
            "configRevisionHash": mark,
            "appliedConfigHash": mark,
            "parsed": own,
            "sourceConfig": {"agents": {"entries": agents}},
        }

    def _answer(self, data: dict[str, Any]) -> None:
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def serve(name: str) -> None:
    """Answer for a gateway until the end."""
    descriptor = json.loads((CONFIG_ROOT / name / "gateway.json").read_text())
    handler = type("Handler", (_Handler,), {"descriptor": descriptor})
    ThreadingHTTPServer(("127.0.0.1", descriptor["port"]), handler).serve_forever()


def main(words: list[str]) -> None:
    """Run one command."""
    if words[0] == "install":
        install(int(words[1]), int(words[2]))
    elif words[0] == "serve":
        serve(words[1])
    else:
        sys.stdout.write('{"valid": true}\n')


if __name__ == "__main__":
    main(sys.argv[1:])
