"""Two machines, of which the first builds the image of sandboxes for both: `sandbox_build: once`, as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
from clawbench import hosts
from clawbench.shell import docker

from .fleet import INVENTORY, Fleet, Play
from .sandboxes import REBUILD, Sandboxes

pytestmark = pytest.mark.fire

FIRST, GATEWAY, MACHINE, COACH = "gw-a", "gw-e", "machine2", "coach-erik"


class Both:
    """The fleet with a gateway on another machine."""

    def __init__(self, fleet: Fleet, place: Path) -> None:
        self.fleet = fleet
        address = fleet.bench.facts()["hosts"][MACHINE]
        host = {"ansible_host": MACHINE, "gateway_port": 18789, "demo_machine_address": address}
        for own in INVENTORY.iterdir():
            (place / own.name).symlink_to(own)
        # By its name behind the demo's own hosts, which are to be the first, and before the list, which asks who is there.
        extra = place / "hosts_more.yml"
        extra.write_text(json.dumps({"all": {"children": {"gateways": {"hosts": {GATEWAY: host}}}}}))
        self.inventory = [place]
        self.machine = testinfra.get_host(f"docker://{fleet.bench.container(MACHINE)}")

    def play(self, playbook: str, *words: str, **extra: Any) -> Play:
        """Run a playbook for a gateway of each machine."""
        limit = ("--limit", f"{FIRST},{GATEWAY}")
        play = self.fleet.play(
            playbook, *limit, *words, inventory=self.inventory, sandbox_build="once", **extra
        )
        assert play.rc == 0, play.output
        return play

    def images(self) -> dict[str, str]:
        """The images of the other machine, by name and tag, with their ids."""
        form = "{{.Repository}}:{{.Tag}} {{.ID}}"
        told = self.machine.check_output("docker image ls --no-trunc --format %s claw-sandbox", form)
        return dict(line.split() for line in told.splitlines())


@pytest.fixture(scope="module")
def both(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Both machines, and a coach on the other one; it is gone afterwards."""
    hosts.create(fleet.bench, ["machine1", MACHINE], provider=True, engine=True)
    both = Both(fleet, tmp_path_factory.mktemp("both"))
    with fleet.admin() as admin:
        admin.add(COACH, "Erik")
    fleet.orm(
        f"CompanionProfile.objects.filter(agent_id={COACH!r})"
        f".update(gateway=Gateway.objects.get_or_create(name={GATEWAY!r})[0])"
    )
    yield both
    fleet.orm(
        f"CompanionProfile.objects.filter(agent_id={COACH!r}).delete(); Gateway.objects.get(name={GATEWAY!r}).delete()"
    )
    docker("rm", "--force", "--volumes", fleet.bench.container(MACHINE))
    hosts.create(fleet.bench, ["machine1"], provider=True, engine=True)


def test_the_first_machine_builds_and_the_other_gets_it(fleet: Fleet, both: Both) -> None:
    both.play("playbooks/site.yml")
    assert both.machine.check_output("docker image ls --quiet claw-sandbox-base") == "", (
        "it has built one itself"
    )
    (image,) = both.images().items()
    assert image in Sandboxes(fleet).images().items()
    assert both.play("playbooks/site.yml").changed == []
    both.play("playbooks/provision-coach.yml")
    sandboxes = Sandboxes(fleet)
    fleet.orm(
        f"CompanionProfile.objects.get(agent_id={COACH!r}).clients.get_or_create(name='A client of Erik')"
    )
    assert sandboxes.clients(COACH) == ["A client of Erik"]


def test_another_document_is_another_image_on_both(fleet: Fleet, both: Both, tmp_path: Path) -> None:
    sandboxes, before = Sandboxes(fleet), both.images()
    document = str(sandboxes.document(tmp_path, weather=True))
    predicted = both.play(REBUILD, "--check", sandbox_openapi=document)
    assert both.images() == before
    done = both.play(REBUILD, sandbox_openapi=document)
    assert sorted(done.changed) == sorted(predicted.changed)
    (new,) = both.images().keys() - before.keys()
    assert both.images()[new] == sandboxes.images()[new]
    assert "show" in sandboxes.execute(COACH, "journeyloop weather --help")
    assert both.play(REBUILD, sandbox_openapi=document).changed == []
    both.play(REBUILD)
