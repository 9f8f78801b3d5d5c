"""What can be reached of a machine, and what of it stays as others have it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from machines import (
    AUTHORITY,
    MACHINES,
    NEW,
    OLD,
    addresses,
    applied,
    furnish,
    kernel_forwards,
    play,
    restart,
    scan,
    sh,
    write,
)

# SSH, and what the inventory names for everybody or for that family's networks.
SEEN: dict[str, dict[str, set[int]]] = {
    "IPv4": {"TCP": {22, 8443, 9300}, "UDP": {9500}},
    "IPv6": {"TCP": {22, 8443, 9200}, "UDP": {9500}},
}
FAMILIES = tuple(SEEN)
TRIAL = "/etc/systemd/system/claw-firewall-trial.service.d/fault.conf"


@pytest.fixture(scope="module", autouse=True)
def furnished() -> None:
    """Others have something on each machine too."""
    for machine in MACHINES:
        furnish(machine)


def rules(machine: str) -> str:
    """Everybody else's."""
    shown = "nft --stateless list table"
    return sh(machine, f"{shown} inet operator; {shown} ip engine 2>/dev/null || true")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("machine", MACHINES)
def test_a_scan_sees_what_is_named_and_nothing_else(machine: str, family: str) -> None:
    assert scan(machine, family) == SEEN[family]


def test_a_scan_sees_what_listens_where_there_is_no_firewall() -> None:
    """So that the others prove something; and what is taken away is put back by a reload."""
    sh(OLD, "nft delete table inet claw_machine")
    found = scan(OLD, "IPv4")
    assert {22, 9100, 47111} <= found["TCP"] and {9100, 47111} <= found["UDP"]
    came = applied(OLD)
    assert came.changed == 1, came.output
    assert scan(OLD, "IPv4") == SEEN["IPv4"]


def test_after_a_start_nothing_else_is_seen_and_nobodys_rules_are_gone() -> None:
    before = {machine: sh(machine, "nft --stateless list table inet operator") for machine in MACHINES}
    for machine in MACHINES:
        restart(machine)
    for machine in MACHINES:
        assert sh(machine, "nft --stateless list table inet operator") == before[machine]
        for family in FAMILIES:
            assert scan(machine, family) == SEEN[family]
    assert applied(NEW).changed == 0


@pytest.fixture
def containers() -> Iterator[str]:
    """A container as an engine would have it, with ports it publishes, and a sandbox on the fleet's own bridge."""
    kernel_forwards(NEW)
    write(
        NEW,
        "/root/containers",
        """set -eu
for place in "br-test 10.99.0" "clw0 172.29.240"; do
    set -- $place
    ip link add $1 type bridge
    ip address add $2.1/24 dev $1
    ip link set $1 up
    ip netns add $1
    ip link add $1-v type veth peer name eth0 netns $1
    ip link set $1-v master $1 up
    ip -n $1 link set lo up
    ip -n $1 link set eth0 up
    ip -n $1 address add $2.2/24 dev eth0
    ip -n $1 route add default via $2.1
done
nft -f - <<RULES
table ip engine {
    chain prerouting { type nat hook prerouting priority dstnat; tcp dport { 8444, 8081 } dnat to 10.99.0.2:80;
        udp dport { 9500, 9501 } dnat to 10.99.0.2:80; }
    chain postrouting { type nat hook postrouting priority srcnat; oifname eth0 masquerade; }
}
RULES
systemd-run -q --unit=published -p NetworkNamespacePath=/run/netns/br-test python3 -m http.server 80
systemd-run -q --unit=published-udp -p NetworkNamespacePath=/run/netns/br-test python3 -c '
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 80))
while True:
    server.sendto(*server.recvfrom(200))'
systemd-run -q --unit=egress-stand-in python3 -m http.server 3128 --bind 172.29.240.1
""",
    )
    sh(NEW, "sh /root/containers; sleep 1")
    sh(OLD, f"ip route replace 10.99.0.0/24 via {addresses(NEW)['IPv4']}")
    yield NEW
    sh(OLD, "ip route delete 10.99.0.0/24", check=False)
    sh(
        NEW,
        "systemctl stop published published-udp egress-stand-in; nft delete table ip engine; "
        "for name in br-test clw0; do ip netns delete $name; ip link delete $name; done",
        check=False,
    )


def reaches(machine: str, address: str, port: int, *, inside: str = "") -> bool:
    """Whether a connection is made from a machine, or from inside a network namespace of it."""
    within = f"ip netns exec {inside} " if inside else ""
    ask = f'import socket; socket.create_connection(("{address}", {port}), timeout=2)'
    return "yes" in sh(machine, f"{within}python3 -c '{ask}' 2>/dev/null && echo yes || echo no")


def answers(machine: str, address: str, port: int) -> bool:
    """Whether a packet of UDP from a machine is answered."""
    ask = (
        "import socket; asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); asking.settimeout(2); "
        f'asking.sendto(b"who is there?", ("{address}", {port})); asking.recvfrom(200)'
    )
    return "yes" in sh(machine, f"python3 -c '{ask}' 2>/dev/null && echo yes || echo no")


def test_ports_of_containers_are_closed_unless_they_are_named(containers: str) -> None:
    """And what containers and sandboxes reach by their engine's rules they still do."""
    address, other = addresses(NEW)["IPv4"], addresses(OLD)["IPv4"]
    kept = rules(NEW)
    assert "dnat to 10.99.0.2:80" in kept
    wanted = {
        "a port that is named": (reaches(OLD, address, 8444), True),
        "one that is not": (reaches(OLD, address, 8081), False),
        "a port of UDP that is named": (answers(OLD, address, 9500), True),
        "one of UDP that is not": (answers(OLD, address, 9501), False),
        "a container by its own address": (reaches(OLD, "10.99.0.2", 80), False),
        "the machine itself to its container": (reaches(NEW, "10.99.0.2", 80), True),
        "a container to elsewhere": (reaches(NEW, other, 22, inside="br-test"), True),
        "a sandbox to its proxy": (reaches(NEW, "172.29.240.1", 3128, inside="clw0"), True),
        "a sandbox to what is not named": (reaches(NEW, "172.29.240.1", 47111, inside="clw0"), False),
        "elsewhere to the sandboxes' proxy": (reaches(OLD, address, 3128), False),
    }
    assert {what: found for what, (found, _) in wanted.items()} == {
        what: ok for what, (_, ok) in wanted.items()
    }
    sh(NEW, "systemctl reload claw-firewall")
    assert rules(NEW) == kept
    sh(NEW, "nft delete table inet claw_machine")
    try:
        assert (
            reaches(OLD, address, 8081) and answers(OLD, address, 9501) and reaches(OLD, "10.99.0.2", 80)
        ), "the firewall was what closed them"
    finally:
        sh(NEW, "systemctl reload claw-firewall")


# Somebody who takes all rules away, all the time, while it is loaded.
_FLUSHED = """
(for _each in $(seq 400); do nft flush ruleset; done) &
for _each in $(seq 40); do
    /opt/claw/machine/firewall load 2>/dev/null || true
    nft --stateless list table inet claw_machine >/dev/null 2>&1 || ! /opt/claw/machine/firewall check || echo "none passes for proven"
done
wait
"""


def test_rules_that_somebody_takes_away_are_missed() -> None:
    kept = rules(OLD)
    try:
        assert sh(OLD, _FLUSHED) == ""
    finally:
        sh(OLD, "systemctl reload claw-firewall; sed /flush/d /etc/nftables.conf | nft -f -")
    assert rules(OLD) == kept
    assert sh(OLD, "/opt/claw/machine/firewall check && echo whole") == "whole"


# What a package brings, and takes away with it: the names of protocols. A new rule is loaded while there are none.
_NAMED = """
cp -a /etc/protocols /root/protocols 2>/dev/null || true
rm -f /etc/protocols
systemctl reload claw-firewall
printf 'tcp 6 TCP\n' > /etc/protocols
/opt/claw/machine/firewall check && echo whole
rm -f /etc/protocols
[ ! -e /root/protocols ] || mv /root/protocols /etc/protocols
"""


def test_the_names_of_protocols_make_no_other_rules_of_them() -> None:
    assert "original proto-dst" in sh(NEW, "nft list table inet claw_machine"), "no rule speaks of a protocol"
    assert sh(NEW, _NAMED) == "whole"


def test_nobody_is_locked_out() -> None:
    """A firewall through which no new connection comes goes again by itself, and the machine never starts with it."""
    before = sh(OLD, "nft --stateless list table inet claw_machine; cat /etc/claw-machine/firewall.nft")
    fault = "ExecStartPre=/usr/sbin/nft insert rule inet claw_machine input iifname eth0 drop"
    write(OLD, TRIAL, f"[Service]\n{fault}\n")
    sh(OLD, "systemctl daemon-reload")
    try:
        came = play(OLD, machine_open_ports=[{"port": 8443}], machine_firewall_trial=20)
    finally:
        sh(OLD, f"rm -r $(dirname {TRIAL}); systemctl daemon-reload")
    assert came.rc != 0
    assert "No new connection to old came through its new firewall" in came.words
    closed = re.search(r"The firewall of old closes (.*?), on which something listens", came.words)
    assert closed and {"9100", "47111", "8443/udp", "9100/udp", "9500/udp"} <= set(closed[1].split(", ")), (
        came.output
    )
    # Until it is over, and not only coming to its end, at which the rules of before are loaded.
    sh(
        OLD,
        "until systemctl show -P ActiveState claw-firewall-trial | grep -qE 'inactive|failed'; do sleep 1; done",
    )
    assert (
        sh(OLD, "nft --stateless list table inet claw_machine; cat /etc/claw-machine/firewall.nft") == before
    )


def test_without_it_nothing_of_it_is_left_and_nobody_else_notices() -> None:
    kept = rules(OLD)
    off = {"machine_firewall": False, "machine_ca_certificates": []}
    assert applied(OLD, **off).changed > 0
    assert "claw_machine" not in sh(OLD, "nft list tables")
    assert sh(OLD, "ls /etc/systemd/system /etc/claw-machine /opt/claw/machine | grep firewall || true") == ""
    assert rules(OLD) == kept
    # A certificate that is given no more is trusted no more.
    assert sh(OLD, "ls /etc/ssl/certs /usr/local/share/ca-certificates | grep claw- || true") == ""
    assert "yes" in sh(OLD, f"python3 -c '{AUTHORITY}' && echo no || echo yes")
    assert applied(OLD, **off).changed == 0
    assert applied(OLD).changed > 0
    assert scan(OLD, "IPv6") == SEEN["IPv6"]
