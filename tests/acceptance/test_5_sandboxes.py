"""Agents' sandboxes on a machine with two gateways: what runs in them, what they hold off, and how they come and go."""

from __future__ import annotations

import json
import re
import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from .fleet import Fleet, until
from .sandboxes import CLIENTS, GATEWAYS, Sandboxes, executing, heartbeat, job, outcome, sub_agent

pytestmark = pytest.mark.fire

ANNA, BEN, CLARA = COACHES = ("coach-anna", "coach-ben", "coach-clara")


@pytest.fixture(scope="module")
def sandboxes(fleet: Fleet) -> Sandboxes:
    """Each coach has a client of her own and a sandbox."""
    found = Sandboxes(fleet)
    for coach in COACHES:
        found.furnish(coach)
    return found


def test_each_agent_sees_her_coachs_clients_and_nobody_elses(fleet: Fleet, sandboxes: Sandboxes) -> None:
    with sandboxes.executed() as executed:
        told = {coach: sandboxes.clients(coach) for coach in COACHES}
    hers = {coach: _clients_in_django(fleet, coach) for coach in COACHES}
    assert {coach: sorted(names) for coach, names in told.items()} == hers
    assert all(f"A client of {coach}" in names for coach, names in hers.items())
    # Each in the container that has her workspace, whose user is her gateway's and nobody on the machine.
    there = sandboxes.all()
    assert {sandbox.gateway for sandbox in there.values()} == set(GATEWAYS)
    for coach in COACHES:
        lines = [line for container, line in executed if container == there[coach].id]
        assert [line for line in lines if line.endswith(CLIENTS)], executed
        uid = sandboxes.docker("exec", there[coach].id, "id", "-u").strip()
        assert uid == fleet.sh(f"id -u claw-{there[coach].gateway}").strip() != "0"


def _clients_in_django(fleet: Fleet, coach: str) -> list[str]:
    names = f"CompanionProfile.objects.get(agent_id={coach!r}).clients.values_list('name', flat=True)"
    found: list[str] = json.loads(fleet.orm(f"import json; print(json.dumps(sorted({names})))"))
    return found


def test_what_is_not_the_command_does_not_run(sandboxes: Sandboxes) -> None:
    for line in ("id -u", f"{CLIENTS}; id -u", "cat /run/credentials/.credentials.json"):
        with sandboxes.executed() as executed:
            told = sandboxes.execute(ANNA, line)
        assert "Only `journeyloop` can be executed here" in told
        assert executed == [], "it is refused before anything is executed"


def test_a_cron_job_runs_in_its_agents_sandbox(fleet: Fleet, sandboxes: Sandboxes) -> None:
    # One of each gateway.
    for sandbox in {sandbox.gateway: sandbox for sandbox in sandboxes.all().values()}.values():
        coach = sandbox.agent_id
        with sandboxes.executed() as executed, job(fleet, sandbox.gateway, coach, executing(CLIENTS)):
            pass
        assert [container for container, line in executed if line.endswith(CLIENTS)] == [sandbox.id]


def test_a_heartbeat_runs_in_its_agents_sandbox(fleet: Fleet, sandboxes: Sandboxes) -> None:
    since = sandboxes.now()
    with heartbeat(fleet, ANNA, "Anna", CLIENTS) as told:
        assert f"A client of {ANNA}" in told
        executed = sandboxes.executed_since(since)
        assert sandboxes.of(ANNA).id in [container for container, line in executed if line.endswith(CLIENTS)]


def test_a_new_key_reaches_a_sandbox_that_runs(fleet: Fleet, sandboxes: Sandboxes) -> None:
    old, before = fleet.credentials(ANNA)["api_key"], sandboxes.of(ANNA)
    assert "A client of coach-anna" in sandboxes.clients(ANNA)
    play = fleet.provision(None, rotate=ANNA)
    assert play.rc == 0, play.output
    assert fleet.credentials(ANNA)["api_key"] != old
    with fleet.api(old) as api:
        until("the old key to be refused", lambda: api.get("/clients/").status_code == 401, 15)
    assert "A client of coach-anna" in sandboxes.clients(ANNA)
    assert sandboxes.of(ANNA) == before


HOG = """
import os, signal, sys, time
if sys.argv[1] == "disk":
    for place in ("/tmp", "/var/tmp", "/workspace"):
        try:
            with open(f"{place}/hog", "wb", 0) as file:
                while True:
                    file.write(bytes(2**20))
        except OSError as error:
            print(place, error.errno, os.path.getsize(f"{place}/hog"))
elif sys.argv[1] == "processes":
    made = 0
    try:
        while os.fork():
            made += 1
    except OSError as error:
        print("fork", error.errno, made, flush=True)
    signal.pause()
else:
    while True:
        try:
            child = os.fork()
        except OSError:
            time.sleep(0.1)
            continue
        if child:
            with open("/workspace/ended", "a") as file:
                print(os.waitpid(child, 0)[1], file=file)
        else:
            kept = []
            while True:
                kept.append(bytearray(b"x" * 2**20))
"""


def test_one_that_takes_all_it_can_get_is_nobody_elses_trouble(fleet: Fleet, sandboxes: Sandboxes) -> None:
    sandboxes.clients(ANNA)
    sandbox, pids = sandboxes.of(ANNA), [fleet.pid(name) for name in GATEWAYS]
    hog, home = f"docker exec {sandbox.id} python3 -c %s %s", sandboxes.workspace(ANNA)
    with ThreadPoolExecutor(2) as pool:
        try:
            disk = fleet.machine.check_output(hog, HOG, "disk")
            memory = pool.submit(fleet.machine.run, hog, HOG, "memory")
            ended = until("it to have no memory", lambda: fleet.machine.run(f"cat {home}/ended").stdout)
            processes = pool.submit(fleet.machine.run, hog, HOG, "processes")
            until(
                "its process table to be full",
                lambda: len(sandboxes.docker("top", sandbox.id, "-o", "pid").split()) > 120,
            )
            for coach in (BEN, CLARA):
                assert f"A client of {coach}" in sandboxes.clients(coach)
            assert not memory.done() and not processes.done()
        finally:
            # By hand: it comes back at the next turn.
            fleet.sh(f"docker rm --force {sandbox.id}; rm -f {home}/hog {home}/ended")
    full, too_large, no_process = 28, 27, 11
    places = {line.split()[0]: line.split()[1:] for line in disk.splitlines()}
    for place in ("/tmp", "/var/tmp"):
        assert places[place][0] == str(full) and int(places[place][1]) <= 64 * 2**20
    assert places["/workspace"] == [str(too_large), str(100 * 2**20)]
    assert set(ended.split()) == {"9"}, "each time it is killed"
    assert re.match(rf"fork {no_process} \d{{2,3}}\n", processes.result().stdout)
    assert [fleet.pid(name) for name in GATEWAYS] == pids
    assert "A client of coach-anna" in sandboxes.clients(ANNA)
    assert sandboxes.of(ANNA).id != sandbox.id


FILLS = {
    "holds more than 50000 files": """
for number in range(60_000):
    open(f"{number}", "w").close()
""",
    # Of which none is too large.
    "holds more than 1073741824 bytes": """
for number in range(12):
    with open(f"{number}", "wb") as file:
        for _ in range(99):
            file.write(b"x" * 2**20)
""",
    "holds something that cannot be looked at (File name too long)": """
for _ in range(20):
    os.mkdir("d" * 250)
    os.chdir("d" * 250)
with open("beyond", "wb") as file:
    file.write(b"x" * 2**20)
""",
}


@pytest.mark.parametrize("words", FILLS)
def test_one_that_fills_its_workspace_is_ended(fleet: Fleet, sandboxes: Sandboxes, words: str) -> None:
    sandboxes.clients(ANNA)
    sandbox, many = sandboxes.of(ANNA), f"{sandboxes.workspace(ANNA)}/many"
    for coach in (BEN, CLARA):
        sandboxes.clients(coach)
    others = {coach: sandboxes.of(coach).id for coach in (BEN, CLARA)}
    try:
        fill = f"import os\nos.mkdir('/workspace/many')\nos.chdir('/workspace/many')\n{FILLS[words]}"
        fleet.machine.run("docker exec %s python3 -c %s", sandbox.id, fill)
        until("it to be ended", lambda: sandbox.id not in sandboxes.docker("ps", "--quiet", "--no-trunc"))
        said = fleet.sh("journalctl --unit=claw-sandbox-workspaces --lines=1 --output=cat")
        assert f"{sandboxes.workspace(ANNA)} {words}" in said
        assert {coach: sandboxes.of(coach).id for coach in others} == others
    finally:
        fleet.sh(f"rm -rf {many}")
    assert "A client of coach-anna" in sandboxes.clients(ANNA)


def test_one_that_fills_its_log_is_made_anew(fleet: Fleet, sandboxes: Sandboxes) -> None:
    """Whatever its first process says an engine writes down, and a sandbox's processes can all say it."""
    sandboxes.clients(ANNA)
    sandbox = sandboxes.of(ANNA)
    say = "with open('/proc/1/fd/1', 'w') as out: [print('x' * 1000, file=out) for _ in range(20_000)]"
    fleet.machine.run("docker exec %s python3 -c %s", sandbox.id, say)
    until("it to go", lambda: sandbox.id not in sandboxes.docker("ps", "--all", "--quiet", "--no-trunc"))
    assert "A client of coach-anna" in sandboxes.clients(ANNA)


HIDE = """
import os, time
kept = []
for number in range(5):
    file = open(f"/workspace/{number}", "wb")
    os.unlink(file.name)
    for _ in range(80):
        file.write(b"x" * 2**20)
    file.flush()
    kept.append(file)
time.sleep(100)
"""


def test_one_that_fills_the_disk_with_what_is_nowhere_is_ended(fleet: Fleet, sandboxes: Sandboxes) -> None:
    """On a file system of her own, which has less than the reserve from the beginning: half of that is nobody's to take."""
    dora = f"coach-dora-{secrets.token_hex(3)}"
    with fleet.admin() as admin:
        admin.add(dora, "Dora")
        assert fleet.provision(dora).rc == 0
        home, since = sandboxes.workspace(dora), fleet.sh("date +%s").strip()
        other = sandboxes.of(BEN).id if BEN in sandboxes.all() else ""
        fleet.sh(
            f"cp -a {home} /root/dora && mount -t tmpfs -o size=500m tmpfs {home} && cp -a /root/dora/. {home}/"
        )
        if dora in sandboxes.all():
            # Of her first turn; it has what lies below.
            fleet.sh(f"docker rm --force {sandboxes.of(dora).id}")
        try:
            sandboxes.execute(dora, CLIENTS)
            words = f"journalctl --unit=claw-sandbox-workspaces --since=@{since} --output=cat"
            until("it to be seen", lambda: "Make room." in fleet.sh(words))
            sandbox = sandboxes.of(dora)
            with ThreadPoolExecutor(1) as pool:
                hog = pool.submit(fleet.machine.run, "docker exec %s python3 -c %s", sandbox.id, HIDE)
                until("it to be ended", hog.done)
            assert not sandboxes.of(dora).running
            used = fleet.sh(f"df --output=used --block-size=1M {home}").split()[-1]
            assert int(used) < 50, "what it held is gone with it"
            if other:
                assert sandboxes.of(BEN).id == other and sandboxes.of(BEN).running
            sandboxes.execute(dora, CLIENTS)
        finally:
            admin.act("remove", fleet.row(dora)["pk"])
            fleet.sh(f"docker rm --force {sandboxes.of(dora).id}; umount {home}; rm -rf /root/dora")
            assert fleet.provision(dora).rc == 0


def test_one_who_wrote_down_what_leaves_her_context_is_at_work_no_longer(
    fleet: Fleet, sandboxes: Sandboxes
) -> None:
    """OpenClaw has her do that in a turn of its own, when a conversation has become long."""
    before, session = fleet.heard_until_now(), secrets.token_hex(4)
    for number in range(7):
        fleet.ask(CLARA, f"{number} " + "lorem ipsum " * 6000, session)
        if fleet.heard("Pre-compaction memory flush", after=before):
            break
    assert fleet.heard("Pre-compaction memory flush", after=before)
    sandboxes.execute(CLARA, CLIENTS)
    try:
        play = sandboxes.rebuilt(sandbox_memory="384m", sandbox_wait=30)
        told = outcome(play, fleet.row(CLARA)["gateway"])
        assert CLARA in told["recreated"] and told["busy"] == []
    finally:
        sandboxes.rebuilt()


@pytest.mark.parametrize("deed", ["kill", "stop --time=0", "rm --force"])
def test_one_that_ended_by_hand_is_back_at_the_next_turn(
    fleet: Fleet, sandboxes: Sandboxes, deed: str
) -> None:
    sandboxes.clients(BEN)
    fleet.sh(f"docker {deed} {sandboxes.of(BEN).id}")
    assert "A client of coach-ben" in sandboxes.clients(BEN)
    assert sandboxes.of(BEN).running


AGE = """
import sqlite3, sys
with sqlite3.connect("state/openclaw.sqlite") as database:
    age = "update sandbox_registry_entries set last_used_at_ms = last_used_at_ms - ? where session_key like ?"
    print(database.execute(age, (5 * 3600 * 1000, f"agent:{sys.argv[1]}:%")).rowcount)
"""
"""Run in a gateway's state directory: makes that an agent's sandbox was last used five hours before it was."""


def test_a_workspace_that_is_made_anew_is_her_sandboxs_too(fleet: Fleet, sandboxes: Sandboxes) -> None:
    before = sandboxes.clients(ANNA)
    fleet.sh(f"rm -rf {sandboxes.workspace(ANNA)}")
    play = fleet.provision(ANNA)
    assert play.rc == 0, play.output
    assert sandboxes.clients(ANNA) == before
    assert "companion of Anna" in fleet.sh(f"cat {sandboxes.workspace(ANNA)}/SOUL.md")


def test_one_that_is_idle_goes_and_is_back_at_the_next_turn(fleet: Fleet, sandboxes: Sandboxes) -> None:
    """OpenClaw looks for them at anybody's turn, five minutes apart and after its start."""
    for coach in (ANNA, BEN, CLARA):
        sandboxes.clients(coach)
    idle = sandboxes.of(ANNA)
    (other,) = [
        name for name, sandbox in sandboxes.all().items() if sandbox.gateway == idle.gateway and name != ANNA
    ][:1]
    unit, home = f"openclaw-gateway@{idle.gateway}.service", f"/var/lib/claw/{idle.gateway}"
    fleet.sh(f"systemctl stop {unit}")
    try:
        aged = fleet.machine.check_output(
            f"cd {home} && runuser -u claw-{idle.gateway} -- python3 -c %s %s", AGE, ANNA
        )
        assert aged == "1"
    finally:
        fleet.sh(f"systemctl start {unit}")
    until("the gateway to answer", lambda: fleet.turn(idle.gateway, other).status == 200, 180)
    assert f"A client of {other}" in sandboxes.clients(other)
    assert ANNA not in sandboxes.all() and other in sandboxes.all()
    assert "A client of coach-anna" in sandboxes.clients(ANNA)
    assert sandboxes.of(ANNA).id != idle.id


def test_a_removed_coach_leaves_no_sandbox(fleet: Fleet, sandboxes: Sandboxes) -> None:
    emma = f"coach-emma-{secrets.token_hex(3)}"
    with fleet.admin() as admin:
        admin.add(emma, "Emma")
        assert fleet.provision(emma).rc == 0
        sandboxes.execute(emma, CLIENTS)
        fleet.ask(emma, 'tool:write {"path": "note.md", "content": "of Emma"}', "note")
        home = sandboxes.workspace(emma)
        assert fleet.sh(f"cat {home}/note.md") == "of Emma"
        here = sandboxes.all()
        admin.act("remove", fleet.row(emma)["pk"])
        play = fleet.provision(emma)
    assert play.rc == 0, play.output
    assert sandboxes.all() == {name: sandbox for name, sandbox in here.items() if name != emma}
    state = f"/var/lib/claw/{here[emma].gateway}"
    assert fleet.sh(f"cat $(ls -d {state}/removed/{emma}-* | tail -1)/workspace/note.md") == "of Emma"
    assert fleet.sh(f"ls -d {state}/*/{emma} 2>/dev/null || true") == ""
    again = fleet.provision()
    assert (again.rc, again.changed) == (0, [])


def test_a_sub_agent_runs_in_its_parents_sandbox(fleet: Fleet, sandboxes: Sandboxes) -> None:
    line = "journeyloop profile show"
    since = sandboxes.now()
    # Its end gives the gateway its own settings back, for which it may need another sandbox.
    with sub_agent(fleet, ANNA, line) as told:
        assert json.loads(told)["agent_id"] == ANNA
        # Told of its end, the stand-in has her do the same by herself.
        executed = sandboxes.executed_since(since)
        mine = [container for container, executed_line in executed if executed_line.endswith(line)]
        assert mine and set(mine) == {sandboxes.of(ANNA).id}
