# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module promises, in the words of its documentation."""

from __future__ import annotations


class ModuleDocFragment:
    """DOCUMENTATION names the attributes.

    INFO_MODULE says what they are of a module that only looks; CONTROLLER adds that of what never leaves the controller.
    """

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying anything.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)) in diff
      mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates
        no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
"""

    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details:
      - Nothing is changed.
  idempotent:
    support: full
"""

    CONTROLLER = r"""
options: {}
attributes:
  connection:
    description: Whether the task connects to its host.
    support: none
    details:
      - Runs on the controller alone, so what it knows of Django never reaches a machine.
"""
