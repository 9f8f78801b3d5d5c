# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor found on several hosts, as one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils import _doctor

DOCUMENTATION = r"""
name: doctor_table
short_description: What the doctor found, for people
version_added: 0.1.0
author:
  - claw.fleet contributors (@claw-fleet)
description:
  - Of the findings of M(claw.fleet.fleet_doctor) on all hosts one table, the worst first.
options:
  _input:
    description: Findings.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what was found
  ansible.builtin.debug:
    msg: "{{ doctor_findings | claw.fleet.doctor_table }}"
"""

RETURN = r"""
_value:
  description: Lines.
  type: list
  elements: str
"""


def doctor_table(findings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The table's lines."""
    return _doctor.table(_doctor.sorted_by_weight(findings))


class FilterModule:
    """What Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {"doctor_table": doctor_table}
