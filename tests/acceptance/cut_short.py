"""Plays whose controller is killed between tasks, and again, until one comes to its end."""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from .fleet import ROOT, Fleet, until
from .kills import SEED, SOAK, Say, first_round


class Begun:
    """ansible-playbook in its own time, to be killed with all that it has started: ssh, and what leads ssh's connections."""

    def __init__(self, fleet: Fleet, inventory: list[Path], playbook: str, *arguments: str) -> None:
        self._mark = f"CLAW_RUN={secrets.token_hex(8)}"
        name, _is, value = self._mark.partition("=")
        command = [str(Path(sys.executable).with_name("ansible-playbook"))]
        command += [word for path in inventory for word in ("-i", str(path))]
        self.process = subprocess.Popen(
            [*command, str(ROOT / playbook), *arguments],
            cwd=ROOT,
            env={**fleet.environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), name: value},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""

    def killed_at(self, number: int) -> bool:
        """Kill it at its N-th task; False if it has ended by itself before."""
        assert self.process.stdout
        seen = 0
        for line in self.process.stdout:
            self.output += line
            seen += line.startswith("TASK [")
            if seen == number:
                self.kill()
                return True
        self.process.wait(60)
        return False

    def kill(self) -> None:
        """End every process of it, until there is none."""
        until("all of the controller's processes to end", self._none_left)
        self.process.wait(60)

    def _none_left(self) -> bool:
        left = 0
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self._mark.encode() in (place / "environ").read_bytes().split(b"\0"):
                    left += 1
                    os.kill(int(place.name), signal.SIGKILL)
        return left == 0


def killed_at_task_after_task(
    name: str, fleet: Fleet, inventory: list[Path], playbook: str, *arguments: str, say: Say
) -> bool:
    """Kill a play's controller at one task, its rerun at a later one, and so on to the end, where one has to succeed.

    Returns False if it is not this sweep's turn. What is left to do after it is seen by running the play once more.
    """
    number = first_round(name)
    if number is None:
        return False
    choose = random.Random(f"{SEED} {name}")  # noqa: S311 - which task, not a secret
    if not SOAK:
        number = choose.randint(1, 24)
    while (run := Begun(fleet, inventory, playbook, *arguments)).killed_at(number):
        say(f"{name}:{number}  killed; CLAW_SEED={SEED}")
        number += 1 if SOAK else choose.randint(8, 24)
    assert run.process.returncode == 0, run.output
    say(f"{name}: ended by itself before task {number}; CLAW_SEED={SEED}")
    return True
