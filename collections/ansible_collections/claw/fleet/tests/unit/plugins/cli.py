# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's own commands, with nobody else's settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

COLLECTIONS = Path(__file__).resolve().parents[6]
DEBIAN = {
    "distribution": "Debian",
    "distribution_version": "12",
    "distribution_major_version": "12",
    "architecture": "x86_64",
    "service_mgr": "systemd",
    "python_version": "3.11.2",
}
"""What Ansible knows of a machine that can carry a gateway."""


class Ansible:
    """A directory with inventories, and commands run in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
            "ANSIBLE_NOCOLOR": "1",
        }
        self.write("ansible.cfg", "[defaults]\n")

    def write(self, name: str, content: Any) -> str:
        """A file; what is no text is written as JSON, which is YAML."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    def run(self, command: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """One command to its end; nothing is checked."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "CLAW_"))
        }
        return subprocess.run(
            [sys.executable, "-m", f"ansible.cli.{command}", *words],
            cwd=self.directory,
            env={**kept, **self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def inventory(self, *words: str, **environment: str) -> tuple[dict[str, Any], str]:
        """ansible-inventory --list as data, and what it said beside it.

        It wraps text that is no template in {"__ansible_unsafe": text}.
        """
        done = self.run("inventory", "--list", *words, **environment)
        assert done.returncode == 0, done.stderr
        # Messages are wrapped at the terminal's width.
        return json.loads(done.stdout, object_hook=_unwrapped), " ".join(done.stderr.split())


def _unwrapped(found: dict[str, Any]) -> Any:
    return found["__ansible_unsafe"] if set(found) == {"__ansible_unsafe"} else found


def play(*tasks: dict[str, Any]) -> dict[str, Any]:
    """A play on hosts that are what their variable ``facts`` says, with the names of `DEBIAN`; nobody is reached."""
    known = {name: "{{ facts." + name + " }}" for name in DEBIAN}
    return {
        "hosts": "all",
        "connection": "local",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.set_fact": {**known, "cacheable": True}}, *tasks],
    }
