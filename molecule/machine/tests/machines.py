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
from clawbench.scan import answering
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

# Who listens, for everybody, where some of it is named and some is not.
PORTS = (8443, 9100, 9200, 9300, 9500, 47111)
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
    return answering(BENCH.container(OLD if machine == NEW else NEW), addresses(machine)[family])


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
        # Each line would have its own, amid what is looked for.
        "ANSIBLE_FORCE_COLOR": "false",
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
