# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file that says of itself whether somebody changed it."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.claw.fleet.plugins.module_utils import _seal

DOCUMENTATION = r"""
name: sealed
short_description: A file that says of itself whether somebody changed it
version_added: 0.1.0
author:
  - claw.fleet contributors (@claw-fleet)
description:
  - Adds a last line with the SHA-256 of the lines above it, as a comment that begins with C(#).
  - M(claw.fleet.fleet_doctor) names a unit of the fleet whose last line is not that of the others.
options:
  _input:
    description: The file's text.
    type: str
    required: true
"""

EXAMPLES = r"""
# In a template
- |
  {% filter claw.fleet.sealed %}
  [Service]
  MemoryMax=1G
  {% endfilter %}
"""

RETURN = r"""
_value:
  description: The text with one more line.
  type: str
"""


class FilterModule:
    """What Ansible finds here."""

    def filters(self) -> dict[str, Callable[[str], str]]:
        """By name."""
        return {"sealed": _seal.sealed}
