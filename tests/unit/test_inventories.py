"""The inventories that are examples: they are read whole, name nobody, and site.yml takes them."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BARE_METAL = ROOT / "inventories" / "bare-metal"
TOOLS = Path(sys.executable).parent
DOCUMENTATION = [ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]


def told(program: str, *words: str) -> str:
    """What one of Ansible's programs says of the inventory."""
    done = subprocess.run(
        [TOOLS / program, "-i", str(BARE_METAL), *words],
        cwd=ROOT,
        env={
            "PATH": f"{TOOLS}:/usr/bin:/bin",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "HOME": str(Path.home()),
            "ANTHROPIC_API_KEY": "sk-none",
        },
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return done.stdout


def test_a_machine_of_ones_own_is_an_address_and_a_key() -> None:
    found: dict[str, Any] = json.loads(told("ansible-inventory", "--list"))
    assert found["gateways"]["hosts"] == ["gw-a"]
    variables = found["_meta"]["hostvars"]["gw-a"]
    assert ipaddress.ip_address(variables["ansible_host"]) in DOCUMENTATION[0]
    assert variables["gateway_model"] == "anthropic/claude-sonnet-4-6"
    assert "ansible_ssh_private_key_file" in variables


def test_it_names_nobodys_address() -> None:
    text = "".join(path.read_text() for path in BARE_METAL.rglob("*.yml"))
    addresses = re.findall(r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b", text)
    assert addresses
    for address in addresses:
        assert any(ipaddress.ip_address(address) in net for net in DOCUMENTATION), address


def test_it_says_how_to_jump() -> None:
    text = (BARE_METAL / "group_vars" / "all.yml").read_text()
    jump = re.search(r"^# (ansible_ssh_common_args: .*)$", text, re.MULTILINE)
    assert jump and "-o ProxyJump=" in jump.group(1)


def test_the_play_takes_it() -> None:
    tasks = told("ansible-playbook", "playbooks/site.yml", "--list-tasks", "--list-hosts")
    assert "gw-a" in tasks
    names = [line.strip().partition("\t")[0] for line in tasks.splitlines() if " : " in line]
    assert {"claw.fleet.machine", "claw.fleet.gateway", "claw.fleet.proxy"} <= {
        name.partition(" : ")[0] for name in names
    }
