"""The first site of a bare machine: the power fails amid its packages, and its controller is killed at task after task.

Each run goes on where the one before was killed; what a module did there while nobody waited for it any more is in it too.
A sample of the tasks here; every one of them with `make soak`.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from clawbench import hosts
from clawbench.shell import docker

from .fleet import ROOT, Fleet, until
from .kills import SEED, SOAK, Say, first_round
from .second import COACH, GATEWAY, MACHINE, Second, second

pytestmark = pytest.mark.fire

SITE = ("playbooks/site.yml", "--limit", GATEWAY)


@pytest.fixture(scope="module")
def bare(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Second]:
    """A machine with SSH and Python alone."""
    with second(fleet, tmp_path_factory.mktemp("second")) as bare:
        yield bare


class Run:
    """ansible-playbook in its own time, to be killed with all that it has started: ssh, and what leads ssh's connections."""

    def __init__(self, bare: Second, playbook: str, *arguments: str) -> None:
        self._mark = f"CLAW_RUN={secrets.token_hex(8)}"
        name, _is, value = self._mark.partition("=")
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(bare.place)]
        self.process = subprocess.Popen(
            [*command, str(ROOT / playbook), *arguments],
            cwd=ROOT,
            env={**bare.environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), name: value},
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


@pytest.fixture(scope="module")
def cut(bare: Second) -> Second:
    """The machine after the power failed while its first packages were installed."""
    run = Run(bare, *SITE)
    halfway = "dpkg-query -W -f '${db:Status-Status}\\n' | grep -qE 'unpacked|half|triggers'"
    try:
        until("packages to be halfway", lambda: bare.machine.run(halfway).rc == 0, 300)
        docker("kill", bare.bench.container(MACHINE))
    finally:
        run.kill()
    hosts.create(bare.bench, ["machine1", MACHINE], provider=True)
    assert bare.machine.run(halfway).rc == 0, "nothing was cut short"
    return bare


def test_a_first_site_is_made_good_that_was_cut_short_again_and_again(cut: Second, say: Say) -> None:
    begin = first_round("first site")
    if begin is None:
        return
    choose = random.Random(f"{SEED} first site")  # noqa: S311 - which task, not a secret
    number = begin if SOAK else choose.randint(1, 24)
    while (run := Run(cut, *SITE)).killed_at(number):
        say(f"first site:{number}  killed; CLAW_SEED={SEED}")
        number += 1 if SOAK else choose.randint(8, 24)
    assert run.process.returncode == 0, run.output
    say(f"first site: ended by itself before task {number}; CLAW_SEED={SEED}")
    assert cut.done(*SITE).changed == []
    cut.done("playbooks/provision-coach.yml", "--limit", GATEWAY)
    assert cut.ask(COACH, "hello").status == 200
    for playbook in ("site", "provision-coach"):
        assert cut.done(f"playbooks/{playbook}.yml", "--limit", GATEWAY).changed == []
