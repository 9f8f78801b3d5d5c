"""What a control node runs: made from wheels without a package index, once, and again after a maker was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "collections" / "ansible_collections" / "claw" / "fleet" / "roles" / "reconciler"
TOOLS = Path(sys.executable).parent
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: The pinned Ansible and the collection are there
      claw.fleet.reconciler_runtime:
        lock: {lock}
        wheels: {wheels}
        # Nobody answers there.
        pip_environment: {{PIP_INDEX_URL: "http://127.0.0.1:9/", PIP_FIND_LINKS: ""}}
        root: {root}
"""


class Node:
    """A place where versions are kept, and the play that fills it."""

    def __init__(self, place: Path, wheels: Path) -> None:
        self.place = place
        self.root = place / "opt"
        lock = ROLE / "files" / "requirements.lock"
        (place / "play.yml").write_text(PLAY.format(lock=lock, wheels=wheels, root=self.root))

    def play(self, *words: str) -> str:
        """The result line of the task."""
        done = subprocess.run(
            [TOOLS / "ansible-playbook", self.place / "play.yml", *words],
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": f"{TOOLS}:/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return next(line for line in done.stdout.splitlines() if "[localhost]" in line and ": " in line)

    def versions(self) -> list[Path]:
        """The versions that are there."""
        return sorted(path for path in self.root.iterdir() if path.is_dir()) if self.root.is_dir() else []


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    place = tmp_path_factory.mktemp("node")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--dest", str(place / "wheels")]
    subprocess.run([*command, "-r", str(ROLE / "files" / "requirements.lock")], check=True)
    return Node(place, place / "wheels")


def test_it_is_made_once_without_a_package_index(node: Node) -> None:
    assert node.play("--check").startswith("changed")
    assert node.versions() == []
    assert node.play().startswith("changed")
    (version,) = node.versions()
    assert node.play().startswith("ok")
    assert node.play("--check").startswith("ok")
    assert node.versions() == [version]
    said = subprocess.run(
        [version / "venv" / "bin" / "ansible-doc", "-t", "role", "-l", "claw.fleet"],
        env={
            "ANSIBLE_COLLECTIONS_PATH": str(version / "collections"),
            "LC_ALL": "C.UTF-8",
            "HOME": str(node.place),
        },
        stdin=subprocess.DEVNULL,
        text=True,
        capture_output=True,
        check=True,
    )
    assert "claw.fleet.coaches" in said.stdout


def test_what_a_killed_maker_left_is_made_again(node: Node) -> None:
    (version,) = node.versions()
    (version / "complete").unlink()
    (version / "venv" / "bin" / "python").unlink()
    assert node.play().startswith("changed")
    subprocess.run([version / "venv" / "bin" / "python", "-c", "import ansible"], check=True)
