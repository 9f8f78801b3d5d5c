"""A real gateway of a hundred coaches: no change, one more, ten more; and the source systems' way."""

from __future__ import annotations

import json
import re
import secrets
import statistics
from pathlib import Path

from benchmarks import bare_roster
from benchmarks.ground import PROVISION, Ground, Settings, add_coaches, tasks_of
from benchmarks.measure import Rounds, Row, Taken

FAMILY = "one-gateway"
GATEWAY = "gw-0000"
STEP = "Each has an agent"
BARE_ROUNDS = 3
SOURCE = "/var/lib/claw-source"
"""Where a gateway is laid out as the source systems had theirs: all agents in one config, made by the command line."""


def run(settings: Settings) -> list[Row]:
    """Every row of this family."""
    coaches, more = (3, 2) if settings.quick else (100, 10)
    ground = settings.ground("one", 1, 1, provider=True)
    taken = Rounds(FAMILY, settings.say)
    rows = _from_nothing(ground, coaches, taken)
    tasks = tasks_of(ground.play(PROVISION).output)
    pings = ground.pings(tasks)
    same, one, many = (f"{coaches} coaches, {what}" for what in ("no change", "one more", f"{more} more"))
    ping, reload = f"a play of {tasks} pings", "the gateway's own reload, after a bare rename"
    taken.run(
        {
            same: lambda: ground.settled(PROVISION),
            ping: lambda: ground.settled(pings, hosts_only=True),
            one: lambda: added(ground, 1),
            many: lambda: added(ground, more),
            reload: lambda: reloaded(ground),
        },
        settings.rounds,
    )
    less = {}
    for name in (one, many):
        less[name] = f"{name}, less that reload"
        for whole, own in zip(taken.taken[name], taken.taken[reload], strict=True):
            taken.take(less[name], whole - own)
    turn = "One more includes her agent's first turn, which the gateway takes seconds for."
    return [
        *rows,
        taken.row(same, ping, at_most=3),
        taken.row(less[one], same, at_most=1.5, note=turn),
        taken.row(less[many], same, note=turn),
        taken.row(one, ping, note=turn),
        taken.row(many, ping, note=turn),
    ]


def furnish(ground: Ground, coaches: int) -> tuple[Taken, float] | None:
    """The gateway with its coaches; None if they were there, or what the play of all of them took and, beside it, the
    gateway's own reload of as many after a bare rename."""
    if ground.fleet.orm("print(CompanionProfile.objects.filter(status='active').count())").strip() != "0":
        return None
    ground.play("claw.fleet.site")
    names = [f"bare-{number}" for number in range(coaches)]
    reload = bare(ground, "add", *names)
    bare(ground, "drop", *names)
    add_coaches(ground.fleet, [f"coach-{number:05}" for number in range(coaches)])
    return ground.play(PROVISION), reload


def added(ground: Ground, count: int) -> float:
    """The seconds of a run that adds so many; they are removed again afterwards."""
    # Never the same twice: one who comes back is another case.
    ids = [f"coach-{secrets.token_hex(4)}" for _number in range(count)]
    wish(ground, ids, "provision")
    seconds = ground.play(PROVISION).seconds
    wish(ground, ids, "remove")
    ground.play(PROVISION, "-e", json.dumps({"coaches_max_removals": count}))
    return seconds


def wish(ground: Ground, ids: list[str], what: str) -> None:
    """What people do in the admin, to coaches who are put on the list if they are not there yet."""
    found = f"CompanionProfile.objects.filter(agent_id__in={ids!r})"
    if ground.fleet.orm(f"print({found}.count())").strip() == "0":
        add_coaches(ground.fleet, ids)
        return
    ground.fleet.orm(f"from claw_fleet.coachlist import people; people.{what}({found})")


def reloaded(ground: Ground) -> float:
    """The seconds from a bare rename of the roster with one agent more until it is served: the median of some."""
    taken = []
    for number in range(BARE_ROUNDS):
        taken.append(bare(ground, "add", f"bare-{number}"))
        bare(ground, "drop", f"bare-{number}")
    return statistics.median(taken)


def bare(ground: Ground, verb: str, *ids: str) -> float:
    """A bare rename, and the seconds until it is served."""
    program = Path(bare_roster.__file__).read_text()
    ground.sh("machine1", "cat > /root/bare_roster.py", stdin=program)
    return float(ground.sh("machine1", f"python3 /root/bare_roster.py {GATEWAY} {verb} {' '.join(ids)}"))


def _from_nothing(ground: Ground, coaches: int, taken: Rounds) -> list[Row]:
    """The first run of all of them, and the source systems' way: once, when the gateway was made."""
    whole, step = f"{coaches} new coaches, the whole play with their first turns", f"its step: {STEP}"
    less = f"{step}, less the gateway's own reload of as many"
    among = (0, coaches // 2, coaches - 1)
    source = f"`openclaw agents add`, one after another (one each among {among} measured, times {coaches})"
    noted = ground.state / "first.json"
    first = furnish(ground, coaches)
    if first is not None:
        play, reload = first
        each = [_agents_add(ground, number) for number in among]
        at_step = _task(play, STEP)
        noted.write_text(
            json.dumps([play.seconds, at_step, at_step - reload, statistics.mean(each) * coaches])
        )
    for name, figure in zip((whole, step, less, source), json.loads(noted.read_text()), strict=True):
        taken.take(name, figure)
    note = "Once, not in rounds. The source's way is without a gateway that runs, and without first turns."
    return [
        taken.row(source, whole, note=note),
        taken.row(source, step, at_least=100, note=note),
        taken.row(source, less, note=note),
    ]


def _task(taken: Taken, name: str) -> float:
    """The seconds between a task's headline and the next one."""
    heads = [(at, line) for at, line in taken.lines if line.startswith(("TASK [", "PLAY RECAP"))]
    at = next(number for number, (_at, line) in enumerate(heads) if name in line)
    return heads[at + 1][0] - heads[at][0]


def _agents_add(ground: Ground, there: int) -> float:
    """The seconds of adding one where so many are there already."""
    descriptor = json.loads(ground.sh("machine1", f"cat /etc/claw/{GATEWAY}/gateway.json"))
    config = {
        "gateway": {"mode": "local"},
        "agents": {
            "ownership": "explicit",
            "defaults": {"systemAgent": {"agentId": "main"}},
            "entries": {
                name: {
                    "name": name,
                    "workspace": f"{SOURCE}/{name}",
                    "agentDir": f"{SOURCE}/agents/{name}/agent",
                }
                for name in ("main", *(f"former-{number}" for number in range(there)))
            },
        },
    }
    ground.sh(
        "machine1",
        f"rm -rf {SOURCE} && mkdir -p {SOURCE} && cd {SOURCE} && cat > openclaw.json",
        stdin=json.dumps(config),
    )
    environment = f"HOME={SOURCE} OPENCLAW_STATE_DIR={SOURCE} OPENCLAW_CONFIG_PATH={SOURCE}/openclaw.json"
    line = (
        f"cd {SOURCE} && begin=$(date +%s.%N) && env {environment} {descriptor['node']} {descriptor['entry']} "
        f"agents add source --workspace {SOURCE}/source --non-interactive --json >&2 && "
        'echo "seconds $begin $(date +%s.%N)"'
    )
    found = re.search(r"seconds (\S+) (\S+)", ground.sh("machine1", line))
    assert found
    return float(found.group(2)) - float(found.group(1))
