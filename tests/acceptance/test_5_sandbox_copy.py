"""An image that was built on one machine comes to another by way of the controller: the same, once, and as foreseen."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clawbench.shell import docker

from .fleet import INVENTORY, Fleet, Play

pytestmark = pytest.mark.fire

NAME = "claw-test-copy"
IMAGE = f"{NAME}:1"
PROXY = "http://172.29.240.1:3128"


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The id of an image that this machine's engine has, which stands for the machine that builds."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("file"))
    command = ["docker", "import", "-", IMAGE]
    yield (
        subprocess.run(command, input=layer.getvalue(), capture_output=True, check=True)
        .stdout.decode()
        .strip()
    )
    docker("image", "rm", "--force", IMAGE)


class Copying:
    """The part of the role that brings an image from this machine to the fleet's."""

    def __init__(self, fleet: Fleet, place: Path) -> None:
        self.fleet = fleet
        here = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
        }
        hosts = {"all": {"children": {"builders": {"hosts": {"builder": here}}}}}
        (place / "builder.json").write_text(json.dumps(hosts))
        self.inventory = [place / "builder.json", INVENTORY]
        self.playbook = place / "copy.yml"

    def play(self, *words: str, built: dict[str, Any], **options: Any) -> Play:
        """Run it for gw-a."""
        role = {
            "ansible.builtin.include_role": {"name": "claw.fleet.sandbox", "tasks_from": "copy"},
            "vars": {
                "sandbox_builder": "builder",
                "sandbox_build": "once",
                "sandbox_proxy": PROXY,
                **options,
            },
        }
        told = {
            "hosts": "builder",
            "gather_facts": False,
            "tasks": [{"ansible.builtin.set_fact": {"sandbox_built": built}}],
        }
        copied = {"hosts": "gw-a", "gather_facts": False, "become": True, "tasks": [role]}
        self.playbook.write_text(json.dumps([told, copied]))
        return self.fleet.play(str(self.playbook), *words, inventory=self.inventory)


@pytest.fixture
def copying(fleet: Fleet, tmp_path: Path) -> Iterator[Copying]:
    """The fleet's machine has no such image, at first and afterwards."""
    _remove(fleet)
    yield Copying(fleet, tmp_path)
    _remove(fleet)


def _remove(fleet: Fleet) -> None:
    fleet.sh(f"docker image ls --quiet {NAME} | sort -u | xargs --no-run-if-empty docker image rm --force")
    # What had its name.
    fleet.sh("docker image prune --force")


def _there(fleet: Fleet) -> str:
    return fleet.sh(f"docker image ls --no-trunc --quiet {IMAGE}").strip()


def test_it_is_the_same_and_is_sent_once(fleet: Fleet, copying: Copying, image: str) -> None:
    built = {"image": IMAGE, "id": image, "proxy": PROXY}
    predicted = copying.play("--check", built=built)
    assert predicted.rc == 0 and len(predicted.changed) == 1, predicted.output
    assert _there(fleet) == ""
    copied = copying.play(built=built)
    assert copied.rc == 0 and copied.changed == predicted.changed, copied.output
    assert "builder: fetching" in copied.output and _there(fleet) == image
    for words in ((), ("--check",)):
        again = copying.play(*words, built=built)
        assert (again.rc, again.changed) == (0, []) and "fetching" not in again.output, again.output


def test_one_of_the_same_name_is_replaced(fleet: Fleet, copying: Copying, image: str) -> None:
    fleet.sh(f"echo x > /tmp/x && tar -C /tmp -c x | docker import - {IMAGE}")
    assert _there(fleet) not in ("", image)
    assert len(copying.play(built={"image": IMAGE, "id": image, "proxy": PROXY}).changed) == 1
    assert _there(fleet) == image


def test_one_that_is_yet_to_be_built_is_foreseen(copying: Copying) -> None:
    predicted = copying.play("--check", built={"image": f"{NAME}:2", "id": "", "proxy": PROXY})
    assert predicted.rc == 0 and len(predicted.changed) == 1, predicted.output


@pytest.mark.parametrize(
    ("built", "words"),
    [
        ({}, "builder, which makes the image for all machines, could not"),
        (
            {"proxy": "http://192.0.2.1:3128"},
            "leaves by http://192.0.2.1:3128 while the way out is http://172.29.240.1",
        ),
        ({"image": f"{NAME}:none"}, "could not save the image"),
        ({"id": "sha256:0"}, "what was loaded is not sha256:0"),
    ],
)
def test_what_cannot_be_copied_is_told(
    fleet: Fleet, copying: Copying, image: str, built: dict[str, str], words: str
) -> None:
    good = {"image": IMAGE, "id": image, "proxy": PROXY}
    play = copying.play(built={**good, **built} if built else {})
    assert play.rc != 0 and words in " ".join(play.output.split()), play.output
