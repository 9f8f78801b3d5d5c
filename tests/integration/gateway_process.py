"""A real OpenClaw gateway as a child process, without systemd, for tests of what talks to one.

It has its own temporary state, config and ports. What it does not prove: the hardened unit, another Unix user,
and systemd's restarts; the molecule scenarios do.
"""

from __future__ import annotations

import json
import os
import platform
import pwd
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import UnitState

ROOT = Path(__file__).resolve().parents[2]
PROVIDER = ROOT / "molecule" / "bench" / "provider" / "provider.py"
BEFORE_IT = ROOT / "collections/ansible_collections/claw/fleet/roles/gateway/files/half_made.py"
ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class GatewayProcess:
    """A supervisor of one gateway, and the gateway's place on disk."""

    def __init__(self, tree: Path, place: Path) -> None:
        self.place = place
        self.state_dir = place / "state"
        self.config_dir = place / "etc"
        self.provider_port = free_port()
        self.port = free_port()
        self.restarts = False
        self._looking = threading.Lock()
        self._tree = tree
        self._process: subprocess.Popen[bytes] | None = None
        self._provider: subprocess.Popen[bytes] | None = None
        self.gateway = Gateway.from_descriptor(self._lay_out(), supervisor=self)

    def state(self) -> UnitState:
        """As a supervisor: how the process is. With ``restarts`` it is started anew when it has ended."""
        # Several may ask at once, and one of them starts it.
        with self._looking:
            if self._process is None:
                return UnitState("inactive", "dead", 0, "success", 0)
            status = self._process.poll()
            if status is not None and self.restarts and status != 78:
                self.start()
                status = None
            if status is None:
                return UnitState("active", "running", self._process.pid, "success", 0)
            return UnitState("failed", "failed", 0, "exit-code", status)

    def start(self) -> None:
        """As a supervisor: start the process."""
        log = (self.place / "gateway.log").open("ab")
        gateway = self.gateway
        subprocess.run([sys.executable, "-I", BEFORE_IT, self.state_dir], stdout=log, stderr=log, check=True)
        command = [gateway.node, gateway.entry, "gateway", "--port", str(self.port), "--bind", "loopback"]
        self._process = subprocess.Popen(
            command,
            cwd=self.state_dir,
            env=gateway.environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    def words(self, since: float) -> str:
        """As a supervisor: the last lines of its log, whenever it wrote them."""
        return "\n".join((self.place / "gateway.log").read_text(errors="replace").splitlines()[-25:])

    def start_ready(self) -> None:
        """Start the gateway and its provider, and wait until it is ready."""
        if self._provider is None:
            self._provider = subprocess.Popen(
                [sys.executable, str(PROVIDER), "--port", str(self.provider_port)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self.start()
        self.gateway.wait_ready(120)

    def kill(self) -> None:
        """End the gateway as a crash would, with what it has started, as systemd would."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End the gateway in good order; it counts as stopped on purpose then."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)
            self._process = None

    def close(self) -> None:
        """End everything."""
        self.restarts = False
        if self._process is not None and self._process.poll() is None:
            self.kill()
        if self._provider is not None:
            self._provider.terminate()
            self._provider.wait()

    def config(self) -> dict[str, Any]:
        """The gateway's own config, as the role writes it."""
        state = self.state_dir
        return {
            "gateway": {
                "mode": "local",
                "port": self.port,
                "bind": "loopback",
                "controlUi": {"enabled": False},
                "auth": {"mode": "token", "token": {"source": "file", "provider": "gwtoken", "id": "value"}},
                "http": {"endpoints": {"responses": {"enabled": True}}},
            },
            "secrets": {
                "providers": {
                    "gwtoken": {"source": "file", "path": str(state / "token"), "mode": "singleValue"}
                }
            },
            "plugins": {"entries": {"admin-http-rpc": {"enabled": True}}},
            "models": {
                "mode": "replace",
                "providers": {
                    "stand-in": {
                        "baseUrl": f"http://127.0.0.1:{self.provider_port}/v1",
                        "apiKey": "stand-in",
                        "api": "openai-completions",
                        "models": [{"id": "stand-in-1", "name": "Stand-in", "input": ["text"]}],
                    }
                },
            },
            "skills": {"workshop": {"autonomous": {"mode": "off"}}},
            "tools": {"deny": ["*"], "sessions": {"visibility": "self"}},
            "agents": {
                "ownership": "explicit",
                "defaults": {
                    "model": {"primary": "stand-in/stand-in-1"},
                    "skipBootstrap": True,
                    "skills": [],
                    "heartbeat": {"every": "0m"},
                    "systemAgent": {"agentId": "main"},
                },
                "entries": {
                    "main": {
                        "workspace": str(state / "workspaces" / "main"),
                        "agentDir": str(state / "agents" / "main" / "agent"),
                    },
                    "$include": [str(self.config_dir / "agents.json")],
                },
            },
        }

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the gateway's own config; only while it is stopped."""
        path = self.state_dir / "openclaw.json"
        path.write_text(json.dumps(config))
        path.chmod(0o600)

    def _lay_out(self) -> dict[str, Any]:
        """Make the directories, config and token of a fresh gateway; its descriptor."""
        for path in (self.state_dir, self.config_dir, self.state_dir / "agents/main/agent"):
            path.mkdir(parents=True, mode=0o700)
        token = self.state_dir / "token"
        token.write_text(secrets.token_hex(24))
        token.chmod(0o400)
        self.write_config(self.config())
        me = pwd.getpwuid(os.getuid())
        modules = self._tree / "node_modules"
        node = modules / f"node-linux-{ARCHITECTURES[platform.machine()]}" / "bin" / "node"
        return {
            "name": "gw-test",
            "user": me.pw_name,
            "group": me.pw_name,
            "unit": "openclaw-gateway@gw-test.service",
            "port": self.port,
            "state_dir": str(self.state_dir),
            "config_dir": str(self.config_dir),
            "config": str(self.state_dir / "openclaw.json"),
            "roster": str(self.config_dir / "agents.json"),
            "token_file": str(token),
            "tree": str(self._tree),
            "node": str(node),
            "entry": str(modules / "openclaw" / "openclaw.mjs"),
            "version": json.loads((modules / "openclaw" / "package.json").read_text())["version"],
        }


def wait_for(what: str, holds: Any, timeout: float = 30) -> None:
    """Wait until ``holds()`` is true."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.05)
