# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the doctor that its half on the machine has too."""

from __future__ import annotations


class ModuleDocFragment:
    """What is looked at, and what it is compared with."""

    DOCUMENTATION = r"""
options:
  gateway:
    description: The name of the gateway. Empty for a machine without one, such as a control node.
    type: str
    default: ""
  config_root:
    description: The directory that holds a directory for each gateway of this machine.
    type: path
    default: /etc/claw
  machine:
    description: Whether to look at what is once on a machine, too.
    type: bool
    default: true
  url:
    description: Where the app should reach the gateway. Empty where a tunnel says so.
    type: str
    default: ""
  coach_api_url:
    description: Where agents ask the app. Empty if that is not to be compared.
    type: str
    default: ""
  dns_hosts:
    description: Names to look up on the machine, beside those that the gateway and its agents ask.
    type: list
    elements: str
    default: []
  proxy_port:
    description: The port of the machine's proxy; V(0) where there is none.
    type: int
    default: 0
  files:
    description: The SHA-256 that files of the proxy should have, by their paths.
    type: dict
    default: {}
  ready_timeout:
    description: Seconds that a gateway which is starting is waited for.
    type: int
    default: 60
"""
