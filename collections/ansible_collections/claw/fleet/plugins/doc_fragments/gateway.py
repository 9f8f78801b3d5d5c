# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of everything that works on one gateway of a machine."""

from __future__ import annotations


class ModuleDocFragment:
    """Which gateway, and where gateways are described."""

    DOCUMENTATION = r"""
options:
  gateway:
    description: The name of the gateway on this machine, as the role P(claw.fleet.gateway#role) was given it.
    type: str
    required: true
  config_root:
    description: The directory that holds a directory for each gateway of this machine.
    type: path
    default: /etc/claw
"""
