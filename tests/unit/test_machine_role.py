"""What the machine role makes of what it was given and what it found: rules, and the sentences by which it refuses."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.tests.unit.plugins.cli import COLLECTIONS, DEBIAN, Ansible, play

TEMPLATE = COLLECTIONS / "ansible_collections/claw/fleet/roles/machine/templates/firewall.nft.j2"
# What machine_info says of a machine that Ansible reaches by SSH.
FOUND: dict[str, Any] = {"ssh_port": 22, "listening": [22], "listening_udp": []}
LOCAL = {"listening": [22, 2222], "listening_udp": []}


def told(place: Path, given: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What becomes of each, by one run with a host for each: the rules and what they close, or why it is refused."""
    ansible = Ansible(place)
    names = {f"host{number}": what for number, what in enumerate(given)}
    chapters = [
        {
            "ansible.builtin.include_role": {
                "name": "claw.fleet.machine",
                "tasks_from": chapter,
                "public": True,
            }
        }
        for chapter in ("preflight", "return")
    ]
    rules = "{{ lookup('ansible.builtin.template', '" + str(TEMPLATE) + "') }}"
    content = "{{ {'closed': machine_closed, 'rules': rules.splitlines()} | to_json }}"
    write = {"dest": f"{place}/{{{{ inventory_hostname }}}}.json", "content": content}
    plays = [play(*chapters, {"ansible.builtin.copy": write, "vars": {"rules": rules}})]
    described = {
        name: {
            "ansible_host": "box" + name[4:],
            "ansible_python_interpreter": sys.executable,
            "facts": DEBIAN,
            "machine_found": FOUND,
            **given[what],
        }
        for name, what in names.items()
    }
    inventory = ansible.write("hosts.json", {"all": {"hosts": described}})
    done = ansible.run("playbook", "-i", inventory, ansible.write("plays.json", plays))
    output = " ".join((done.stdout + done.stderr).replace("''", "'").split())
    refused = re.split(r"(?:fatal|failed): \[(host\d+)\]", output)
    came = dict(zip(refused[1::2], refused[2::2], strict=True))
    for name in names:
        if (place / f"{name}.json").exists():
            found = json.loads((place / f"{name}.json").read_text())
            closed = ", ".join(map(str, found["closed"]))
            came[name] = "\n".join([*map(str.strip, found["rules"]), f"closed: {closed}"])
    return {what: came[name] for name, what in names.items()}


NAMED = [
    {"port": 8080},
    {"port": 51820, "protocol": "udp"},
    {"port": 53, "protocol": "udp", "from": ["192.0.2.0/24", "2001:db8::/32"]},
    {"port": 53, "protocol": "tcp"},
]
WIREGUARD = {"ssh_wireguard": {"interface": "wg0", "ports": [51820]}}

# What is given, what is in what comes of it, and what is not.
GIVEN: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "ports of both protocols": (
        {
            "machine_open_ports": NAMED,
            "machine_found": {**FOUND, "listening": [22, 53, 9100], "listening_udp": [53, 123, 8080, 51820]},
        },
        [
            "\ntcp dport 8080 accept\n",
            "\nudp dport 51820 accept\n",
            "\nip saddr { 192.0.2.0/24 } udp dport 53 accept\n",
            "\nip6 saddr { 2001:db8::/32 } udp dport 53 accept\n",
            "\ntcp dport 53 accept\n",
            "\nct status dnat meta l4proto tcp ct original proto-dst 8080 accept\n",
            "\nct status dnat meta l4proto udp ct original proto-dst 51820 accept\n",
            "\nct status dnat meta l4proto udp ct original proto-dst 53 ip saddr { 192.0.2.0/24 } accept\n",
            "\nclosed: 9100, 123/udp, 8080/udp",
        ],
        ["udp dport 8080", "tcp dport 51820"],
    ),
    "the proxy's port by UDP": (
        {"machine_open_ports": [{"port": 8080, "protocol": "udp"}], "proxy_bind": "192.0.2.1"},
        ["\ntcp dport 8080 accept\n", "\nudp dport 8080 accept\n"],
        [],
    ),
    "the proxy's port for some": (
        {"machine_open_ports": [{"port": 8080, "from": ["192.0.2.7"]}], "proxy_bind": "192.0.2.1"},
        ["\nip saddr { 192.0.2.7 } tcp dport 8080 accept\n"],
        ["\ntcp dport 8080 accept\n"],
    ),
    "a run that comes by SSH": (
        {"machine_found": {**FOUND, "listening": [22, 2222]}, "machine_ssh_ports": [2200]},
        ["\ntcp dport { 22, 2200 } accept", "\nclosed: 2222"],
        [],
    ),
    "a run on the machine itself": (
        {"machine_found": {**LOCAL, "ssh_ports": [2222, 2223]}, "machine_ssh_ports": [2200]},
        ["\ntcp dport { 2200, 2222, 2223 } accept"],
        [],
    ),
    "a machine without SSH": (
        {"machine_found": {**LOCAL, "ssh_ports": []}},
        ["\ntcp dport { 22 } accept"],
        [],
    ),
    "a machine without SSH that is to have one": (
        {"machine_found": {**LOCAL, "ssh_ports": []}, "machine_ssh_ports": [2200]},
        ["\ntcp dport { 2200 } accept"],
        [],
    ),
    "SSH that does not say its port": (
        {"machine_found": {**LOCAL, "ssh_ports": None}},
        ["has an SSH, this run did not come by it, and it does not say which port it has"],
        [],
    ),
    "SSH that does not say its port, which is named": (
        {"machine_found": {**LOCAL, "ssh_ports": None}, "machine_ssh_ports": [2200]},
        ["\ntcp dport { 2200 } accept"],
        [],
    ),
    "a group that has no hosts": (
        {"machine_open_ports": [{"port": 9300}, {"port": 8080, "protocol": "udp", "from": []}]},
        ["machine_open_ports opens 8080/udp and names nobody who may come: its from is empty"],
        [],
    ),
    "nobody": (
        {"machine_open_ports": [{"port": 8080, "from": None}]},
        ["machine_open_ports opens 8080/tcp and names nobody"],
        [],
    ),
    "an address without a list": (
        {"machine_open_ports": [{"port": 8080, "from": "192.0.2.1"}]},
        ["\nip saddr { 192.0.2.1 } tcp dport 8080 accept\n"],
        ["\ntcp dport 8080"],
    ),
    "certificates of one name": (
        {"machine_ca_certificates": ["CA/a/ours.crt", "CA/b/ours.pem", "CA/b/other.crt"]},
        ["machine_ca_certificates has more than one that would become claw-ours.crt"],
        [],
    ),
    "certificates of two names": (
        {"machine_ca_certificates": ["CA/a/ours.crt", "CA/b/other.crt"]},
        ["\nclosed: "],
        [],
    ),
    "WireGuard that this run comes through": (
        {"machine_found": {**FOUND, **WIREGUARD}},
        [
            "through its WireGuard wg0",
            "(51820/udp). Name its port in machine_open_ports: {port: 51820, protocol: udp}.",
        ],
        [],
    ),
    "WireGuard of which the port is named for TCP": (
        {"machine_found": {**FOUND, **WIREGUARD}, "machine_open_ports": [{"port": 51820}]},
        ["through its WireGuard wg0"],
        [],
    ),
    "WireGuard that does not say which port is its own": (
        {"machine_found": {**FOUND, "ssh_wireguard": {"interface": "wg1", "ports": [4789, 51820]}}},
        ["WireGuard wg1", "(4789/udp or 51820/udp). Name its port in machine_open_ports: {port: N, protocol"],
        [],
    ),
    "WireGuard that is named": (
        {
            "machine_found": {**FOUND, "ssh_wireguard": {"interface": "wg0", "ports": [4789, 51820]}},
            "machine_open_ports": NAMED,
        },
        ["\nudp dport 51820 accept\n"],
        [],
    ),
}


@pytest.fixture(scope="module")
def came(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of each."""
    place = tmp_path_factory.mktemp("machine")
    for name in ("a/ours.crt", "b/ours.pem", "b/other.crt"):
        (place / "CA" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "CA" / name).write_text("-----BEGIN CERTIFICATE-----\n")
    return told(place, {what: given for what, (given, _, _) in GIVEN.items()})


@pytest.mark.parametrize("what", GIVEN)
def test_what_comes_of_what_is_given(came: dict[str, str], what: str) -> None:
    _, there, absent = GIVEN[what]
    for words in there:
        assert words in came[what]
    for words in absent:
        assert words not in came[what]
