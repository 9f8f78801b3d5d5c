"""What sandboxes may reach: real ones, on a machine of their own with an engine, in surroundings that answer.

Whatever is refused here is tried once more with the controls taken out, and reached: the probe can fail.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import tarfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from clawbench import engine, hosts
from clawbench.shell import docker

from .fleet import ROOT, Fleet, Play, until

STATE = Path(os.environ.get("CLAW_EGRESS_STATE") or ROOT / ".cache" / "bench" / "egress")
KEEP = "CLAW_ACCEPTANCE_KEEP"
DEBIAN = os.environ.get("CLAW_BENCH_DEBIAN") or "12"
HERE = Path(__file__).resolve().parent / "surroundings"
PLACE = "/root/surroundings"
MACHINE = "machine1"

# It has a machine of its own to make; the audit of isolation has the main points on the machine that is there anyway.
pytestmark = pytest.mark.fire
GATEWAY = "172.29.240.1"
PROXY = f"{GATEWAY}:3128"
UNITS = ("claw-egress-rules.service", "claw-egress-watch.service", "claw-egress.service")
NETWORK = "Sandboxes have a network that leads nowhere"
BOX = "box"
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends"
HOSTS = [
    "app.example:8000",
    "10.77.0.2:9000",
    "own.example:8001",
    "metadata.example:8000",
    "ecs.example:8001",
    "loop.example:8001",
    "peer.example:8000",
    "both.example:8000",
]
NAMES = {
    "app.example": ["10.77.0.2"],
    "sub.app.example": ["10.77.0.2"],
    "other.example": ["10.77.0.2"],
    "own.example": ["10.77.0.1"],
    "metadata.example": ["169.254.169.254"],
    "ecs.example": ["169.254.170.2"],
    "loop.example": ["127.0.0.1"],
    "both.example": ["10.77.0.2", "169.254.169.254"],
    "public.example": ["198.51.100.2"],
    "itself.example": ["198.51.100.1"],
}
UNIT = f"""[Unit]
Before=docker.service claw-egress.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {PLACE}/start
[Install]
WantedBy=multi-user.target
"""
# What an operator has beside ours: what is installed, how it is switched on and loads its rules again, how it lets sandboxes to
# the proxy, what shows that its own rules are there, and how it is switched off.
FIREWALLS = {
    "ufw": (
        "ufw allow 22/tcp && ufw --force enable",
        "ufw reload",
        f"ufw allow in on clw0 to {GATEWAY} port 3128 proto tcp",
        "ufw status | grep -w 22/tcp",
        "ufw --force reset",
    ),
    "firewalld": (
        "systemctl start firewalld",
        "firewall-cmd --reload && systemctl restart firewalld",
        "firewall-cmd --permanent --zone=trusted --add-interface=clw0 && firewall-cmd --reload",
        "firewall-cmd --list-services | grep -w ssh",
        "firewall-cmd --permanent --zone=trusted --remove-interface=clw0; systemctl stop firewalld",
    ),
}
# As OpenClaw runs a sandbox.
SANDBOX = "--network=claw-sandbox --read-only --cap-drop=ALL --security-opt=no-new-privileges --user=1000"
MOUNTS = f"-v /usr:/usr:ro -v {PLACE}:{PLACE}:ro"

Attempt = tuple[str, str, str]


class Machine(Fleet):
    """A machine with an engine, sandboxes in it, and what is around them."""

    def __init__(self, state: Path, place: Path) -> None:
        super().__init__(state)
        self.place = place
        (place / "egress.yml").write_text(
            json.dumps(
                [
                    {
                        "hosts": "all",
                        "become": True,
                        "gather_facts": False,
                        "tasks": [{"ansible.builtin.include_role": {"name": "claw.fleet.egress"}}],
                    }
                ]
            )
        )
        variables = {"ansible_ssh_common_args": f"-F {self.bench.ssh_config}"}
        (place / "hosts.yml").write_text(json.dumps({"all": {"hosts": {MACHINE: variables}}}))

    def role(self, *words: str, **options: Any) -> Play:
        """Run the role."""
        given = {"egress_hosts": HOSTS, **options}
        return self.play(
            str(self.place / "egress.yml"), *words, inventory=[self.place / "hosts.yml"], **given
        )

    def applied(self, **options: Any) -> Play:
        """A run that has to succeed."""
        play = self.role(**options)
        assert play.rc == 0, play.output
        return play

    def furnish(self) -> None:
        """Have an engine, an image of nothing but links to the machine's /usr, and what the surroundings are made of."""
        packages = "docker.io python3-docker iptables"
        if not self.machine.file("/usr/sbin/dockerd").exists:
            self.sh(f"apt-get update -q && {INSTALL} {packages}")
            # From Debian 13 on the client is a package of its own.
            self.sh(f"command -v docker || {INSTALL} docker-cli")
            # Debian starts a service as soon as it is installed.
            self.sh(f"systemctl mask firewalld && {INSTALL} {' '.join(FIREWALLS)}")
            self.sh("systemctl unmask firewalld && systemctl disable firewalld")
        files = {path.name: path.read_text() for path in HERE.iterdir() if path.is_file()}
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, text in {**files, "names.json": json.dumps(NAMES)}.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text.encode())
                tar.addfile(entry, io.BytesIO(text.encode()))
        self.sh(f"mkdir -p {PLACE}")
        container = self.bench.container(MACHINE)
        docker("exec", "-i", container, "tar", "-x", "-C", PLACE, stdin=archive.getvalue())
        self.sh(f"cat > /etc/systemd/system/surroundings.service <<'END'\n{UNIT}END")
        self.sh(
            "mkdir -p /root/box/etc; cd /root/box; ln -sfn usr/bin bin; ln -sfn usr/lib lib; ln -sfn usr/lib64 lib64"
        )
        self.sh(f"tar -c -C /root/box . | docker import - {BOX}")

    def surround(self) -> None:
        """Have the surroundings, which know the tests' names alone."""
        self.sh("systemctl daemon-reload; systemctl enable --now surroundings.service")
        # Whether there is IPv6, squid looks only at its start.
        self.sh("systemctl restart claw-egress")

    def start_sandboxes(self) -> None:
        """Two sandboxes and a container of somebody else, all with listeners."""
        self.sh("docker rm -f anna ben other >/dev/null 2>&1 || true")
        for name, options in (("anna", SANDBOX), ("ben", SANDBOX), ("other", "")):
            self.sh(f"docker run -d --name={name} {options} --dns={GATEWAY} {MOUNTS} {BOX} sleep 1d")
        # What no sandbox can do, its worst enemy has done for it: a way out, and IPv6.
        self.sh(
            "sysctl -q -w net.ipv6.conf.clw0.disable_ipv6=0; ip address replace fd99::1/64 dev clw0 nodad"
        )
        for number, name in enumerate(("anna", "ben", "other"), start=2):
            self.within(name, f"python3 {PLACE}/listen.py container-{name} 8000 >/dev/null 2>&1 &")
            if name != "other":
                self.within(name, f"ip route replace default via {GATEWAY}")
                self.within(
                    name,
                    "sysctl -q -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.eth0.disable_ipv6=0; "
                    f"ip address replace fd99::{number}/64 dev eth0 nodad; ip -6 route replace default via fd99::1",
                )
        names = {**NAMES, "peer.example": [self.address("ben")]}
        self.sh(f"echo {shlex.quote(json.dumps(names))} > {PLACE}/names.json")

    def within(self, name: str, line: str) -> str:
        """Run a line of the machine's own where a container's network is."""
        pid = self.sh(f"docker inspect -f '{{{{.State.Pid}}}}' {name}").strip()
        return self.sh(f"nsenter -t {pid} -n sh -c {shlex.quote(line)}")

    def address(self, name: str) -> str:
        """Of a container."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self.sh(f"docker inspect -f '{form}' {name}").strip()

    def heard(self, attempts: list[Attempt], place: str = "anna") -> dict[Attempt, str]:  # type: ignore[override]
        """What the attempts heard, from within a container, from `beyond`, or from the `machine` itself."""
        line = f"python3 {PLACE}/probe.py {shlex.quote(json.dumps(attempts))}"
        if place == "machine":
            said = self.sh(line)
        else:
            said = self.sh(f"ip netns exec beyond {line}") if place == "beyond" else self.within(place, line)
        return dict(zip(attempts, json.loads(said), strict=True))

    def reached(self, attempts: list[Attempt], place: str = "anna") -> list[Attempt]:
        """Those of them that came through."""
        return [attempt for attempt, heard in self.heard(attempts, place).items() if "reached" in heard]

    def straight(self) -> list[Attempt]:
        """Everything that a sandbox could try without the proxy."""
        own = self.bench.facts()["hosts"][MACHINE]
        pages = [
            ("169.254.169.254", 80),
            ("fd00:ec2::254", 80),
            ("169.254.170.2", 8001),
            ("10.77.0.2", 8000),
            ("fd77::2", 8000),
            ("198.51.100.2", 80),
            ("198.51.100.2", 443),
            ("2001:db8:77::2", 80),
            (GATEWAY, 8001),
            (own, 8001),
            ("10.88.0.1", 8001),
            ("fd99::1", 8001),
            ("fd77::1", 8001),
            (self.address("ben"), 8000),
            ("fd99::3", 8000),
            (self.address("other"), 8000),
        ]
        return [
            *(("tcp", address, str(port)) for address, port in pages),
            ("dns", "10.77.0.2", "app.example"),
        ]

    def inward(self) -> list[Attempt]:
        """What somebody else could try with a sandbox."""
        return [("tcp", self.address("anna"), "8000"), ("tcp", "fd99::2", "8000")]

    def assert_sandboxes_closed(self) -> None:
        """Nothing but the proxy is reached, and nobody reaches a sandbox."""
        assert self.reached(self.straight()) == []
        for place in ("beyond", "machine"):
            assert self.reached(self.inward(), place) == []
        self.assert_way_out()

    def assert_closed(self) -> None:
        """The same, and who is no sandbox is left alone."""
        self.assert_sandboxes_closed()
        others: list[Attempt] = [
            ("tcp", self.address("other"), "8000"),
            ("tcp", "fd77::2", "8000"),
            ("tcp", "127.0.0.1", "8001"),
        ]
        assert self.reached(others, "machine") == others
        outside: list[Attempt] = [("tcp", "198.51.100.2", "80")]
        assert self.reached(outside, "other") == outside

    def assert_way_out(self) -> None:
        """The one way out is open."""
        for how in (("get", PROXY, "http://app.example:8000/"), ("connect", PROXY, "app.example:8000")):
            until(f"{how} through the proxy", partial(self.reached, [how]), 30)

    def questions(self) -> str:
        """What the DNS server was asked so far."""
        return self.sh(f"cat {PLACE}/names.log")

    def reboot(self) -> None:
        """Stop the machine, start it, and wait until it is up."""
        docker("stop", "-t", "60", self.bench.container(MACHINE))
        hosts.create(self.bench, [MACHINE], engine=True, debian=DEBIAN)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The machine before the role came to it."""
    engine.up(STATE)
    machine = Machine(STATE, tmp_path_factory.mktemp("egress"))
    hosts.create(machine.bench, [MACHINE], engine=True, debian=DEBIAN)
    try:
        machine.furnish()
        yield machine
    finally:
        if not os.environ.get(KEEP):
            hosts.destroy(machine.bench)
            engine.down(STATE)


@pytest.fixture(scope="module")
def machine(bare: Machine) -> Machine:
    """The machine with the role's work, which was predicted, and with sandboxes."""
    before = bare.sh("docker network ls -q; ls /etc /opt /etc/systemd/system")
    predicted = bare.role("--check", "--diff")
    assert predicted.rc == 0, predicted.output
    assert bare.sh("docker network ls -q; ls /etc /opt /etc/systemd/system") == before
    applied = bare.applied()
    assert set(predicted.changed) <= set(applied.changed)
    assert predicted.result(MACHINE, NETWORK)["diff"] == applied.result(MACHINE, NETWORK)["diff"]
    bare.surround()
    bare.start_sandboxes()
    return bare


def test_again_nothing_changes(machine: Machine) -> None:
    for words in ((), ("--check", "--diff")):
        play = machine.role(*words)
        assert (play.rc, play.changed) == (0, []), play.output
    assert machine.sh("systemctl is-enabled squid nftables || true").split() == ["masked", "disabled"]


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_hardened(machine: Machine, unit: str) -> None:
    machine.assert_way_out()
    told = machine.sh(f"systemd-analyze security --no-pager {unit}")
    score = next(line for line in told.splitlines() if "exposure level" in line).split()
    assert float(score[score.index(f"{unit}:") + 1]) <= 2.0, told
    text = machine.sh(f"systemctl cat {unit} | grep '^#'")
    for line in told.splitlines():
        words = line.split()
        # Only what counts: "✗ PrivateNetwork=  Service has access to ...  0.5".
        if line.startswith("✗") and words[-1].replace(".", "").isdigit():
            assert words[1].partition("=")[0].split("/")[0] in text, f"{words[1]} is left out without a word"


def test_nothing_but_the_proxy_is_reached(machine: Machine) -> None:
    machine.assert_closed()


def test_a_sandbox_by_its_own_means_reaches_the_app_and_nothing_else(machine: Machine) -> None:
    attempts: list[Attempt] = [
        ("get", PROXY, "http://app.example:8000/"),
        ("get", PROXY, "http://169.254.169.254/"),
        *machine.straight(),
    ]
    program = f"docker exec anna python3 {PLACE}/probe.py {shlex.quote(json.dumps(attempts))}"
    heard = json.loads(machine.sh(program))
    assert ["reached" in said for said in heard] == [True, *(False for _ in attempts[1:])]
    asked = machine.questions()
    ask = "import socket; socket.gethostbyname('hidden-words.example')"
    assert "socket.gaierror" in machine.machine.run(f'docker exec ben python3 -c "{ask}"').stderr
    assert machine.questions() == asked


ALLOWED: list[Attempt] = [
    ("get", PROXY, "http://app.example:8000/page?secret=hidden-words"),
    ("get", PROXY, "http://APP.example:8000/"),
    ("connect", PROXY, "app.example:8000"),
    ("get", PROXY, "http://10.77.0.2:9000/"),
    # One of the machine's own addresses, by a name.
    ("get", PROXY, "http://own.example:8001/"),
]
BY_NAME: list[Attempt] = [
    (how, PROXY, ("http://{}/" if how == "get" else "{}").format(target))
    for how in ("get", "connect")
    for target in (
        "app.example:9000",
        "app.example:443",
        "sub.app.example:8000",
        "other.example:8000",
        "10.77.0.2:8000",
        "own.example:8000",
        "10.77.0.1:8001",
        "198.51.100.2:443",
        "[fd77::2]:8000",
        f"{GATEWAY}:8001",
        "10.88.0.1:8001",
    )
]
NEVER: list[Attempt] = [
    (how, PROXY, ("http://{}/" if how == "get" else "{}").format(target))
    for how in ("get", "connect")
    for target in (
        "metadata.example:8000",
        "ecs.example:8001",
        "loop.example:8001",
        "peer.example:8000",
        "169.254.169.254:80",
        "169.254.170.2:8001",
        "127.0.0.1:8001",
        "[::1]:8001",
        "[fd00:ec2::254]:80",
        "[::ffff:127.0.0.1]:8001",
        "[::ffff:169.254.169.254]:80",
        "127.1:8001",
        "2130706433:8001",
        "0.0.0.0:8001",
    )
]


def test_the_proxy_leads_where_it_was_told(machine: Machine) -> None:
    heard = machine.heard(ALLOWED)
    assert {attempt: said for attempt, said in heard.items() if "reached" not in said} == {}
    said = heard[ALLOWED[0]].lower()
    for header in ("via:", "x-forwarded-for", "x-cache", "squid", "192.0.2.9", "172.29.240."):
        assert header not in said, said


def test_the_proxy_leads_nowhere_else(machine: Machine) -> None:
    asked = machine.questions()
    both = [("get", PROXY, "http://both.example:8000/"), ("get", PROXY, "ftp://app.example:8000/")]
    # A name among whose addresses one is refused, a protocol that is not spoken, and the proxy's own pages.
    for attempt, said in machine.heard(
        [*BY_NAME, *NEVER, *both, ("get", PROXY, f"http://{PROXY}/squid-internal-mgr/info")]
    ).items():
        assert " 403 " in said.split("\r\n")[0], f"{attempt}: {said}"
    # A question for a name is a way out too.
    news = machine.questions()[len(asked) :]
    assert not [name for name in ("other.example", "sub.app.example") if name in news]
    hidden: list[Attempt] = [("connect", PROXY, "hidden-words.other.example:443")]
    assert machine.reached(hidden) == [] and "hidden-words" not in machine.questions()


def test_the_journal_has_who_asked_for_which_host_and_not_for_what(machine: Machine) -> None:
    machine.heard(ALLOWED)
    log = machine.sh("journalctl -u claw-egress --no-pager -o cat")
    assert f"{machine.address('anna')} GET app.example:8000 200 TCP_MISS" in log
    assert f"{machine.address('anna')} CONNECT app.example:8000 200 TCP_TUNNEL" in log
    assert "GET other.example:8000 403 TCP_DENIED" in log
    assert "secret" not in log and "hidden-words?" not in log


def test_names_cannot_change_under_the_proxy(machine: Machine) -> None:
    """A name that is allowed and comes to mean another address, between the look and the connection."""
    changed = {**NAMES, "app.example": ["169.254.169.254"], "peer.example": [machine.address("ben")]}
    attempt: list[Attempt] = [("get", PROXY, "http://app.example:8000/")]
    try:
        machine.sh(f"echo {shlex.quote(json.dumps(changed))} > {PLACE}/names.json")
        machine.sh("systemctl restart claw-egress")
        until("the new address", lambda: " 403 " in machine.heard(attempt)[attempt[0]], 20)
        # And without the proxy's own look: the kernel has one more.
        with without_the_proxys_rules(machine):
            until("the open proxy", lambda: " 503 " in machine.heard(attempt)[attempt[0]], 20)
    finally:
        machine.start_sandboxes()
        machine.sh("systemctl restart claw-egress")
    machine.assert_way_out()


class without_the_proxys_rules:
    """A proxy that leads everybody everywhere."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def __enter__(self) -> None:
        self.machine.sh("cp -p /etc/claw-egress/squid.conf /root/squid.conf")
        self.machine.sh(
            "sed -i '0,/^http_access/s//http_access allow all\\n&/' /etc/claw-egress/squid.conf; systemctl reload claw-egress"
        )

    def __exit__(self, *_error: object) -> None:
        self.machine.sh("cp -p /root/squid.conf /etc/claw-egress/squid.conf; systemctl reload claw-egress")


def test_one_control_taken_out_is_noticed_and_the_others_still_hold(machine: Machine) -> None:
    try:
        with without_the_proxys_rules(machine):
            until(
                "the open proxy", lambda: machine.reached([("get", PROXY, "http://other.example:8000/")]), 20
            )
            # The kernel does not let it to where nobody may be led, or to a port that was not named.
            assert machine.reached(NEVER) == []
            assert machine.reached([("get", PROXY, "http://169.254.169.254/")]) == []
            machine.sh("systemctl stop claw-egress-watch; nft flush chain inet claw_sandbox proxy")
            everything = {*BY_NAME, *NEVER}
            peer = {attempt for attempt in everything if "peer.example" in attempt[2]}
            # A sandbox's own answer would not get back to the proxy.
            assert set(machine.reached([*BY_NAME, *NEVER])) == everything - peer
            assert machine.reached(machine.straight()) == []
            for chain in ("input", "output", "forward"):
                machine.sh(f"nft flush chain inet claw_sandbox {chain}")
            assert set(machine.reached([*peer])) == peer
        opened = machine.reached(machine.straight())
        assert ("tcp", GATEWAY, "8001") in opened and ("tcp", "fd99::3", "8000") in opened
        # The engine has rules of its own, until somebody flushes everything.
        machine.sh("nft flush ruleset")
        assert set(machine.reached(machine.straight())) == set(machine.straight())
        for place in ("beyond", "machine"):
            assert set(machine.reached(machine.inward(), place)) == set(machine.inward())
    finally:
        machine.sh("systemctl start claw-egress-watch")
    until("the rules", lambda: machine.machine.run("/opt/claw/egress/rules check").rc == 0, 10)
    # Still without the engine's.
    assert "DOCKER" not in machine.sh("nft list ruleset")
    machine.assert_closed()
    machine.sh("systemctl restart docker")
    machine.start_sandboxes()


@pytest.mark.parametrize(
    "deed",
    [
        "nft flush ruleset",
        "nft delete table inet claw_sandbox",
        "nft flush table inet claw_sandbox",
        "nft insert rule inet claw_sandbox forward accept",
        "systemctl start nftables",
        "systemctl reload nftables",
        "systemctl restart nftables",
        "systemctl stop nftables",
        "iptables-save | iptables-restore",
        # Also between a load and the look at what came of it.
        "for _each in $(seq 300); do nft flush ruleset; done",
        "systemctl kill -s KILL claw-egress-watch; sleep 1.5; nft flush ruleset",
    ],
)
def test_whoever_takes_the_rules_away_has_them_back_at_once(machine: Machine, say: Any, deed: str) -> None:
    machine.sh(deed)
    began = time.monotonic()
    until("the rules", lambda: machine.machine.run("/opt/claw/egress/rules check").rc == 0, 5)
    say(f"{deed}: back within {time.monotonic() - began:.1f} s")
    assert machine.reached(machine.straight()) == []
    machine.assert_way_out()


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_another_firewall_changes_nothing_but_that_it_has_to_let_sandboxes_to_the_proxy(
    machine: Machine, say: Any, firewall: str
) -> None:
    on, reload, let, there, off = FIREWALLS[firewall]
    try:
        machine.sh(on)
        machine.sh(there)
        assert machine.reached(machine.straight()) == []
        play = machine.role()
        if not machine.reached([("get", PROXY, "http://app.example:8000/")]):
            assert play.rc != 0 and let.partition(" &&")[0] in play.output, play.output
            machine.sh(let)
            play = machine.role()
        else:
            say(f"{firewall} lets sandboxes to the proxy without being told")
        assert (play.rc, play.changed) == (0, []), play.output
        for _each in range(2):
            # What becomes of others is that firewall's to say.
            machine.assert_sandboxes_closed()
            assert machine.machine.run("/opt/claw/egress/rules check").rc == 0
            machine.sh(there)
            machine.sh(reload)
    finally:
        machine.sh(off)
        # The engine's own rules, which it may have taken along.
        machine.sh("systemctl restart docker")
        machine.start_sandboxes()
    machine.assert_closed()


def test_after_a_restart_of_the_engine_it_is_as_before(machine: Machine) -> None:
    machine.sh("systemctl restart docker")
    machine.start_sandboxes()
    machine.assert_closed()


def test_after_a_reboot_it_is_as_before(machine: Machine) -> None:
    machine.reboot()
    until(
        "the units", lambda: machine.machine.run(f"systemctl is-active {' '.join(UNITS)} docker").rc == 0, 30
    )
    first = machine.sh(
        "systemctl show -P ActiveEnterTimestampMonotonic claw-egress-rules; systemctl show -P ExecMainStartTimestampMonotonic docker"
    ).split()
    assert int(first[0]) < int(first[1]), "the rules are there before the engine"
    machine.start_sandboxes()
    machine.assert_closed()
    play = machine.role()
    assert (play.rc, play.changed) == (0, []), play.output


def test_in_internet_mode_what_is_public_is_reached_and_nothing_private(machine: Machine) -> None:
    public: list[Attempt] = [
        ("get", PROXY, "http://public.example/"),
        ("connect", PROXY, "198.51.100.2:443"),
        ("get", PROXY, "http://[2001:db8:77::2]/"),
        ("get", PROXY, "http://app.example:8000/"),
    ]
    refused: list[Attempt] = [
        *NEVER,
        ("get", PROXY, "http://other.example/"),
        ("connect", PROXY, "other.example:443"),
        ("get", PROXY, "http://10.77.0.2/"),
        ("get", PROXY, "http://[fd77::2]/"),
        # The machine's own public address.
        ("get", PROXY, "http://itself.example/"),
        ("get", PROXY, "http://198.51.100.1/"),
    ]
    before = machine.reached(public)
    assert before == public[-1:]
    predicted = machine.role("--check", egress_mode="internet")
    applied = machine.applied(egress_mode="internet")
    assert predicted.changed == applied.changed != []
    try:
        assert machine.reached(public) == public
        assert machine.reached([*refused, ("get", PROXY, "http://public.example:8000/")]) == []
        assert machine.reached(machine.straight()) == []
        with without_the_proxys_rules(machine):
            until("the open proxy", lambda: machine.heard(refused[-1:]), 20)
            assert machine.reached(refused) == []
    finally:
        machine.applied()
    assert machine.reached(public) == before


def test_a_run_that_was_cut_short_is_finished_by_the_next(machine: Machine) -> None:
    """Files are changed and nobody was told."""
    machine.sh("sleep 1; sed -i 's/8000,/7777, 8000,/' /etc/claw-egress/rules.nft")
    machine.sh("echo '# changed' >> /etc/claw-egress/squid.conf")
    play = machine.applied()
    assert len(play.changed) == 4, play.changed
    machine.sh("sleep 1; touch /etc/claw-egress/squid.conf")
    assert [name.rpartition(": ")[2] for name in machine.applied().changed] == [
        "The proxy has read its configuration as it is"
    ]
    assert machine.applied().changed == []


def test_a_network_with_other_settings_is_made_anew_only_if_nobody_is_in_it(machine: Machine) -> None:
    other = {"egress_subnet": "172.29.248.0/24"}
    machine.sh("docker stop -t 0 ben")
    for words in ((), ("--check",)):
        play = machine.role(*words, **other)
        assert play.rc != 0
        assert "has containers attached (anna, ben): remove them" in " ".join(play.output.split()), (
            play.output
        )
    machine.sh("docker rm -f anna ben")
    try:
        predicted = machine.role("--check", **other)
        applied = machine.applied(**other)
        assert predicted.result(MACHINE, NETWORK)["diff"] == applied.result(MACHINE, NETWORK)["diff"]
        assert applied.result(MACHINE, NETWORK)["recreated"] is True
    finally:
        machine.applied()
        machine.start_sandboxes()
    machine.assert_closed()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"egress_hosts": ["https://app.example"]},
            "egress_hosts has 'https://app.example', which is not HOST:PORT",
        ),
        ({"egress_hosts": ["app.example:99999"]}, "which is not HOST:PORT"),
        ({"egress_hosts": ["a.example:443\nhttp_access allow all"]}, "which is not HOST:PORT"),
        (
            {"egress_hosts": ["169.254.169.254:80"]},
            "Sandboxes are never led to loopback, link-local or metadata",
        ),
        ({"egress_subnet": "172.29.240.7/22"}, "has host bits set; give an IPv4 network such as"),
        ({"egress_subnet": "10.77.0.0/22"}, "overlaps with 10.77.0.0/24, which the machine reaches by out0"),
        ({"egress_subnet": "172.17.0.0/24"}, "overlaps with 172.17.0.0/16 of the network bridge"),
        ({"egress_subnet": "300.29.240.0/22"}, "The sandboxes' network cannot be 300.29.240.0/22"),
        ({"egress_subnet": "172.29.240.0/31"}, "The sandboxes' network cannot be 172.29.240.0/31"),
        ({"egress_port": 80}, "egress_port lie between 1024 and 65535"),
        (
            {"egress_docker_host": "unix:///run/nobody.sock"},
            "no container engine answers at unix:///run/nobody.sock",
        ),
        ({"ansible_become": False}, "refuses this user: become root"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(machine: Machine, options: dict[str, Any], words: str) -> None:
    look = "docker network ls -q; find /etc/claw-egress -printf '%p %T@\\n'"
    before = machine.sh(look)
    play = machine.role(**options)
    assert play.rc != 0
    assert words in " ".join(play.output.split()), play.output
    assert machine.sh(look) == before
