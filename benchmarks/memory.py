"""How much memory the controller and the module take for a thousand coaches more.

The peak is that of the largest process, as the kernel accounts for it. The module's figures come from a gateway of
which only the files are there, in a play on this machine, with an interpreter that notes what each module took.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import gateway_stand_in, measure
from benchmarks.ground import PLAYS, ROOT, Settings
from benchmarks.inventories import Inventory, canned
from benchmarks.measure import Rounds, Row

FAMILY = "memory"
MEASURED = Path(__file__).resolve().with_name("measured_python.py")
TEMPLATES = ROOT / "collections/ansible_collections/claw/fleet/roles/coaches/templates"
STOPPED = "#!/bin/sh\necho ActiveState=inactive\n"
COACHES = 1_000


def run(settings: Settings) -> list[Row]:
    """Every row of this family."""
    coaches = 100 if settings.quick else COACHES
    place = settings.place
    taken = Rounds(FAMILY, settings.say)
    listed, controller, module = "the inventory", "the controller of a play", "the module"
    works: dict[str, Callable[[], float]] = {}
    with canned(place / "many", coaches, 1) as (many, _many), canned(place / "none", 0, 1) as (none, _none):
        for side, who in ((many, f"{coaches:,} coaches"), (none, "no coaches")):
            play = Play(place / f"play-{len(works)}", side)
            play.run()
            works[f"{listed} with {who}"] = play.inventory_peak
            works[f"{controller} with {who}"] = play.controller_peak
            works[f"{module} with {who}"] = play.module_peak
        taken.run(works, settings.rounds)
    return [
        taken.row(f"{what} with {coaches:,} coaches", f"{what} with no coaches", unit="MB")
        for what in (listed, controller, module)
    ]


class Play:
    """The step that makes agents, on a gateway of which only the files are there, as often as wanted."""

    def __init__(self, place: Path, side: Inventory) -> None:
        self.side = side
        self.place = place
        place.mkdir()
        for name in side.gateways:
            gateway_stand_in.lay_out(
                name, 1, getpass.getuser(), config_root=place / "etc", state_root=place / "state"
            )
        # No systemd is asked: the gateway is a stopped one.
        (place / "bin").mkdir()
        (place / "bin" / "systemctl").write_text(STOPPED)
        (place / "bin" / "systemctl").chmod(0o755)

    def run(self) -> list[float]:
        """One run, with nothing to do after the first; the peaks of its modules, and last the controller's."""
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": str(MEASURED),
            "config_root": str(self.place / "etc"),
            "template_path": str(TEMPLATES),
            "workspace_files": workspace_files(),
        }
        return self._peaks("ansible-playbook", PLAYS / "agents.yml", "-e", json.dumps(variables))

    def controller_peak(self) -> float:
        """The largest process of the controller."""
        return self.run()[-1]

    def module_peak(self) -> float:
        """The module's process."""
        return self.run()[0]

    def inventory_peak(self) -> float:
        """The inventory alone."""
        return self._peaks("ansible-inventory", "--graph")[0]

    def _peaks(self, program: str, *words: str | Path) -> list[float]:
        peaks = self.place / "peaks"
        peaks.unlink(missing_ok=True)
        tools = Path(sys.executable).parent
        measure.command(
            [sys.executable, MEASURED, tools / program, *words, *self.side.sources("2-cold.coaches.yml")],
            env={
                "ANSIBLE_CONFIG": str(self.side.directory / "ansible.cfg"),
                "PATH": os.pathsep.join([str(self.place / "bin"), str(tools), os.environ["PATH"]]),
                "CLAW_BENCHMARK_PEAKS": str(peaks),
            },
        )
        return [float(peak) for peak in peaks.read_text().split()]


def workspace_files() -> list[dict[str, str]]:
    """The workspace files that the role has if nothing else is said."""
    owners = {"SOUL.md": "agent", "MEMORY.md": "agent"}
    names = ("SOUL.md", "MEMORY.md", "AGENTS.md", "IDENTITY.md", "USER.md")
    return [{"src": f"{name}.j2", "dest": name, "owner": owners.get(name, "fleet")} for name in names]
