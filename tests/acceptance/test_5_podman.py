"""Agents' sandboxes where each gateway has a rootless engine of its own: on a bench of its own, as its machine is another."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils._audit import HOGS, NAMES
from clawbench import surroundings

from .conftest import KEEP
from .fleet import ROOT, Fleet, Play, until
from .sandboxes import (
    CLIENTS,
    REBUILD,
    SITE,
    Sandboxes,
    client_of,
    executing,
    given_a_client,
    heartbeat,
    job,
    said,
    sub_agent,
)

pytestmark = [
    pytest.mark.fire,
    pytest.mark.skipif(
        not (Path("/dev/fuse").exists() and Path("/dev/net/tun").exists()),
        reason="this machine has no /dev/fuse or no /dev/net/tun to give to a host that runs a rootless engine",
    ),
]

STATE = Path(os.environ.get("CLAW_PODMAN_STATE") or ROOT / ".cache" / "bench" / "podman")
ANNA, BEN, CLARA = COACHES = ("coach-anna", "coach-ben", "coach-clara")
GATEWAYS = ("gw-a", "gw-b")
PROXY = "172.29.240.1"
AUDIT = "Try everything that must fail"
CONTROL_GROUPS_2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
needs_limits = pytest.mark.skipif(
    not CONTROL_GROUPS_2, reason="a rootless engine limits a container by control groups of version 2 alone"
)
WORST_EXPOSURE = {
    "claw-podman@": 7.0,
    "claw-egress-link@": 4.5,
    "openclaw-gateway@": 2.0,
    "claw-sandbox-workspaces@": 2.0,
}
"""Of the first: it needs a program that is root for a moment (newuidmap), which rules most of hardening out."""
AUDIT_REASONS = {"fs.config_include.perms_group_readable", "config.insecure_or_dangerous_flags"}
REACH = """
import json, socket, sys
def reach(host, port):
    try:
        socket.create_connection((host, port), 2).close()
        return "open"
    except OSError as error:
        return type(error).__name__
print(json.dumps([reach(host, port) for host, port in json.loads(sys.argv[1])]))
"""
PING = "import docker, sys; docker.APIClient(sys.argv[1]).ping()"
GET = """
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": sys.argv[1]}))
try:
    print(opener.open(sys.argv[2], timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code, error.headers.get("X-Squid-Error", ""))
"""


class Podman(Fleet):
    """A demo with rootless engines."""

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "CLAW_DEMO_ENGINE": "podman"}

    def podman(self, gateway: str, *words: str) -> str:
        """What a gateway's engine answers."""
        host = f"unix:///run/claw-podman/{gateway}/podman.sock"
        return self.sh(shlex.join(["podman", "--url", host, *words]))

    def containers(self, gateway: str) -> dict[str, dict[str, Any]]:
        """The sandboxes of a gateway's engine, by agent."""
        ids = self.podman(gateway, "ps", "--all", "--quiet").split()
        found: dict[str, dict[str, Any]] = {}
        for one in json.loads(self.podman(gateway, "inspect", *ids)) if ids else []:
            (workspace,) = [m["Source"] for m in one["Mounts"] if m["Destination"] == "/workspace"]
            found[Path(workspace).name] = one
        return found

    def within(self, agent_id: str, program: str, *words: str) -> str:
        """What a program prints in an agent's sandbox."""
        gateway = self.row(agent_id)["gateway"]
        container = self.containers(gateway)[agent_id]["Id"]
        return self.podman(gateway, "exec", container, "python3", "-c", program, *words).strip()

    def reach(self, agent_id: str, *targets: tuple[str, int]) -> dict[tuple[str, int], str]:
        """What becomes of connections from an agent's sandbox."""
        told = json.loads(self.within(agent_id, REACH, json.dumps(targets)))
        return dict(zip(targets, told, strict=True))

    def execute(self, agent_id: str, line: str) -> str:
        """What an agent is told of a line that she executes."""
        return said(self.ask(agent_id, executing(line), "tools"))

    def way(self, gateway: str) -> str:
        """The address from which a gateway's sandboxes reach the proxy."""
        line = self.sh(f"ip -netns claw-{gateway} -4 -o address show dev way")
        return line.split(" inet ")[1].split("/")[0]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Podman]:
    """Two gateways, three coaches, each with a client of her own and a sandbox."""
    fleet = Podman(STATE)
    done = fleet.make("up")
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        for coach in COACHES:
            given_a_client(fleet, coach)
            fleet.execute(coach, CLIENTS)
        yield fleet
    finally:
        if not os.environ.get(KEEP):
            fleet.make("down")


def test_each_agent_executes_her_command_and_reaches_the_app(fleet: Podman) -> None:
    told = {coach: fleet.execute(coach, CLIENTS) for coach in COACHES}
    for coach in COACHES:
        assert [other for other in COACHES if client_of(other) in told[coach]] == [coach]
        assert fleet.execute(coach, "journeyloop --help").startswith("Usage: journeyloop")
    assert "Only `journeyloop` can be executed here" in fleet.execute(ANNA, "id -u")


def test_a_cron_job_runs_in_its_agents_sandbox(fleet: Podman) -> None:
    # One of each gateway.
    for coach in (ANNA, BEN):
        gateway = fleet.row(coach)["gateway"]
        before = fleet.containers(gateway)
        with job(fleet, gateway, coach, executing(CLIENTS)) as told:
            assert client_of(coach) in told
        assert {one["Id"] for one in fleet.containers(gateway).values()} == {
            one["Id"] for one in before.values()
        }


def test_a_heartbeat_and_a_sub_agent_run_in_their_agents_sandbox(fleet: Podman) -> None:
    for way in (heartbeat(fleet, ANNA, "Anna", CLIENTS), sub_agent(fleet, ANNA, CLIENTS)):
        with way as told:
            assert client_of(ANNA) in told
    assert fleet.machine.run("command -v journeyloop").rc != 0, "there is none outside of sandboxes"


def test_the_doctor_knows_a_rootless_engine(fleet: Podman, tmp_path: Path) -> None:
    report, template = tmp_path / "report.json", "/etc/systemd/system/claw-podman@.service"

    def codes() -> list[str]:
        play = fleet.play("playbooks/fleet-doctor.yml", doctor_report=str(report), doctor_fail_on="note")
        found = sorted({one["code"] for one in json.loads(report.read_text())["findings"]})
        assert (play.rc != 0) == bool(found), play.output
        return found

    def limits() -> set[str]:
        lines = [fleet.sh(f"systemctl show -P MemoryMax claw-podman@{name}").strip() for name in GATEWAYS]
        return set(lines)

    assert codes() == []
    fleet.sh("systemctl stop claw-podman@gw-a")
    assert codes() == ["sandbox-without-engine"]
    fleet.sh("systemctl start claw-podman@gw-a claw-sandbox-workspaces@gw-a")
    assert codes() == []
    own = limits()
    fleet.sh(f"sed -i 's/^MemoryMax=.*/MemoryMax=9G/' {template} && systemctl daemon-reload")
    # Until they are started anew, it is told of each engine that it runs with other files.
    assert codes() == ["unit-edited", "unit-outdated"]
    names = " ".join(
        f"{unit}@{name}" for unit in ("claw-podman", "claw-sandbox-workspaces") for name in GATEWAYS
    )
    fleet.sh(f"systemctl restart {names}")
    assert limits() == {str(9 * 2**30)}
    assert codes() == ["unit-edited"]
    fleet.done(SITE)
    assert (codes(), limits()) == ([], own)


def test_a_new_key_reaches_a_sandbox_that_runs(fleet: Podman) -> None:
    old, before = fleet.credentials(ANNA)["api_key"], fleet.containers("gw-a")[ANNA]["Id"]
    play = fleet.provision(None, rotate=ANNA)
    assert play.rc == 0, play.output
    assert fleet.credentials(ANNA)["api_key"] != old
    assert client_of(ANNA) in fleet.execute(ANNA, CLIENTS)
    assert fleet.containers("gw-a")[ANNA]["Id"] == before


def test_nobody_is_as_good_as_root(fleet: Podman) -> None:
    assert fleet.machine.run("getent group docker").rc != 0, "no engine of the system's came"
    for gateway in GATEWAYS:
        user = f"claw-{gateway}"
        assert fleet.sh(f"id -nG {user}").split() == [user]
        (other,) = set(GATEWAYS) - {gateway}
        for name, may in ((gateway, True), (other, False), (None, False)):
            place = f"claw-podman/{name}" if name else "claw-podman-builder"
            done = fleet.machine.run(
                f"setpriv --reuid={user} --regid={user} --clear-groups python3 -c %s %s",
                PING,
                f"unix:///run/{place}/podman.sock",
            )
            assert done.rc == 0 if may else "Permission denied" in done.stderr, (place, done)
    # Where nobody had Podman before, it does nothing for root.
    assert (
        fleet.machine.run("systemctl is-active podman.socket podman.service").stdout.split()
        == ["inactive"] * 2
    )


def test_a_sandbox_has_her_own_things_alone(fleet: Podman) -> None:
    places = {coach: fleet.row(coach)["gateway"] for coach in COACHES}
    for gateway in GATEWAYS:
        there = fleet.containers(gateway)
        assert set(there) == {coach for coach in COACHES if places[coach] == gateway}
        for coach, container in there.items():
            state = f"/var/lib/claw/{gateway}"
            sources = {m["Source"] for m in container["Mounts"] if m["Type"] == "bind"}
            assert {f"{state}/workspaces/{coach}", f"{state}/credentials/{coach}"} < sources
            assert not [one for one in sources for other in COACHES if other != coach and other in one]
            assert container["HostConfig"]["ReadonlyRootfs"]
            assert container["EffectiveCaps"] in ([], None)
            # Without a name in it, and outside the gateway's user, whose workspace it is.
            status = fleet.sh(f"cat /proc/{container['State']['Pid']}/status")
            assert f"Uid:\t{fleet.sh(f'id -u claw-{gateway}').strip()}" in status
            assert "NoNewPrivs:\t1" in status
            assert "Seccomp:\t2" in status


def test_there_is_no_way_out_but_the_proxy(fleet: Podman) -> None:
    machine = fleet.bench.facts()["hosts"]["machine1"]
    beyond = fleet.bench.facts()["network_gateway"]
    api = int(fleet.coach_list.url.rpartition(":")[2])
    closed = [
        (PROXY, 22), (PROXY, 8080), (machine, 22), (machine, 8080), (beyond, api), (beyond, 80), ("10.0.2.2", 22),
        ("10.0.2.2", 18789), ("10.0.2.2", 3128), ("127.0.0.1", 18789), ("169.254.169.254", 80), ("10.0.2.3", 53),
        ("192.0.2.1", 443), ("fd00:ec2::254", 80), ("fe80::1%tap0", 22), ("::1", 22),
    ]  # fmt: skip
    # What is closed here is open from the machine itself.
    assert fleet.machine.run(f"timeout 3 bash -c '</dev/tcp/{beyond}/{api}'").rc == 0
    for coach in (ANNA, BEN):
        found = fleet.reach(coach, (PROXY, 3128), *closed)
        assert found.pop((PROXY, 3128)) == "open"
        assert [target for target, became in found.items() if became == "open"] == []
    # Nor for a container whose network is the engine's own, as one who has taken over a gateway could have it.
    image = fleet.podman("gw-a", "images", "--format", "{{.Repository}}:{{.Tag}}", "claw-sandbox").split()[0]
    words = [
        "run",
        "--rm",
        "--network=host",
        image,
        "python3",
        "-c",
        REACH,
        json.dumps([(PROXY, 3128), *closed]),
    ]
    became = json.loads(fleet.podman("gw-a", *words))
    assert became[0] == "open"
    assert "open" not in became[1:]


def test_names_and_hosts_are_the_proxys_to_refuse(fleet: Podman) -> None:
    url, api = f"http://{PROXY}:3128", fleet.coach_list.url.rpartition(":")[2]
    beyond = fleet.bench.facts()["network_gateway"]
    name = "app.claw.test"
    fleet.sh(f"grep -q {name} /etc/hosts || echo '{beyond} {name}' >> /etc/hosts")
    play = fleet.play(REBUILD, sandbox_egress_hosts=[f"{name}:{api}"])
    assert play.rc == 0, play.output
    fleet.execute(ANNA, CLIENTS)
    schema = "/api/companion/v1/schema/"
    # Django's own word: it has no such name. Of the proxy's words its header tells.
    assert fleet.within(ANNA, GET, url, f"http://{name}:{api}{schema}") == "400"
    assert fleet.within(ANNA, GET, url, f"http://{beyond}:{api}{schema}") == "200"
    for refused in (
        "http://169.254.169.254/",
        f"http://{beyond}:22/",
        "http://provider:18080/",
        "http://localhost/",
    ):
        assert fleet.within(ANNA, GET, url, refused).startswith("403"), refused
    assert f"{fleet.way('gw-a')} GET {name}:{api} 400" in fleet.sh("journalctl -u claw-egress --no-pager")


def test_one_sandbox_does_not_reach_another(fleet: Podman) -> None:
    assert fleet.row(ANNA)["gateway"] == fleet.row(CLARA)["gateway"] != fleet.row(BEN)["gateway"]
    listen = "import http.server; http.server.test(port=8099)"
    for coach in (CLARA, BEN):
        gateway = fleet.row(coach)["gateway"]
        container = fleet.containers(gateway)[coach]["Id"]
        fleet.podman(gateway, "exec", "--detach", container, "python3", "-c", listen)
    # It does listen.
    assert "open" in fleet.reach(CLARA, *[("127.0.0.1", 8099)] * 5).values()
    own, others = fleet.way("gw-a"), fleet.way("gw-b")
    addresses = (own, others, "10.0.2.2", "10.0.2.3", "10.0.2.15", "10.0.2.100", PROXY, "127.0.0.1")
    found = fleet.reach(ANNA, *[(address, 8099) for address in addresses])
    assert "open" not in found.values(), found
    # Nor does one gateway's engine reach another's.
    reached = fleet.machine.run(f"ip netns exec claw-gw-a timeout 2 bash -c '</dev/tcp/{others}/22'")
    assert reached.rc == 124, "it is not even refused"


def test_a_restart_of_the_engine_or_of_its_network_is_made_good_by_the_next_turn(fleet: Podman) -> None:
    for unit in ("claw-podman@gw-a.service", "claw-egress-bridge.service"):
        fleet.sh(f"systemctl restart {unit}")
        # What depends on it follows by itself.
        until(
            "the engines to be there",
            lambda: (
                all(
                    fleet.machine.run(f"test -S /run/claw-podman/{name}/podman.sock").rc == 0
                    for name in GATEWAYS
                )
                and "No jobs" in fleet.machine.run("systemctl list-jobs").stdout
            ),
            60,
        )
        assert CLARA in fleet.containers("gw-a"), "they are kept"
        assert "A client of coach-clara" in fleet.execute(CLARA, CLIENTS)
        pid = fleet.sh("systemctl show -P MainPID claw-podman@gw-a.service").strip()
        assert fleet.sh(f"ip netns identify {pid}").strip() == "claw-gw-a"
    assert "A client of coach-ben" in fleet.execute(BEN, CLIENTS)
    assert fleet.reach(CLARA, (PROXY, 22))[PROXY, 22] != "open"


def test_another_document_comes_to_each_gateways_engine(fleet: Podman, tmp_path: Path) -> None:
    """Built once, copied to each, and given to who is idle; nothing else is another."""
    document = str(Sandboxes(fleet).document(tmp_path, weather=True))
    before = {gateway: fleet.containers(gateway) for gateway in GATEWAYS}
    pids = [fleet.pid(name) for name in GATEWAYS]
    fleet.ask(BEN, 'tool:write {"path": "note.md", "content": "to be kept"}', "note")
    try:
        play = fleet.play(REBUILD, sandbox_openapi=document)
        assert play.rc == 0, play.output
        for coach in COACHES:
            gateway = fleet.row(coach)["gateway"]
            assert "show" in fleet.execute(coach, "journeyloop weather --help")
            after = fleet.containers(gateway)[coach]
            assert after["Image"] != before[gateway][coach]["Image"]
        assert [fleet.pid(name) for name in GATEWAYS] == pids
        assert (
            fleet.sh(f"cat /var/lib/claw/{fleet.row(BEN)['gateway']}/workspaces/{BEN}/note.md")
            == "to be kept"
        )
        for arguments in ((), ("--check",)):
            again = fleet.play(REBUILD, *arguments, sandbox_openapi=document)
            assert (again.rc, again.changed) == (0, []), again.output
    finally:
        assert fleet.play(REBUILD).rc == 0
    assert "No such command 'weather'" in fleet.execute(ANNA, "journeyloop weather --help")


def test_one_that_fills_its_workspace_is_ended(fleet: Podman) -> None:
    gateway = fleet.row(BEN)["gateway"]
    fleet.execute(BEN, CLIENTS)
    one = fleet.containers(gateway)[BEN]["Id"]
    fill = "for number in range(60_000): open(f'/workspace/{number}', 'w').close()"
    socket = f"unix:///run/claw-podman/{gateway}/podman.sock"
    fleet.machine.run("podman --url %s exec %s python3 -c %s", socket, one, fill)
    until("it to be ended", partial(_ended, fleet, gateway, one))
    fleet.sh(f"find /var/lib/claw/{gateway}/workspaces/{BEN} -maxdepth 1 -name '[0-9]*' -delete")
    assert "A client of coach-ben" in fleet.execute(BEN, CLIENTS)


def test_what_a_sandbox_says_is_nowhere_written_down(fleet: Podman) -> None:
    """Neither in a file that grows nor among the machine's own words."""
    fleet.podman(fleet.row(BEN)["gateway"], "rm", "--force", "--all")
    fleet.execute(BEN, CLIENTS)
    word = secrets.token_hex(8)
    fleet.within(
        BEN, f"with open('/proc/1/fd/1', 'w') as out: [print('{word}', file=out) for _ in range(20_000)]"
    )
    # What was said before it can be read by then.
    fleet.sh(f"logger after-{word}; journalctl --sync; journalctl --no-pager | grep after-{word}")
    assert fleet.machine.run(f"journalctl --no-pager | grep ': {word}$'").stdout == ""
    container = fleet.containers(fleet.row(BEN)["gateway"])[BEN]
    assert container["HostConfig"]["LogConfig"]["Type"] == "none"


def _ended(fleet: Podman, gateway: str, container: str) -> bool:
    return container not in fleet.podman(gateway, "ps", "--quiet", "--no-trunc")


def test_units_are_hardened_and_limited(fleet: Podman) -> None:
    for kind, worst in WORST_EXPOSURE.items():
        for gateway in GATEWAYS:
            unit = f"{kind}{gateway}.service"
            assert fleet.machine.service(unit).is_running
            told = fleet.sh(f"systemd-analyze security --no-pager {unit} | tail -n 1")
            assert float(told.split(": ")[1].split()[0]) <= worst, told
    # All of a gateway's sandboxes together have what the unit has, whatever the version of control groups.
    pid = fleet.containers("gw-b")[BEN]["State"]["Pid"]
    assert "claw-podman@gw-b.service" in fleet.sh(f"cat /proc/{pid}/cgroup")
    assert fleet.sh("systemctl show -P MemoryMax claw-podman@gw-b.service").strip() == str(4 << 30)


@needs_limits
def test_each_sandbox_has_limits(fleet: Podman) -> None:
    host = fleet.containers("gw-b")[BEN]["HostConfig"]
    assert (host["Memory"], host["PidsLimit"]) == (512 << 20, 128)
    pid = fleet.containers("gw-b")[BEN]["State"]["Pid"]
    group = fleet.sh(f"cut -d: -f3 /proc/{pid}/cgroup").strip()
    assert fleet.sh(f"cat /sys/fs/cgroup{group}/memory.max").strip() == str(512 << 20)


def test_openclaws_own_audit_finds_nothing_critical(fleet: Podman) -> None:
    environment = "systemctl show -P Environment openclaw-gateway@gw-a.service"
    start = "systemctl show -P ExecStart openclaw-gateway@gw-a.service"
    words = fleet.sh(start).split("argv[]=")[1].split()
    command = (
        f"setpriv --reuid=claw-gw-a --regid=claw-gw-a --clear-groups env $({environment}) "
        f"{words[0]} {words[1]} security audit --json"
    )
    report = json.loads(fleet.sh(command))
    assert report["summary"]["critical"] == 0, report
    warned = {finding["checkId"] for finding in report["findings"] if finding["severity"] == "warn"}
    assert warned <= AUDIT_REASONS, warned


@pytest.fixture
def surrounded(fleet: Podman) -> Iterator[Podman]:
    """Somebody answers wherever an audit asks; and the engine's network has ways out that it has not by itself."""
    surroundings.up(fleet.bench, "machine1")
    fleet.sh(
        f"ip -netns claw-gw-a route replace default via {PROXY}; ip netns exec claw-gw-a sysctl -q -w "
        "net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.way.disable_ipv6=0; "
        "ip -netns claw-gw-a address replace fd99::2/64 dev way nodad; "
        "ip -netns claw-gw-a -6 route replace default via fd99::1"
    )
    yield fleet
    surroundings.down(fleet.bench, "machine1")
    fleet.sh("systemctl restart claw-egress-link@gw-a.service claw-podman@gw-a.service")


def audit(fleet: Podman, *agents: str, only: Sequence[str] = NAMES) -> Play:
    """An audit of agents of the first gateway."""
    for agent in agents:
        fleet.execute(agent, "journeyloop --help")
    return fleet.play(
        "playbooks/isolation-audit.yml",
        "--limit gw-a",
        isolation_audit_agents=list(agents),
        isolation_audit_only=list(only),
        **surroundings.targets(fleet.bench),
    )


def test_all_attempts_on_two_coaches_are_refused(surrounded: Podman) -> None:
    play = audit(surrounded, ANNA, CLARA, only=[name for name in NAMES if name not in HOGS])
    assert play.rc == 0, play.output
    counts = play.result("gw-a", AUDIT)["counts"]
    assert (counts["through"], counts["not_tried"], counts["unproven"]) == (0, 0, 0), play.output
    assert counts["refused"] > 250


def test_after_a_reboot_all_is_refused(fleet: Podman, request: pytest.FixtureRequest) -> None:
    fleet.reboot()
    for coach in COACHES:
        until("her sandbox", partial(_sees_her_client, fleet, coach), 180)
    play = audit(
        request.getfixturevalue("surrounded"), ANNA, only=[name for name in NAMES if name not in HOGS]
    )
    assert play.rc == 0, play.output
    assert play.result("gw-a", AUDIT)["counts"]["refused"] > 120


def _sees_her_client(fleet: Podman, coach: str) -> bool:
    """Which nobody does while her gateway is not up yet."""
    reply = fleet.ask(coach, executing(CLIENTS), "tools")
    return reply.status == 200 and client_of(coach) in said(reply)


@needs_limits
def test_what_takes_all_it_can_get_is_stopped(surrounded: Podman) -> None:
    play = audit(surrounded, ANNA, only=HOGS)
    assert play.rc == 0 and play.result("gw-a", AUDIT)["counts"]["refused"] == 3 * len(HOGS), play.output


def through(play: Play) -> set[tuple[str, str, str]]:
    """What got through: of which way, and what should have held it."""
    assert play.rc != 0, play.output
    attempts = play.result("gw-a", AUDIT)["attempts"]
    return {(one["name"], one["layer"], one["control"]) for one in attempts if one["outcome"] == "through"}


def test_an_engine_that_lives_in_the_machines_network_is_named(fleet: Podman) -> None:
    more = "/run/systemd/system/claw-podman@gw-a.service.d"
    fleet.sh(f"mkdir -p {more} && printf '[Service]\\nNetworkNamespacePath=\\n' > {more}/test.conf")
    again = "systemctl daemon-reload && systemctl restart claw-podman@gw-a.service"
    fleet.sh(again)
    try:
        play = audit(fleet, ANNA, only=["network-settings"])
    finally:
        fleet.sh(f"rm -r {more} && {again}")
    ((name, layer, control),) = through(play)
    assert (name, layer) == ("network-settings", "engine") and "egress" in control
    assert "lives in the machine's own network" in play.output


def test_without_its_list_of_system_calls_it_is_named_and_a_run_brings_it_back(fleet: Podman) -> None:
    fleet.sh(": > /opt/claw/sandbox/containers.conf; systemctl restart claw-podman@gw-a.service")
    fleet.podman("gw-a", "rm", "--force", "--all")
    ((name, layer, control),) = through(audit(fleet, ANNA, only=["privileges"]))
    assert (name, layer) == ("privileges", "shell") and "system calls" in control
    fleet.podman("gw-a", "rm", "--force", "--all")
    site = fleet.play(SITE)
    assert site.rc == 0, site.output
    assert audit(fleet, ANNA, only=["privileges"]).rc == 0


def test_a_second_run_changes_nothing(fleet: Podman) -> None:
    first = fleet.play(SITE)
    assert first.rc == 0, first.output
    for arguments in ((), ("--check",)):
        again = fleet.play(SITE, *arguments)
        assert again.rc == 0, again.output
        assert again.changed == []
