# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts that are gateways of the same machine as one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: on_machine_of
short_description: The hosts that are on the same machine as another
version_added: 0.1.0
author:
  - claw.fleet contributors (@claw-fleet)
description:
  - A host of the inventory is a gateway, and a machine can have several. They are on one machine if they are reached at one
    address and one port. The address is C(ansible_host), or without it the host's own name; the port is C(ansible_port), or
    without it 22. So machines behind one address, each with a port of its own, are several.
  - Where that does not tell, as for a machine that is reached in two ways, the variable C(machine_id) of a host does. Hosts that
    have one are on one machine if it is the same, wherever they are reached, and never on the machine of a host that has none.
  - What is once on a machine is done by the first of them.
positional: host, hostvars
options:
  _input:
    description: Names of hosts.
    type: list
    elements: str
    required: true
  host:
    description: The host whose machine is meant.
    type: str
    required: true
  hostvars:
    description: Ansible's C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: The machine is told once
  ansible.builtin.debug:
    msg: This machine has the gateways {{ here | join(', ') }}
  when: inventory_hostname == here | first
  vars:
    here: "{{ ansible_play_batch | claw.fleet.on_machine_of(inventory_hostname, hostvars) }}"
"""

RETURN = r"""
_value:
  description: Those of the hosts that are on that machine, in the order given.
  type: list
  elements: str
"""


def on_machine_of(hosts: Iterable[str], host: str, hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Those of the hosts that are reached where the host is, or that name the machine as it does."""
    here = _machine(host, hostvars[host])
    return [other for other in hosts if _machine(other, hostvars[other]) == here]


def _machine(host: str, variables: Mapping[str, Any]) -> tuple[str, ...]:
    named = variables.get("machine_id")
    if named not in (None, ""):
        return (str(named),)
    # Text or a number, as variables of inventories and of command lines are.
    port = variables.get("ansible_port") or variables.get("ansible_ssh_port") or 22
    return (str(variables.get("ansible_host") or host), str(port))


class FilterModule:
    """What Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {"on_machine_of": on_machine_of}
