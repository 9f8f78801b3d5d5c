#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: machine_info
short_description: How a machine is, before anything on it is changed
version_added: 0.1.0
description:
  - Asks what makes a fleet's work fail later and elsewhere, the way out, names, C(localhost), the clock, room on disks, and
    who is at the packages. Judges nothing and changes nothing.
  - Needs root's eyes to see who holds a lock and by which port the controller came.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
  - claw.fleet.attributes.info_module
options:
  names:
    description: Names that the machine's resolver is asked for.
    type: list
    elements: str
    default: []
  dns_timeout:
    description: Seconds to wait for each of them.
    type: float
    default: 15
  controller_time:
    description: The controller's time, in seconds since 1970, as late as it can be known.
    type: float
  paths:
    description: Directories, which need not be there yet, whose file systems are looked at.
    type: list
    elements: str
    default: []
  packages:
    description: Debian packages that are looked for.
    type: list
    elements: str
    default: []
  packages_wait:
    description:
      - Seconds to wait for somebody else to let go of the packages. Nobody is waited for where none of O(packages) is
        missing, and nothing was cut short.
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: Ask the machine how it is
  claw.fleet.machine_info:
    names: [app.example.com]
    controller_time: "{{ now().timestamp() }}"
    paths: [/var/lib]
  register: machine_found
"""

RETURN = r"""
way_out:
  description: Whether the kernel knows a way to addresses that are not its neighbours'.
  returned: always
  type: bool
names:
  description: What was said of each name.
  returned: always
  type: dict
  sample: {"app.example.com": {"addresses": ["192.0.2.7"], "seconds": 0.02, "seconds_ipv4": 0.01, "error": ""}}
localhost:
  description: The addresses of C(localhost), as programs get them and as C(/etc/hosts) has them.
  returned: always
  type: dict
  sample: {"addresses": ["::1", "127.0.0.1"], "written": ["127.0.0.1", "::1"]}
clock_ahead:
  description: Seconds the machine's clock is ahead of O(controller_time); what it took to come here is in it.
  returned: with O(controller_time)
  type: float
may_set_clock:
  description: Whether the clock is the machine's own to set.
  returned: always
  type: bool
timekeeper:
  description: The unit of what is installed to keep the time; empty if nothing is.
  returned: always
  type: str
  sample: systemd-timesyncd.service
room:
  description: What is free for O(paths).
  returned: always
  type: list
  elements: dict
  sample: [{"path": "/var/lib", "free_mb": 20480, "free_inodes": 900000}]
missing_packages:
  description: Those of O(packages) that are not installed.
  returned: always
  type: list
  elements: str
package_lock:
  description: Who holds a lock of the package managers', after the waiting. The process is 0 if nobody does.
  returned: always
  type: dict
  sample: {"path": "/var/lib/dpkg/lock-frontend", "pid": 4711, "command": "apt-get upgrade"}
packages_interrupted:
  description:
    - Whether an installation was cut short, and nobody is at it any more. Until it is finished (C(dpkg --configure -a)) no
      other one begins.
  returned: always
  type: bool
ssh_port:
  description: The machine's own port of the SSH connection that this module came by.
  returned: when it came by SSH
  type: int
ssh_ports:
  description:
    - TCP ports by which others come to the machine's SSH, those it listens on or, where it is stopped, those of its settings.
      None of them where there is no C(sshd), and null where there is one and it does not say.
  returned: when it did not come by SSH
  type: list
  elements: int
  sample: [2222]
ssh_wireguard:
  description:
    - The WireGuard interface that this module came by, and the UDP port that WireGuard is reached at. They are all that the
      kernel itself has where C(wg) is not there to say which.
  returned: when it came by SSH through WireGuard
  type: dict
  sample: {"interface": "wg0", "ports": [51820]}
listening:
  description: TCP ports that something listens on for others than the machine itself.
  returned: always
  type: list
  elements: int
listening_udp:
  description:
    - UDP ports that something waits at for others than the machine itself. Without those of clients, which are of DHCP, or
      that a process has in the range that the kernel gives to clients.
  returned: always
  type: list
  elements: int
"""

import socket
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils import _machine as machine


def find(params: dict[str, Any], now: float) -> dict[str, Any]:
    """All of it."""
    seconds = params["dns_timeout"]
    found: dict[str, Any] = {
        "way_out": machine.has_way_out(),
        "names": {},
        "localhost": machine.localhost(seconds),
        "may_set_clock": machine.may_set_clock(),
        "timekeeper": machine.timekeeper(),
        "room": [machine.room(path) for path in params["paths"]],
        "missing_packages": machine.missing(params["packages"]),
        "listening": machine.listening(),
        "listening_udp": machine.listening_udp(),
        "package_lock": machine.NOBODY,
    }
    for name in params["names"]:
        told = machine.resolve(name, seconds)
        alone = machine.resolve(name, seconds, socket.AF_INET) if told["seconds"] > 1 else told
        found["names"][name] = {**told, "seconds_ipv4": alone["seconds"]}
    if params["controller_time"] is not None:
        found["clock_ahead"] = round(now - params["controller_time"], 1)
    if found["missing_packages"] or machine.interrupted():
        found["package_lock"] = machine.package_lock(params["packages_wait"])
    found["packages_interrupted"] = found["package_lock"] == machine.NOBODY and machine.interrupted()
    if came := machine.ssh_connection():
        client, server, found["ssh_port"] = came
        if tunnel := machine.wireguard(client, server):
            found["ssh_wireguard"] = tunnel
    else:
        found["ssh_ports"] = machine.ssh_ports()
    return found


def main() -> None:
    """Entry point."""
    now = time.time()
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "dns_timeout": {"type": "float", "default": 15},
            "controller_time": {"type": "float"},
            "paths": {"type": "list", "elements": "str", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "packages_wait": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **find(module.params, now))


if __name__ == "__main__":
    main()
