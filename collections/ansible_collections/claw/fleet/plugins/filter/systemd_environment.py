# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables of the environment, as a unit of systemd has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: systemd_environment
short_description: Variables of the environment, as a unit of systemd has them
version_added: 0.1.0
author:
  - claw.fleet contributors (@claw-fleet)
description:
  - Writes a line C(Environment=) for each variable, quoted so that the process gets exactly the value that is given.
options:
  _input:
    description: Values by name.
    type: dict
    required: true
"""

EXAMPLES = r"""
# In a template
- |
  [Service]
  {{ {'HTTPS_PROXY': 'http://proxy.example.com:3128'} | claw.fleet.systemd_environment }}
"""

RETURN = r"""
_value:
  description: The lines, of which the last has no end.
  type: str
"""

# systemd ends a value at a quote, knows escapes of C, and fills in what begins with a percent sign (systemd.syntax(7)).
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "%": "%%", "\n": r"\n", "\r": r"\r"})


def systemd_environment(variables: Mapping[str, Any]) -> str:
    """The lines, in the order of what was given."""
    return "\n".join(
        f'Environment="{name}={str(value).translate(_ESCAPES)}"' for name, value in variables.items()
    )


class FilterModule:
    """What Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {"systemd_environment": systemd_environment}
