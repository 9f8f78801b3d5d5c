"""Steps that show themselves: a line each with its time; the details in a log, its end when one fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from clawbench.shell import ROOT, BenchError

_TASK = re.compile(r"^TASK \[(.*?)\]")
TAIL_LINES = 40


class Steps:
    """A numbered walk: `with steps.step("Something") as step: ...`."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.total = total
        self._number = 0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the first step was announced."""
        return time.monotonic() - self._began

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """One step: shown while it runs, and with its time and outcome when it is done."""
        self._number += 1
        head = f"[bold]{self._number}/{self.total}[/] {escape(title)}"
        began = time.monotonic()
        with self.console.status(head) as status:
            step = Step(head, status)
            try:
                yield step
            except BaseException:
                self.console.print(f"{head}  [red]failed after {time.monotonic() - began:.1f} s[/]")
                raise
        note = f"  [dim]{escape(step.note)}[/]" if step.note else ""
        self.console.print(f"{head}  [green]{time.monotonic() - began:.1f} s[/]{note}", highlight=False)


class Step:
    """A step under way. `note` is what its line ends with."""

    def __init__(self, head: str, status: Status) -> None:
        self.note = ""
        self._head = head
        self._status = status

    def show(self, detail: str) -> None:
        """Say what is being done right now."""
        self._status.update(f"{self._head}  [dim]{escape(detail)}[/]")

    def playbook(self, playbook: Path, inventory: Path, log: Path, *, env: dict[str, str]) -> None:
        """Run a playbook as an operator would; its output goes to the log, its present task to the screen."""
        command = ["ansible-playbook", "-i", str(inventory), str(playbook)]
        recap = ""
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (
            os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file,
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            ) as process,
        ):
            try:
                for line in process.stdout or ():
                    file.write(line)
                    file.flush()
                    tail.append(line)
                    task = _TASK.match(line)
                    if task:
                        self.show(task.group(1))
                    elif " : ok=" in line:
                        recap += line
            except BaseException:
                # Interrupted: the playbook ends before we do, with all of its workers.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                raise
        if process.returncode != 0:
            raise BenchError(
                f"ansible-playbook -i {_shown(inventory)} {_shown(playbook)} ended with "
                f"{process.returncode}. The whole of it is in {log}; its end:\n\n{''.join(tail).rstrip()}"
            )
        changed = sum(int(count) for count in re.findall(r"changed=(\d+)", recap))
        self.note = f"{changed} changed"


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
