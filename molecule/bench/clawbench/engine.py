"""A Docker engine is there: found, or installed and started, and stopped again by the last bench if one of them started it.

What the benches have in common is in the cache directory: who needs the engine, and whether we started it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clawbench.shell import (
    BenchError,
    apt_install,
    cache_dir,
    docker,
    end_process,
    is_ours,
    locked,
    run,
    until,
    write_private,
)

SYSTEMD = Path("/run/systemd/system")
"""There where systemd manages the machine."""
RECORD = "started.json"
"""There if we started it, how, and in which life of the machine: {"started": "systemd"|"process", "boot": text}."""
BOOT = Path("/proc/sys/kernel/random/boot_id")


def answers() -> bool:
    """Whether the Docker client is here and reaches an engine that this user may use."""
    if shutil.which("docker") is None:
        return False
    return (
        run(["docker", "version", "--format", "{{.Server.Version}}"], check=False, timeout=30).returncode == 0
    )


def up(state: Path) -> bool:
    """Make sure that an engine answers, and stays for the bench of this state directory; True if it had to be started."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone() as place:
        write_private(_need(place, state), f"{state}\n")
        return _up(place)


def _up(place: Path) -> bool:
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
        _start_process(place)
    write_private(
        place / RECORD,
        json.dumps({"started": "systemd" if with_systemd else "process", "boot": BOOT.read_text()}),
    )
    until(
        answers,
        seconds=60,
        what="an answer of the Docker engine",
        hint="Its own words: " + ("journalctl -u docker" if with_systemd else str(place / "dockerd.log")),
    )
    return True


def _start_process(place: Path) -> None:
    """Start the engine on a machine without systemd, in a session of its own."""
    with (place / "dockerd.log").open("ab") as log:
        subprocess.Popen(
            ["dockerd", "--pidfile", str(place / "dockerd.pid")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def down(state: Path) -> str:
    """This bench needs it no longer: stop the engine if it is ours and nobody else's; returns a sentence about that."""
    with _alone() as place:
        _need(place, state).unlink(missing_ok=True)
        return _down(place)


def _down(place: Path) -> str:
    try:
        record = json.loads((place / RECORD).read_text())
        started, ours = record["started"], record["boot"] == BOOT.read_text()
    except (OSError, ValueError, KeyError):
        ours = False
    if not ours:
        return "The Docker engine was there before and stays."
    if not answers():
        (place / RECORD).unlink()
        return "The Docker engine is already stopped."
    benches = [Path(need.read_text().strip()) for need in sorted((place / "needs").iterdir())]
    # One whose directory somebody has removed is none.
    others = [str(bench) for bench in benches if bench.is_dir()]
    if others:
        return f"The Docker engine stays: {' and '.join(others)} may need it."
    if docker("ps", "--quiet"):
        return "The Docker engine stays: other containers run in it."
    if started == "systemd":
        run(["systemctl", "stop", "docker.socket", "docker.service"], why="stop the Docker engine")
    else:
        pid = is_ours(place / "dockerd.pid", "dockerd")
        if pid is not None:
            end_process(pid, signal.SIGTERM, seconds=60, what="the Docker engine")
    (place / RECORD).unlink()
    return "The Docker engine is stopped (its packages stay installed)."


@contextmanager
def _alone() -> Iterator[Path]:
    """One bench at a time; the place of what they have in common."""
    place = cache_dir() / "engine"
    (place / "needs").mkdir(parents=True, exist_ok=True)
    with locked(place / "lock"):
        yield place


def _need(place: Path, state: Path) -> Path:
    return place / "needs" / hashlib.sha256(str(state).encode()).hexdigest()[:16]
