# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs a gateway's process: systemd, or anything else that can say how it is and start it.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import subprocess
from typing import NamedTuple, Protocol

_TIMEOUT_SECONDS = 90
_WORDS_LINES = 25


class SupervisorError(Exception):
    """The supervisor could not be asked or refused; str() is a plain sentence."""


class UnitState(NamedTuple):
    """A process as its supervisor sees it, in systemd's words.

    ``active``: active, activating, deactivating, inactive or failed; ``sub``: running, auto-restart, dead and
    more; ``pid``: of the main process, or 0; ``result``, ``exit_status``: how the last one ended.
    """

    active: str
    sub: str
    pid: int
    result: str
    exit_status: int

    @property
    def running(self) -> bool:
        """Whether there is a process, or there will be one without our doing."""
        return self.active in ("active", "activating", "reloading")


class Supervisor(Protocol):
    """What is needed of whoever runs the gateway."""

    def state(self) -> UnitState:
        """How the process is now."""

    def start(self) -> None:
        """Start it, forgetting that it failed before. Returns when it was started, not when it is ready."""

    def words(self, since: float) -> str:
        """The last lines that it said since then, in seconds since the epoch; empty if nothing."""


class Systemd:
    """A system unit."""

    def __init__(self, unit: str) -> None:
        self.unit = unit

    def state(self) -> UnitState:
        """How the unit is now."""
        wanted = ("ActiveState", "SubState", "MainPID", "Result", "ExecMainStatus")
        text = self._systemctl("show", f"--property={','.join(wanted)}")
        values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        return UnitState(
            active=values.get("ActiveState", "inactive"),
            sub=values.get("SubState", "dead"),
            pid=int(values.get("MainPID") or 0),
            result=values.get("Result", "success"),
            exit_status=int(values.get("ExecMainStatus") or 0),
        )

    def start(self) -> None:
        """Start the unit; an earlier failure or start limit does not count."""
        if self.state().active == "failed":
            self._systemctl("reset-failed")
        self._systemctl("start")

    def words(self, since: float) -> str:
        """What the journal has of the unit."""
        command = ["journalctl", f"--unit={self.unit}", f"--since=@{int(since)}", f"--lines={_WORDS_LINES}"]
        return self._run([*command, "--output=cat", "--no-pager", "--quiet"]).strip()

    def _systemctl(self, verb: str, *options: str) -> str:
        return self._run(["systemctl", verb, *options, self.unit])

    def _run(self, command: list[str]) -> str:
        shown = " ".join(command)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SupervisorError(f"{shown} did not work: {error}") from error
        if done.returncode != 0:
            reason = done.stderr.strip() or f"exit status {done.returncode}"
            raise SupervisorError(f"{shown} failed: {reason}")
        return done.stdout
