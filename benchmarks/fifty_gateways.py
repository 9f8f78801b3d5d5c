"""5,000 coaches on 50 gateways, with nothing to do: the whole play beside one ping of the 50.

The gateways' users, state directories, workspaces and keys are real, and made by the same play; in the place of
OpenClaw's processes is `gateway_stand_in.py`. Django is the reference coach list on SQLite.
"""

from __future__ import annotations

from functools import partial

from benchmarks.ground import PROVISION, Ground, Settings, add_coaches
from benchmarks.measure import Rounds, Row

FAMILY = "fifty-gateways"
COACHES_EACH = 100
NOTE = (
    "The machines are containers on the controller's own cores: what their part costs is in these seconds, as if "
    "fifty gateways' machines had two cores together."
)


def run(settings: Settings) -> list[Row]:
    """Every row of this family."""
    machines, gateways, each = (1, 2, 5) if settings.quick else (5, 50, COACHES_EACH)
    ground = settings.ground("fifty", machines, gateways, provider=False)
    _furnish(ground, each, settings)
    total = f"{gateways * each:,} coaches on {gateways} gateways"
    ping = ground.pings(1)
    taken = Rounds(FAMILY, settings.say)
    rows = []
    for forks in ("2",) if settings.quick else ("5", "20", "50"):
        play, one_ping = f"{total}, no change, forks {forks}", f"one ping of each, forks {forks}"
        taken.run(
            {
                play: partial(ground.settled, PROVISION, "--forks", forks),
                one_ping: partial(ground.settled, ping, "--forks", forks, hosts_only=True),
            },
            settings.rounds,
        )
        rows.append(taken.row(play, one_ping, at_most=3, note=NOTE))
    return rows


def _furnish(ground: Ground, each: int, settings: Settings) -> None:
    """Every coach claimed and active, as far as Django knows, and then made so by the play."""
    if ground.fleet.orm("print(CompanionProfile.objects.count())").strip() != "0":
        return
    ground.stand_ins()
    names = ground.gateways
    ground.fleet.orm(f"Gateway.objects.bulk_create([Gateway(name=name) for name in {names!r}])")
    for number, name in enumerate(names):
        ids = [f"coach-{number * each + place:05}" for place in range(each)]
        add_coaches(ground.fleet, ids, gateway_id=name, status="active", observed_generation=1)
    settings.say(f"{FAMILY}: making the keys and workspaces of {each * len(names)} coaches")
    taken = ground.play(PROVISION, "--forks", "20")
    settings.say(f"{FAMILY}: that took {taken.seconds:.0f} s")
