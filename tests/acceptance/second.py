"""A second machine, bare at first, with a gateway of its own and a coach who is its."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clawbench import hosts
from clawbench.shell import docker

from .fleet import INVENTORY, Fleet, Play

MACHINE, GATEWAY, COACH = "machine2", "gw-e", "coach-erik"


class Second(Fleet):
    """The fleet, as who looks at the second machine sees it; its plays know the gateway there."""

    def __init__(self, fleet: Fleet, place: Path) -> None:
        """``place``: a directory for its inventory."""
        super().__init__(fleet.state, MACHINE)
        address = self.bench.facts()["hosts"][MACHINE]
        host = {"ansible_host": MACHINE, "gateway_port": 18789, "demo_machine_address": address}
        for own in INVENTORY.iterdir():
            (place / own.name).symlink_to(own)
        # By its name behind the demo's own hosts, which are to be the first, and before the list, which asks who is there.
        extra = place / "hosts_more.yml"
        extra.write_text(json.dumps({"all": {"children": {"gateways": {"hosts": {GATEWAY: host}}}}}))
        self.place = place

    def play(self, playbook: str, *arguments: str, inventory: list[Path] | None = None, **more: Any) -> Play:
        """As the fleet's, by the inventory that knows the gateway here."""
        return super().play(playbook, *arguments, inventory=inventory or [self.place], **more)


@contextmanager
def beside(fleet: Fleet, machine: str, *, engine: bool = False) -> Iterator[None]:
    """A bare machine of this name is there, and afterwards it is not. ``engine``: as for `hosts.create`."""
    hosts.create(fleet.bench, ["machine1", machine], provider=True, engine=engine)
    try:
        yield
    finally:
        docker("rm", "--force", "--volumes", fleet.bench.container(machine))
        hosts.create(fleet.bench, ["machine1"], provider=True, engine=engine)


@contextmanager
def second(fleet: Fleet, place: Path, *, engine: bool = False) -> Iterator[Second]:
    """The machine is there, and its coach is in Django's list; afterwards neither is. ``engine``: as for `hosts.create`."""
    with beside(fleet, MACHINE, engine=engine):
        with fleet.admin() as admin:
            admin.add(COACH, "Erik")
        fleet.orm(
            f"CompanionProfile.objects.filter(agent_id={COACH!r})"
            f".update(gateway=Gateway.objects.get_or_create(name={GATEWAY!r})[0])"
        )
        yield Second(fleet, place)
        fleet.orm(
            f"CompanionProfile.objects.filter(agent_id={COACH!r}).delete(); Gateway.objects.get(name={GATEWAY!r}).delete()"
        )
