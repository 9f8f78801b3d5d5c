"""The files of a hundred coaches: the collection's step, a loop of template and copy, and the floor.

On a state directory of a gateway of which only the files are there, over SSH, as another Unix user.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import floor, measure
from benchmarks.ground import PLAYS, Ground, Settings, add_coaches
from benchmarks.measure import Rounds, Row
from benchmarks.memory import TEMPLATES, workspace_files

FAMILY = "hundred-files"
COACHES = 100
LOOPED = 5
MORE = (1, 10)
GATEWAY = "gw-0000"
WORKSPACES = f"/var/lib/claw/{GATEWAY}/workspaces"


def run(settings: Settings) -> list[Row]:
    """Every row of this family."""
    ground = settings.ground("files", 1, 1, provider=False)
    coaches, looped = (5, 2) if settings.quick else (COACHES, LOOPED)
    work = _Work(ground, coaches, looped)
    work.furnish()
    step, settled = f"{coaches} new coaches: the collection's step", "again, with nothing to do"
    bare = "a bare program that writes and syncs the same files"
    loop = f"a loop of template and copy ({looped} coaches measured, times {coaches // looped})"
    taken = Rounds(FAMILY, settings.say)
    taken.run(
        {
            step: work.step,
            settled: work.again,
            bare: lambda: work.bare(coaches),
            loop: work.loop,
            f"{loop}, again": work.loop_again,
        },
        settings.rounds,
    )
    return [
        taken.row(step, bare),
        taken.row(loop, step, at_least=50),
        taken.row(f"{loop}, again", settled, at_least=50),
        *(row for count in MORE if count < coaches for row in _more(work, taken, count, settings.rounds)),
    ]


def _more(work: _Work, taken: Rounds, count: int, rounds: int) -> list[Row]:
    """So many coaches more than there are."""
    step = f"{work.coaches} coaches, {count} more: the collection's step"
    bare, loop = f"a bare program that writes the files of {count}", f"a loop over {count}"
    taken.run(
        {
            step: lambda: work.step_more(count),
            bare: lambda: work.bare(count),
            loop: lambda: work.loop_of(count),
        },
        rounds,
    )
    return [taken.row(step, bare), taken.row(loop, step)]


class _Work:
    """The works, each after what it needs."""

    def __init__(self, ground: Ground, coaches: int, looped: int) -> None:
        self.ground = ground
        self.coaches = coaches
        self.looped = looped
        self._contents = ""

    def furnish(self) -> None:
        """The coaches, and what the step writes for them."""
        ids = [f"coach-{number:05}" for number in range(self.coaches)]
        if self.ground.fleet.orm("print(CompanionProfile.objects.count())").strip() == "0":
            self.ground.fleet.orm(f"Gateway.objects.create(name={GATEWAY!r})")
            add_coaches(self.ground.fleet, ids, gateway_id=GATEWAY, status="active", observed_generation=1)
        self.step()
        script = (
            "import json, pathlib, sys; json.dump({str(path): path.read_text() for path in "
            f"pathlib.Path({WORKSPACES!r}).rglob('*.md')}}, sys.stdout)"
        )
        self._contents = self.ground.sh("machine1", f'python3 -c "{script}"')

    def step(self) -> float:
        """The collection's, from nothing."""
        self.ground.stand_ins()
        return self._play("agents.yml", "-b")

    def again(self) -> float:
        """The collection's, when everything is there."""
        self._play("agents.yml", "-b")
        return self._play("agents.yml", "-b")

    def step_more(self, count: int) -> float:
        """The collection's, for the last so many; the others are there."""
        self.ground.stand_ins()
        self._play("agents.yml", "-b", listed=self.coaches - count)
        return self._play("agents.yml", "-b")

    def bare(self, count: int) -> float:
        """The floor, over the same SSH, for the last so many."""
        self.ground.stand_ins()
        last = [f"/coach-{number:05}/" for number in range(self.coaches - count, self.coaches)]
        contents = {
            path: text
            for path, text in json.loads(self._contents).items()
            if any(name in path for name in last)
        }
        program = Path(floor.__file__).read_text()
        words: list[str | Path] = ["ssh", "-F", self.ground.fleet.bench.ssh_config, "machine1"]
        self.ground.sh("machine1", "cat > /root/floor.py", stdin=program)
        return measure.command(
            [*words, "sudo", "python3", "/root/floor.py"], stdin=json.dumps(contents).encode()
        ).seconds

    def loop(self) -> float:
        """The loop, from nothing but the directories, as long as for all of them."""
        return self.loop_of(self.looped) * (self.coaches / self.looped)

    def loop_of(self, count: int) -> float:
        """The loop over so many, from nothing but the directories."""
        self.ground.stand_ins()
        names = " ".join(f"coach-{number:05}" for number in range(count))
        self.ground.sh("machine1", f"mkdir {WORKSPACES} && cd {WORKSPACES} && mkdir {names}")
        return self._play("loop.yml", loop_length=count)

    def loop_again(self) -> float:
        """The loop, when everything is there."""
        self.loop_of(self.looped)
        return self._play("loop.yml", loop_length=self.looped) * (self.coaches / self.looped)

    def _play(self, name: str, *words: str, **more: int) -> float:
        variables = {"template_path": str(TEMPLATES), "workspace_files": workspace_files(), **more}
        return self.ground.play(PLAYS / name, *words, "-e", json.dumps(variables)).seconds
