"""The scenario's machines: what is run on them, what is around them, and who scans them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clawbench.hosts import Bench
from clawbench.shell import ROOT, docker, run, until

STATE = Path(os.environ["CLAW_DEMO_STATE"])
BENCH = Bench.of(STATE)
SCENARIO = Path(__file__).resolve().parents[1]
OLD, NEW = "old", "new"
MACHINES = (OLD, NEW)
AUTHORITY = (
    "import ssl, sys; found = ssl.create_default_context().get_ca_certs(); "
    'sys.exit("test authority" not in str(found))'
)
"""Python that ends well where the inventory's authority is trusted."""

# Every TCP port, from a raw socket: a port that answers to a first packet by a second one listens.
_SCAN = """
import socket, struct, sys, threading, time
target = sys.argv[1]
family = socket.AF_INET6 if ":" in target else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as asked:
    asked.connect((target, 9))
    source = asked.getsockname()[0]
SPORT, open_ports, done = 20022, set(), threading.Event()
raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
raw.settimeout(0.2)
def hear():
    while not done.is_set():
        try:
            packet, sender = raw.recvfrom(200)
        except TimeoutError:
            continue
        segment = packet if family == socket.AF_INET6 else packet[(packet[0] & 15) * 4:]
        if sender[0].partition("%")[0] == target and len(segment) >= 20:
            sport, dport, flags = *struct.unpack("!HH", segment[:4]), segment[13]
            if dport == SPORT and flags & 0x12 == 0x12:
                open_ports.add(sport)
def folded(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff
pseudo = socket.inet_pton(family, source) + socket.inet_pton(family, target)
pseudo += struct.pack("!HH" if family == socket.AF_INET else "!LL", *((6, 20) if family == socket.AF_INET else (20, 6)))
hearing = threading.Thread(target=hear)
hearing.start()
for _ in range(2):
    for port in range(1, 65536):
        def segment(check):
            return struct.pack("!HHLLBBHHH", SPORT, port, 7, 0, 0x50, 2, 1024, check, 0)
        raw.sendto(segment(folded(pseudo + segment(0))), (target, 0))
        if port % 500 == 0:
            time.sleep(0.005)
    time.sleep(1)
done.set()
hearing.join()
print(*sorted(open_ports))
"""

# Every UDP port: whoever listens here answers.
_ASK = """
import contextlib, socket, sys, time
target = sys.argv[1]
asking = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
asking.setblocking(False)
answered = set()
for _ in range(2):
    for port in range(1, 65536):
        asking.sendto(b"who is there?", (target, port))
        if port % 500 == 0:
            time.sleep(0.005)
    time.sleep(1)
    with contextlib.suppress(BlockingIOError):
        while True:
            answered.add(asking.recvfrom(200)[1][1])
print(*sorted(answered))
"""

# Who listens, for everybody, where some of it is named and some is not.
PORTS = (8443, 9100, 9200, 9300, 47111)
_LISTEN = f"""
import socket, threading
def serve(port):
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        server.accept()[0].close()
def answer(port):
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.bind(("::", port))
    while True:
        words, asker = server.recvfrom(200)
        server.sendto(words, asker)
for port in {PORTS}:
    threading.Thread(target=serve, args=(port,)).start()
    threading.Thread(target=answer, args=(port,)).start()
"""
# Somebody else's firewall, which the distribution's service loads after it has removed everybody's, and an engine's rules.
_OPERATORS = """#!/usr/sbin/nft -f
flush ruleset
table inet operator {
    chain input { type filter hook input priority 10; policy accept; tcp dport 47112 drop; }
}
"""
_UNIT = """[Unit]
After=nftables.service claw-firewall.service network.target
[Service]
ExecStart=/usr/bin/python3 /root/listen.py
[Install]
WantedBy=multi-user.target
"""


def sh(machine: str, script: str, *, check: bool = True, stdin: str = "") -> str:
    """Run a shell script on a machine, as root."""
    command = ["exec", "--interactive", BENCH.container(machine), "sh", "-euc", script]
    return docker(*command, stdin=stdin, check=check, why=f"run a script on {machine}")


def write(machine: str, path: str, content: str, mode: str = "0644") -> None:
    """Have a file on a machine."""
    target = shlex.quote(path)
    sh(machine, f'mkdir -p "$(dirname {target})" && cat > {target} && chmod {mode} {target}', stdin=content)


def addresses(machine: str) -> dict[str, str]:
    """By family."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}"
    four, six = docker("inspect", "--format", form, BENCH.container(machine)).split()
    return {"IPv4": four, "IPv6": six}


def scan(machine: str, family: str) -> dict[str, set[int]]:
    """The ports of a machine that answer, as the other machine sees them, by protocol."""
    other, target = OLD if machine == NEW else NEW, addresses(machine)[family]
    found = {}
    for protocol, program in (("TCP", _SCAN), ("UDP", _ASK)):
        told = docker("exec", BENCH.container(other), "python3", "-c", program, target)
        found[protocol] = {int(port) for port in told.split()}
    return found


def furnish(machine: str) -> None:
    """What somebody else has on it: listeners, and rules."""
    write(machine, "/root/listen.py", _LISTEN)
    write(machine, "/etc/systemd/system/listeners.service", _UNIT)
    write(machine, "/etc/nftables.conf", _OPERATORS, "0755")
    sh(
        machine,
        "systemctl daemon-reload; systemctl --quiet enable listeners nftables; systemctl start listeners; "
        "sed /flush/d /etc/nftables.conf | nft -f -",
    )


def restart(machine: str) -> None:
    """Cut the power of a machine, and have it again."""
    container = BENCH.container(machine)
    for deed in ("kill", "start"):
        docker(deed, container)
    until(
        lambda: sh(machine, "systemctl is-system-running --wait || true") == "running",
        seconds=90,
        what=f"systemd of {machine}",
        hint=f"Look at it with: docker exec {container} systemctl --failed",
    )


def kernel_forwards(machine: str) -> None:
    """Have a machine lead packets on, which its own /proc/sys does not let it say."""
    pid = docker("inspect", "--format", "{{.State.Pid}}", BENCH.container(machine))
    run(["nsenter", f"--net=/proc/{pid}/ns/net", "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])


@dataclass
class Play:
    """What came of a run of the role."""

    rc: int
    output: str
    words: str = field(init=False)

    def __post_init__(self) -> None:
        self.words = " ".join(self.output.replace("''", "'").split())

    @property
    def changed(self) -> int:
        """How many tasks changed something."""
        return sum(int(count) for count in re.findall(r"changed=(\d+)", self.output))


def play(
    machine: str,
    *words: str,
    environment: dict[str, str] | None = None,
    playbook: Path = SCENARIO / "converge.yml",
    **variables: Any,
) -> Play:
    """Run the role on one machine, or another playbook."""
    command = ["ansible-playbook", "-i", str(SCENARIO / "inventory" / "hosts.yml"), "--limit", machine]
    command += [str(playbook), *words, "-e", json.dumps(variables)]
    env = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        **(environment or {}),
    }
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    return Play(done.returncode, done.stdout + done.stderr)


def chapter(place: Path, name: str) -> Path:
    """A playbook of one of the role's files alone."""
    role = {"ansible.builtin.include_role": {"name": "claw.fleet.machine", "tasks_from": name}}
    playbook = place / f"{name}.yml"
    playbook.write_text(
        json.dumps([{"hosts": "machines", "become": True, "gather_facts": False, "tasks": [role]}])
    )
    return playbook


def applied(machine: str, *words: str, **variables: Any) -> Play:
    """A run that has to succeed."""
    came = play(machine, *words, **variables)
    assert came.rc == 0, came.output
    return came
