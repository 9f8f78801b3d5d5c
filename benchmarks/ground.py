"""What the rows that need hosts stand on: a bench with a coach list, an inventory, and plays that are measured."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clawbench import engine, hosts
from clawbench.inventory import choose_provider
from clawbench.shell import cache_dir, docker, write_private

from benchmarks import gateway_stand_in, measure
from benchmarks.measure import BenchmarkError
from tests.acceptance.fleet import Fleet

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "inventories" / "demo"
PLAYS = Path(__file__).resolve().parent / "plays"
PROVISION = "claw.fleet.provision_coach"
NO_CHANGE = re.compile(r"changed=[1-9]|failed=[1-9]|unreachable=[1-9]")


@dataclass
class Settings:
    """How the benchmarks are run."""

    place: Path
    rounds: int
    quick: bool
    keep: bool
    say: Callable[[str], None]
    stack: ExitStack
    grounds: dict[str, Ground] = field(default_factory=dict)

    def ground(
        self, name: str, machines: int, gateways: int, *, provider: bool, sandboxes: bool = False
    ) -> Ground:
        """A ground by its name, brought up once and taken away at the end."""
        if name not in self.grounds:
            ground = Ground(name, machines, gateways, sandboxes=sandboxes)
            self.grounds[name] = self.stack.enter_context(ground.up(keep=self.keep, provider=provider))
        return self.grounds[name]


class Ground:
    """Machines with gateways, evenly, and their coach list; with ``sandboxes`` agents have tools in them."""

    def __init__(self, name: str, machines: int, gateways: int, *, sandboxes: bool = False) -> None:
        self.sandboxes = sandboxes
        self.state = cache_dir() / "bench" / f"benchmark-{name}"
        self.machines = [f"machine{number + 1}" for number in range(machines)]
        self.gateways = [gateway_stand_in.gateway_name(number) for number in range(gateways)]
        self.fleet = Fleet(self.state)
        self.inventory = self.state / "inventory"

    @contextmanager
    def up(self, *, keep: bool, provider: bool) -> Iterator[Ground]:
        """The machines, SSH to them, and the coach list."""
        bench = self.fleet.bench
        try:
            engine.up(self.state)
            hosts.create(bench, self.machines, provider=provider, engine=self.sandboxes)
            facts = bench.facts()
            choose_provider(self.state)
            write_private(self.state / "machine.address", facts["hosts"][self.machines[0]] + "\n")
            self.fleet.coach_list.up(facts["network_gateway"])
            self._write_inventory()
            yield self
        finally:
            if not keep:
                self.fleet.coach_list.down()
                hosts.destroy(bench)
                engine.down(self.state)
                shutil.rmtree(self.state)

    def machine_of(self, number: int) -> str:
        """The machine of a gateway, by the gateway's number."""
        return self.machines[number * len(self.machines) // len(self.gateways)]

    def stand_ins(self) -> None:
        """Gateways of which only the files are there, with a stand-in for their process."""
        program = Path(gateway_stand_in.__file__)
        for machine in self.machines:
            mine = [number for number in range(len(self.gateways)) if self.machine_of(number) == machine]
            container = self.fleet.bench.container(machine)
            target = f"{container}:/root/{program.name}"
            docker("cp", program, target, why=f"bring the stand-in to {machine}")
            words = ["python3", f"/root/{program.name}", "install", str(mine[0]), str(mine[-1])]
            docker("exec", container, *words, why=f"install the stand-ins on {machine}")

    def sh(self, machine: str, line: str, stdin: str = "") -> str:
        """A shell line on a machine, as root."""
        words = ["exec", "--interactive", self.fleet.bench.container(machine), "sh", "-c", line]
        return docker(*words, stdin=stdin)

    def play(self, playbook: str | Path, *words: str, hosts_only: bool = False) -> measure.Taken:
        """Run a playbook as an operator does, and say what it took."""
        source = self.inventory / "hosts.json" if hosts_only else self.inventory
        command = [Path(sys.executable).with_name("ansible-playbook"), "-i", source, playbook, *words]
        environment = {**self.fleet.environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        return measure.command(command, env=environment, cwd=ROOT)

    def settled(self, playbook: str | Path, *words: str, hosts_only: bool = False) -> float:
        """The seconds of a play that has nothing to do; one that did something is an error."""
        taken = self.play(playbook, *words, hosts_only=hosts_only)
        if NO_CHANGE.search(taken.output):
            raise BenchmarkError(f"A run that should have had nothing to do:\n{taken.output[-3000:]}")
        return taken.seconds

    def pings(self, count: int) -> Path:
        """A play of so many pings, as the user of the other plays."""
        path = self.state / f"pings-{count}.json"
        tasks = [{"name": f"Ping {number + 1}", "ansible.builtin.ping": {}} for number in range(count)]
        play = {"hosts": "gateways", "become": True, "gather_facts": False, "tasks": tasks}
        path.write_text(json.dumps([play]))
        return path

    def _write_inventory(self) -> None:
        """The demo's inventory with other hosts."""
        self.inventory.mkdir(exist_ok=True)
        for name in ("group_vars", "list.coaches.yml"):
            (self.inventory / name).unlink(missing_ok=True)
            (self.inventory / name).symlink_to(DEMO / name)
        # Room for those who are added beyond the hundred.
        mine = {"gateway_capacity": 200, "sandbox_engine": "docker" if self.sandboxes else "none"}
        gateways = {
            name: {"ansible_host": self.machine_of(number), "gateway_port": 18789, **mine}
            for number, name in enumerate(self.gateways)
        }
        machines: dict[str, object] = {name: {} for name in self.machines}
        groups = {"machines": {"hosts": machines}, "gateways": {"hosts": gateways}}
        (self.inventory / "hosts.json").write_text(json.dumps({"all": {"children": groups}}))


def tasks_of(output: str) -> int:
    """How many tasks a play had, by what it printed."""
    return len(re.findall(r"^(?:TASK|RUNNING HANDLER) \[", output, re.MULTILINE))


def add_coaches(fleet: Fleet, agent_ids: Sequence[str], **values: object) -> None:
    """Put coaches on the list, as an import does; `values` are columns."""
    fleet.orm(
        "CompanionProfile.objects.bulk_create([CompanionProfile(agent_id=agent_id, name=agent_id.title(), "
        f"vars={{'companion_name': 'Juniper', 'tone': 'warm'}}, **{values!r}) "
        f"for agent_id in {list(agent_ids)!r}], ignore_conflicts=True)"
    )
