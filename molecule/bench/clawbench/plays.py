"""The project's playbooks on a bench, as tests of a scenario run them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Plays:
    """Of these inventories, and with these variables."""

    inventories: Sequence[Path]
    given: dict[str, Any] = field(default_factory=dict)

    def run(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """What came of one."""
        return subprocess.run(
            [
                "ansible-playbook",
                *(f"--inventory={place}" for place in self.inventories),
                *words,
                *("--extra-vars", json.dumps({**self.given, **more})),
            ],
            cwd=ROOT,
            text=True,
            capture_output=True,
            check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        )

    def doctor(self, place: Path, *words: str) -> tuple[list[str], str]:
        """The codes of what the doctor finds, and what it says; ``place``: where it may leave its report."""
        report = place / "report.json"
        report.unlink(missing_ok=True)
        given = {"doctor_report": str(report), "doctor_fail_on": "note", "doctor_ready_timeout": 240}
        told = self.run("playbooks/fleet-doctor.yml", *words, **given)
        assert report.exists(), told.stdout
        found = sorted({finding["code"] for finding in json.loads(report.read_text())["findings"]})
        assert (told.returncode != 0) == bool(found)
        return found, told.stdout
