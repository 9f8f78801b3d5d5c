"""A Docker engine is there: found, or installed and started, and stopped again if we started it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from clawbench.shell import BenchError, apt_install, docker, end_process, is_ours, run, until, write_private

SYSTEMD = Path("/run/systemd/system")
"""There where systemd manages the machine."""
RECORD = "engine.json"
"""What we did about the engine, in the state directory: {"started": "no"|"systemd"|"process"}."""


def answers() -> bool:
    """Whether the Docker client is here and reaches an engine that this user may use."""
    if shutil.which("docker") is None:
        return False
    return (
        run(["docker", "version", "--format", "{{.Server.Version}}"], check=False, timeout=30).returncode == 0
    )


def up(state: Path) -> bool:
    """Make sure that an engine answers; True if it had to be started."""
    if answers():
        return False
    if os.environ.get("DOCKER_HOST"):
        raise BenchError(
            "DOCKER_HOST is set but no Docker engine answers there. Start that engine, or unset DOCKER_HOST."
        )
    if os.geteuid() != 0:
        raise BenchError(
            "No Docker engine answers. Start one that this user may use (sudo systemctl start docker; "
            "membership of the group docker is as good as root), or run this as root."
        )
    if shutil.which("dockerd") is None:
        apt_install("docker.io", reason="a Docker engine")
    if shutil.which("docker") is None:
        # From Debian 13 on the client is a package of its own, and only recommended.
        apt_install("docker-cli", reason="the Docker client")
    with_systemd = SYSTEMD.is_dir()
    if with_systemd:
        run(["systemctl", "start", "docker.service"], why="start the Docker engine")
    else:
        _start_process(state)
    write_private(state / RECORD, json.dumps({"started": "systemd" if with_systemd else "process"}))
    until(
        answers,
        seconds=60,
        what="an answer of the Docker engine",
        hint="Its own words: " + ("journalctl -u docker" if with_systemd else str(state / "dockerd.log")),
    )
    return True


def _start_process(state: Path) -> None:
    """Start the engine on a machine without systemd, in a session of its own."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state / "dockerd.log").open("ab") as log:
        subprocess.Popen(
            ["dockerd", "--pidfile", str(state / "dockerd.pid")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def down(state: Path) -> str:
    """Stop the engine if `up` started it; returns a sentence about what was done."""
    try:
        started = json.loads((state / RECORD).read_text())["started"]
    except (OSError, ValueError, KeyError):
        return "The Docker engine was there before and stays."
    if not answers():
        return "The Docker engine is already stopped."
    if docker("ps", "--quiet"):
        return "The Docker engine stays: other containers run in it."
    if started == "systemd":
        run(["systemctl", "stop", "docker.socket", "docker.service"], why="stop the Docker engine")
    else:
        pid = is_ours(state / "dockerd.pid", "dockerd")
        if pid is not None:
            end_process(pid, signal.SIGTERM, seconds=60, what="the Docker engine")
    return "The Docker engine is stopped (its packages stay installed)."
