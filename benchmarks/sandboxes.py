"""Sandboxes of a real gateway: turns that execute something in one, a rebuild that has nothing to do, and memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.ground import PROVISION, Ground, Settings, add_coaches, tasks_of
from benchmarks.measure import BenchmarkError, Rounds, Row

FAMILY = "sandboxes"
GATEWAY = "gw-0000"
REBUILD = "claw.fleet.rebuild_sandbox"
COACH = "coach-bench"
EXECUTES = 'tool:exec {"command": "journeyloop --help"}'
SAYS = "hello"
TURNS = 7
"""A turn by itself takes now half a second and now two."""
MEMORY = """
shims=$(for id in $(docker ps --quiet --no-trunc --filter label=openclaw.sandbox=1); do pgrep -f "containerd-shim.*$id"; done)
for pid in $(for shim in $shims; do echo $shim; pgrep -P $shim; for child in $(pgrep -P $shim); do pgrep -P $child; done; done); do
  sed -n 's/^Pss: *//p' /proc/$pid/smaps_rollup; done | awk '{ sum += $1 } END { print sum / 1024 }'
"""
"""The engine's own process for each sandbox, the init in it and what that keeps, in MB of what is theirs alone or shared."""


def run(settings: Settings) -> list[Row]:
    """Every row of this family."""
    ground = settings.ground("sandboxes", 1, 1, provider=True, sandboxes=True)
    if ground.fleet.orm("print(CompanionProfile.objects.filter(status='active').count())").strip() == "0":
        ground.play("claw.fleet.site")
        add_coaches(ground.fleet, [COACH])
        ground.play(PROVISION)
    turn(ground, EXECUTES)
    tasks = tasks_of(ground.play(REBUILD).output)
    pings = ground.pings(tasks)
    taken = Rounds(FAMILY, settings.say)
    plain, warm, first = (
        "a turn without a tool",
        "a turn that executes the command in a sandbox that is there",
        "a turn that executes the command and has to have its sandbox made",
    )
    rebuild, ping = "a rebuild with nothing to do", f"a play of {tasks} pings"
    idle, gateway = "an idle sandbox", "the gateway's processes"
    taken.run(
        {
            plain: lambda: median(lambda: turn(ground, SAYS)),
            warm: lambda: median(lambda: turn(ground, EXECUTES)),
            first: lambda: median(lambda: first_turn(ground)),
            rebuild: lambda: ground.settled(REBUILD),
            ping: lambda: ground.settled(pings, hosts_only=True),
            idle: lambda: float(ground.sh("machine1", MEMORY)),
            gateway: lambda: gateway_memory(ground),
        },
        settings.rounds,
    )
    calls = f"The median of {TURNS}. The model is asked twice where a tool is called; the stand-in answers at once."
    return [
        taken.row(warm, plain, note=calls),
        taken.row(first, plain, note=calls),
        taken.row(rebuild, ping),
        taken.row(idle, gateway, unit="MB"),
    ]


def median(measured: Callable[[], float]) -> float:
    """Of several turns."""
    return statistics.median(measured() for _number in range(TURNS))


def turn(ground: Ground, text: str) -> float:
    """The seconds of a turn, by the gateway itself."""
    began = time.monotonic()
    reply = ground.fleet.turn(GATEWAY, COACH, text)
    if reply.status != 200:
        raise BenchmarkError(f"A turn was answered {reply.status}: {reply.text}")
    return time.monotonic() - began


def first_turn(ground: Ground) -> float:
    """The seconds of a turn whose sandbox is not there."""
    ground.sh("machine1", "docker rm --force $(docker ps --quiet --filter label=openclaw.sandbox=1)")
    return turn(ground, EXECUTES)


def gateway_memory(ground: Ground) -> float:
    """What the gateway's processes hold, in MB."""
    unit = f"openclaw-gateway@{GATEWAY}.service"
    return float(
        ground.sh(
            "machine1",
            f"for pid in $(grep -l {unit} /proc/[0-9]*/cgroup | cut -d/ -f3); do "
            "sed -n 's/^Pss: *//p' /proc/$pid/smaps_rollup; done | awk '{ sum += $1 } END { print sum / 1024 }'",
        )
    )
