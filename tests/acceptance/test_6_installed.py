"""The collection as others get it: built, installed elsewhere, in a virtual environment of its own."""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

from .fleet import INVENTORY, ROOT, Fleet


def test_an_installed_collection_provisions(fleet: Fleet, tmp_path: Path) -> None:
    collection = ROOT / "collections" / "ansible_collections" / "claw" / "fleet"
    tools = Path(sys.executable).parent
    subprocess.run(
        [tools / "ansible-galaxy", "collection", "build", "--output-path", tmp_path],
        cwd=collection,
        check=True,
    )
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    core = f"ansible-core=={version('ansible-core')}"
    subprocess.run([python, "-m", "pip", "install", "--quiet", core], check=True)
    (archive,) = tmp_path.glob("claw-fleet-*.tar.gz")
    elsewhere = tmp_path / "elsewhere"
    # Nothing of the repository's own settings, in which the collection is there already.
    environment = {**fleet.environment, "PATH": f"{python.parent}:/usr/bin:/bin"}
    environment |= {
        "ANSIBLE_COLLECTIONS_PATH": str(elsewhere),
        "ANSIBLE_CONFIG": str(tmp_path / "none.cfg"),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
    }
    galaxy = str(python.parent / "ansible-galaxy")
    install = [galaxy, "collection", "install", "--offline", str(archive), "-p", str(elsewhere)]
    subprocess.run(install, cwd=tmp_path, env=environment, check=True)

    with fleet.admin() as admin:
        admin.add("coach-emil", "Emil")
    done = subprocess.run(
        [
            python.parent / "ansible-playbook",
            "-i",
            INVENTORY,
            "claw.fleet.provision_coach",
            "-e",
            "coach=coach-emil",
        ],
        cwd=tmp_path,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert fleet.row("coach-emil")["status"] == "active"
    assert "Emil" in fleet.ask("coach-emil", "who are you?").text
