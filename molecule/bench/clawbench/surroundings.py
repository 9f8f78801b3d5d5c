"""What an audit of sandboxes may reach for: listeners on a machine where elsewhere somebody else's would be.

The metadata address and a DNS server are on an interface of the machine's own network namespace, so nothing leaves it where
a control is missing. It does not prove that a real cloud's metadata service cannot be reached in a way that none of these has.
"""

from __future__ import annotations

import shlex
from typing import Any
from urllib.parse import urlsplit

from clawbench.hosts import Bench
from clawbench.shell import docker

NAMESERVER = "198.51.100.53"
"""Where a DNS server answers."""
_LISTENERS = f"""
import socket, threading
def serve(family, address):
    server = socket.create_server((address, 80), family=family)
    while True:
        server.accept()[0].close()
for family, address in ((socket.AF_INET, "169.254.169.254"), (socket.AF_INET6, "fd00:ec2::254")):
    threading.Thread(target=serve, args=(family, address), daemon=True).start()
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("{NAMESERVER}", 53))
while True:
    question, asker = names.recvfrom(512)
    names.sendto(question[:2] + b"\\x81\\x83" + question[4:], asker)
"""
_UP = f"""
set -eu
ip link show audit0 >/dev/null 2>&1 || ip link add audit0 type bridge
sysctl -q -w net.ipv6.conf.lo.disable_ipv6=0 net.ipv6.conf.audit0.disable_ipv6=0 net.ipv6.conf.clw0.disable_ipv6=0
ip link set audit0 up
ip address replace 169.254.169.254/32 dev audit0
ip address replace {NAMESERVER}/32 dev audit0
ip address replace fd00:ec2::254/128 dev audit0 nodad
ip address replace fd99::1/64 dev clw0 nodad
systemctl stop audit-listeners 2>/dev/null || true
systemd-run --quiet --collect --unit=audit-listeners python3 -c {shlex.quote(_LISTENERS)}
"""
_DOWN = "systemctl stop audit-listeners; ip link delete audit0; ip address delete fd99::1/64 dev clw0"


def targets(bench: Bench) -> dict[str, Any]:
    """What the playbook of the audit is told of them, and of the provider's stand-in, which is a private network's host."""
    provider = urlsplit(bench.facts()["provider"]["control_url"])
    return {
        "isolation_audit_private_hosts": [f"{provider.hostname}:{provider.port}"],
        "isolation_audit_dns_servers": [NAMESERVER],
    }


def up(bench: Bench, host: str) -> None:
    """Have them on a machine whose sandboxes have their bridge; again, they are made anew."""
    docker("exec", bench.container(host), "sh", "-c", _UP, why=f"surround the sandboxes of {host}")


def down(bench: Bench, host: str) -> None:
    """Take them away."""
    docker("exec", bench.container(host), "sh", "-c", _DOWN, why=f"clear the surroundings of {host}")
