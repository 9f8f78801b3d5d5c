"""The audit of sandboxes: all of it is refused; and with each control taken out it fails, and names that control.

Every target listens where the tests put it: the metadata address and a DNS server on an interface of the machine's own
network namespace, the private network in the provider's container. With a control taken out nothing leaves for elsewhere.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from clawbench import surroundings

from .fleet import Fleet, Play, until
from .kills import Say

ANNA, CLARA = "coach-anna", "coach-clara"
GATEWAY = "gw-a"
BRIDGE = "172.29.240.1"
TASK = "Try everything that must fail"
STATE = f"/var/lib/claw/{GATEWAY}"
FILES = "find /etc/claw /var/lib/claw/*/workspaces /var/lib/claw/*/credentials -printf '%p %i %u %m %l ' -type f -printf %s -o -printf '\\n' | sort"
# A container like OpenClaw's for this agent, but for what is changed, in its place.
CLONE = """
import docker, json, sys
client, (agent, change) = docker.APIClient(), (sys.argv[1], json.loads(sys.argv[2]))
for listed in client.containers(all=True, filters={"label": "openclaw.sandbox=1"}):
    told = client.inspect_container(listed["Id"])
    if any(mount["Destination"] == "/workspace" and mount["Source"].endswith("/" + agent) for mount in told["Mounts"]):
        host = {**told["HostConfig"], **change.get("host", {})}
        host["Binds"] = host["Binds"] + change.get("binds", [])
        config = {**told["Config"], **change.get("config", {}), "HostConfig": host}
        if host["NetworkMode"] == "host":
            config["Hostname"] = ""
        client.remove_container(told["Id"], force=True)
        client.start(client.create_container_from_config(config, told["Name"].lstrip("/"))["Id"])
        break
else:
    sys.exit(f"{agent} has no sandbox")
"""

pytestmark = pytest.mark.fire


class Audited:
    """The fleet, whose sandboxes are audited in surroundings that answer."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def surround(self) -> None:
        """Have listeners, and every sandbox with ways out that no sandbox has by itself."""
        surroundings.up(self.fleet.bench, "machine1")
        for number, agent in enumerate((ANNA, CLARA), start=2):
            self.started(agent)
            self.lead_out(agent, number)

    def started(self, agent: str) -> None:
        """Her sandbox is there."""
        asked = 'tool:exec {"command": "journeyloop --help"}'
        assert self.fleet.turn(GATEWAY, agent, asked).status == 200

    def lead_out(self, agent: str, number: int) -> None:
        """Its worst enemy has given a sandbox a route and IPv6."""
        pid = self.fleet.sh(f"docker inspect -f '{{{{.State.Pid}}}}' {self.container(agent)}").strip()
        ways = (
            f"ip route replace default via {BRIDGE}; "
            "sysctl -q -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.eth0.disable_ipv6=0; "
            f"ip address replace fd99::{number}/64 dev eth0 nodad; ip -6 route replace default via fd99::1"
        )
        self.fleet.sh(f"nsenter -t {pid} -n sh -c {shlex.quote(ways)}")

    def container(self, agent: str) -> str:
        """The engine's id of her sandbox."""
        for line in self.fleet.sh("docker ps -q --filter label=openclaw.sandbox=1").split():
            mounts = "{{range .Mounts}}{{.Source}} {{end}}"
            if f"{STATE}/workspaces/{agent} " in self.fleet.sh(f"docker inspect -f '{mounts}' {line}"):
                return line
        raise AssertionError(f"{agent} has no sandbox")

    def play(self, *words: str, agents: tuple[str, ...] = (ANNA,), **options: Any) -> Play:
        """Run the playbook."""
        given = {**surroundings.targets(self.fleet.bench), "isolation_audit_agents": list(agents), **options}
        return self.fleet.play("playbooks/isolation-audit.yml", f"--limit {GATEWAY}", *words, **given)

    def through(self, *only: str, **options: Any) -> list[dict[str, str]]:
        """What got through; the play has failed then, and names each."""
        play = self.play(isolation_audit_only=list(only), **options)
        told = play.result(GATEWAY, TASK)
        found = [attempt for attempt in told["attempts"] if attempt["outcome"] == "through"]
        assert (play.rc != 0) == bool(found), play.output
        said = " ".join(play.output.split())
        for attempt in found:
            assert f"{attempt['agent']}: {attempt['name']} by {attempt['layer']} got through" in said
        assert self.fleet.seen(play.output) == []
        return found

    @contextmanager
    def instead(self, agent: str, change: dict[str, Any]) -> Iterator[None]:
        """Another container in the place of her sandbox."""
        self.started(agent)
        try:
            self.fleet.machine.check_output("python3 -c %s %s %s", CLONE, agent, json.dumps(change))
            yield
        finally:
            self.fleet.sh(f"docker rm -f {self.container(agent)}")

    def all_refused(self, say: Say | None = None) -> None:
        """An audit of two coaches, from which nothing gets through and in which nothing is left out."""
        self.surround()
        before = self.fleet.sh(FILES)
        play = self.play(agents=(ANNA, CLARA))
        assert (play.rc, play.changed) == (0, []), play.output
        told = play.result(GATEWAY, TASK)
        counts = told["counts"]
        assert (counts["through"], counts["not_tried"], counts["unproven"]) == (0, 0, 0), told["table"]
        assert counts["not_applicable"] == 2
        assert self.fleet.sh(FILES) == before
        assert self.fleet.sh("find / -xdev -name '.claw-audit-*' -not -path '/proc/*'") == ""
        if say:
            say(f"isolation audit of 2 coaches: {counts['refused']} attempts, all refused")


@pytest.fixture(scope="module")
def audited(fleet: Fleet) -> Iterator[Audited]:
    """The surroundings, which are taken away afterwards."""
    audited = Audited(fleet)
    audited.surround()
    yield audited
    surroundings.down(fleet.bench, "machine1")


def test_all_attempts_on_two_coaches_are_refused(audited: Audited, say: Say) -> None:
    audited.all_refused(say)


def test_in_check_mode_nothing_is_tried(audited: Audited) -> None:
    before = audited.fleet.heard_until_now()
    play = audited.play("--check")
    assert (play.rc, play.changed) == (0, []), play.output
    assert "In check mode nothing is tried" in play.output
    assert audited.fleet.heard_until_now() == before


def test_one_gateway_that_cannot_be_audited_keeps_no_other_from_it(audited: Audited) -> None:
    """The coach is of the second of them."""
    play = audited.fleet.play(
        "playbooks/isolation-audit.yml",
        isolation_audit_agents=["coach-ben"],
        isolation_audit_only=["other-program"],
    )
    assert play.rc != 0 and f"{GATEWAY} serves no agent coach-ben" in play.output
    counts = play.result("gw-b", TASK)["counts"]
    assert counts["refused"] > 0 and counts["through"] == counts["not_tried"] == 0


CONTAINERS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "read-only root": ({"host": {"ReadonlyRootfs": False}}, "write-outside", "shell", "which can only be read"),
    "limit of processes": ({"host": {"PidsLimit": 0}}, "fork-bomb", "shell", "the container's limits"),
    "limit of memory": ({"host": {"Memory": 0, "MemorySwap": 0}}, "memory-hog", "shell", "the container's limits"),
    "limit of a file": ({"host": {"Ulimits": []}}, "disk-hog", "shell", "the container's limits"),
    "limit of scratch": ({"host": {"Tmpfs": {"/tmp": "size=256m,mode=1777"}}}, "scratch-hog", "shell", "the container's limits"),
    "user": ({"config": {"User": "0:0"}}, "privileges", "shell", "the container's user"),
    "capabilities": ({"host": {"CapDrop": []}}, "privileges", "shell", "capabilities"),
    "new privileges": ({"host": {"SecurityOpt": []}}, "privileges", "shell", "capabilities"),
    "system calls": (
        {"host": {"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]}}, "privileges", "shell", "system calls",
    ),
    "processes": ({"host": {"PidMode": "host"}}, "processes", "shell", "processes"),
    "engine's socket": (
        {"binds": ["/run/docker.sock:/run/docker.sock"]}, "docker-socket", "shell", "what the container has of the machine",
    ),
    "other workspace": (
        {"binds": [f"{STATE}/workspaces/{CLARA}:/opt/other"]}, "other-workspaces", "shell", "what the container has",
    ),
    "other credentials": (
        {"binds": [f"{STATE}/credentials:/opt/keys:ro"]}, "other-credentials", "shell", "what the container has",
    ),
    "gateway's state": ({"binds": [f"{STATE}:/opt/state:ro"]}, "gateway-state", "shell", "what the container has"),
    "the image's shell": (
        {"binds": ["/usr/bin/dash:/usr/lib/coachcli/sh:ro"]}, "other-program", "line", "the shell of the image",
    ),
    "the image's shell, around the command": (
        {"binds": ["/usr/bin/dash:/usr/lib/coachcli/sh:ro"]}, "metacharacters", "line", "the shell of the image",
    ),
    "the image's shell, of the environment": (
        {"binds": ["/usr/bin/dash:/usr/lib/coachcli/sh:ro"]}, "exec-parameters", "line", "the shell of the image",
    ),
    "names": ({"host": {"Dns": []}}, "dns", "shell", "the network of sandboxes"),
    "network": ({"host": {"NetworkMode": "bridge"}}, "machine-ports", "shell", "the network of sandboxes"),
    "network's settings": ({"host": {"NetworkMode": "bridge"}}, "network-settings", "engine", "the network of sandboxes"),
    "network namespace": ({"host": {"NetworkMode": "host"}}, "metadata", "shell", "the network of sandboxes"),
}  # fmt: skip
"""What is taken out of a container: the attempts that get through then, by which way, and what is named."""


@pytest.mark.parametrize("control", CONTAINERS)
def test_a_control_that_is_missing_in_a_container_is_named(audited: Audited, control: str) -> None:
    change, name, layer, words = CONTAINERS[control]
    with audited.instead(ANNA, change):
        found = audited.through(name)
    assert {(attempt["name"], attempt["layer"]) for attempt in found} == {(name, layer)}
    assert all(words in attempt["control"] for attempt in found)


def names(found: list[dict[str, str]]) -> set[tuple[str, str]]:
    """What got through, by which way."""
    return {(attempt["name"], attempt["layer"]) for attempt in found}


@contextmanager
def otherwise(fleet: Fleet, statements: str) -> Iterator[None]:
    """The gateway started with other files: ``config`` and ``roster`` as the statements change them."""
    roster, config = f"/etc/claw/{GATEWAY}/agents.json", f"{STATE}/openclaw.json"
    edit = (
        "import json, sys\nconfig, roster = (json.load(open(path)) for path in sys.argv[1:])\n"
        f"{statements}\n"
        "for path, content in zip(sys.argv[1:], (config, roster)): json.dump(content, open(path, 'w'))"
    )
    unit = f"openclaw-gateway@{GATEWAY}"
    fleet.sh(f"cp -p {config} /root/openclaw.json; cp -p {roster} /root/agents.json")
    try:
        fleet.sh(f"systemctl stop {unit}")
        fleet.machine.check_output("python3 -c %s %s %s", edit, config, roster)
        start(fleet)
        yield
    finally:
        fleet.sh(
            f"systemctl stop {unit}; cp -p /root/openclaw.json {config}; cp -p /root/agents.json {roster}"
        )
        start(fleet)


def test_the_guard_that_is_missing_is_named(audited: Audited) -> None:
    with otherwise(audited.fleet, "config['plugins']['entries']['claw-fleet-guard']['enabled'] = False"):
        found = audited.through("exec-parameters", "other-program", "metacharacters", "print-key")
    assert names(found) == {("exec-parameters", "tool")}, found
    assert all("the gateway's guard" in attempt["control"] for attempt in found)


def test_a_list_of_tools_with_one_more_is_named(audited: Audited) -> None:
    more = f"""
anna, entries = roster['{ANNA}']['tools'], config['plugins']['entries']
for tools in (anna, anna['sandbox']['tools'], config['tools'], config['tools']['sandbox']['tools']):
    tools['allow'].append('process')
entries['claw-fleet-guard']['config']['tools'].append('process')"""
    with otherwise(audited.fleet, more):
        found = audited.through("other-tools")
    assert names(found) == {("other-tools", "tool")}, found
    assert [attempt for attempt in found if "process" not in attempt["tried"]] == []


def start(fleet: Fleet) -> None:
    """Start the gateway and wait until it answers."""
    fleet.sh(f"systemctl start openclaw-gateway@{GATEWAY}")
    with fleet.way_in(GATEWAY) as http:
        until("the gateway", lambda: http.get("/healthz").status_code == 200, 180)


def test_a_key_that_tools_for_files_reach_is_named(audited: Audited) -> None:
    """Without the link that the key's directory is mounted behind, for OpenClaw it is a place like the workspace."""
    fleet, roster = audited.fleet, f"/etc/claw/{GATEWAY}/agents.json"
    before = fleet.reloads()
    fleet.sh(f"cp -p {roster} /root/agents.json; cp -p {roster} {roster}.new")
    try:
        fleet.sh(
            f"sed -i s,:/var/run/credentials:,:/run/credentials:, {roster}.new; mv {roster}.new {roster}"
        )
        until("the roster", lambda: fleet.reloads() > before)
        fleet.sh(f"docker rm -f {audited.container(ANNA)}")
        found = audited.through("link-out", "print-key")
    finally:
        fleet.sh(f"cp -p /root/agents.json {roster}.new; mv {roster}.new {roster}")
        until("the roster", lambda: fleet.reloads() > before + 1)
        fleet.sh(f"docker rm -f {audited.container(ANNA)}")
    assert ("link-out", "tool") in names(found), found
    assert all("workspace" in attempt["control"] for attempt in found)


@contextmanager
def rules(audited: Audited, deed: str) -> Iterator[None]:
    """The kernel's rules otherwise, which nobody puts back meanwhile."""
    audited.surround()
    try:
        audited.fleet.sh(f"systemctl stop claw-egress-watch; {deed}")
        yield
    finally:
        audited.fleet.sh(
            "systemctl reload claw-egress-rules claw-firewall; systemctl start claw-egress-watch"
        )


def test_the_rules_that_are_missing_are_named(audited: Audited) -> None:
    """What nobody named the machine's firewall keeps from sandboxes too: it is taken out with them."""
    names_of_network = ("metadata", "machine-ports", "ipv6", "dns", "other-sandboxes", "proxy")
    with rules(audited, "nft delete table inet claw_sandbox; nft delete table inet claw_machine"):
        found = audited.through(*names_of_network, agents=(ANNA, CLARA))
    missed = {
        ("metadata", "shell"),
        ("machine-ports", "shell"),
        ("ipv6", "shell"),
        ("dns", "shell"),
        ("proxy", "proxy"),
    }
    assert missed <= names(found), found
    assert {attempt["control"].rpartition(" (")[2] for attempt in found} == {"role egress)"}


def test_what_keeps_sandboxes_apart_and_out_of_private_networks_is_named(audited: Audited) -> None:
    """The engine's own rules keep them so too: these are taken out with the fleet's."""
    sandboxes = "172.29.240.0/22"
    chains = (
        f"FORWARD -s {sandboxes} -j ACCEPT",
        f"FORWARD -d {sandboxes} -j ACCEPT",
        f"POSTROUTING -t nat -s {sandboxes} ! -d {sandboxes} -j MASQUERADE",
    )
    for chain in chains:
        audited.fleet.sh(f"iptables -I {chain}")
    try:
        with rules(audited, "true"):
            assert audited.through("other-sandboxes", "private-ranges", agents=(ANNA, CLARA)) == []
        with rules(audited, "nft delete table inet claw_sandbox"):
            found = audited.through("other-sandboxes", "private-ranges", agents=(ANNA, CLARA))
    finally:
        for chain in chains:
            audited.fleet.sh(f"iptables -D {chain}")
    assert names(found) == {("other-sandboxes", "shell"), ("private-ranges", "shell")}, found
    assert {attempt["control"].rpartition(" (")[2] for attempt in found} == {"role egress)"}


def test_what_the_proxy_itself_could_reach_is_named(audited: Audited) -> None:
    with rules(audited, "nft flush chain inet claw_sandbox proxy"):
        found = audited.through("proxy", "metadata")
    assert names(found) == {("proxy", "proxy")}, found
    assert "the kernel's rules on what the proxy may reach" in found[0]["control"]


def test_a_proxy_that_leads_everywhere_is_named(audited: Audited) -> None:
    fleet, config = audited.fleet, "/etc/claw-egress/squid.conf"
    audited.surround()
    fleet.sh(f"cp -p {config} /root/squid.conf")
    try:
        fleet.sh(
            f"sed -i '0,/^http_access/s//http_access allow all\\n&/' {config}; systemctl reload claw-egress; sleep 2"
        )
        found = audited.through("proxy", "metadata")
    finally:
        fleet.sh(f"cp -p /root/squid.conf {config}; systemctl reload claw-egress")
    assert names(found) == {("proxy", "shell")}, found
    assert "the proxy's own list" in found[0]["control"]


def test_after_a_restart_of_the_engine_all_is_refused(audited: Audited) -> None:
    audited.fleet.sh("systemctl restart docker")
    audited.all_refused()


def test_after_a_reboot_all_is_refused(audited: Audited) -> None:
    fleet = audited.fleet
    fleet.reboot()
    with fleet.way_in(GATEWAY) as http:
        until("the gateway", partial(_answers, http), 180)
    audited.all_refused()


def _answers(http: Any) -> bool:
    try:
        return bool(http.get("/healthz").status_code == 200)
    except OSError:
        return False
    except Exception as error:
        if type(error).__module__.startswith("httpx"):
            return False
        raise


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"isolation_audit_agents": ["coach-nobody"]},
            f"{GATEWAY} serves no agent coach-nobody; it serves {ANNA}",
        ),
        ({"isolation_audit_only": ["nothing"]}, "only has nothing; there are other-workspaces"),
        ({"isolation_audit_private_hosts": ["10.0.0.5"]}, "'10.0.0.5' is not HOST:PORT"),
        ({"sandbox_command": "nothing"}, f"{ANNA} cannot even execute `nothing --help` in her sandbox"),
    ],
)
def test_what_cannot_be_audited_is_said(audited: Audited, options: dict[str, Any], words: str) -> None:
    play = audited.play(**options)
    assert play.rc != 0
    assert words in " ".join(play.output.split()), play.output
