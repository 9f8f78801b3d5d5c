# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of everything that looks at the files of workspaces."""

from __future__ import annotations


class ModuleDocFragment:
    """Which files, and where their templates are; RENDERED is for the machine's half, which gets what they were rendered to."""

    DOCUMENTATION = r"""
options:
  workspace_files:
    description: The files of a workspace. They are rendered on the controller with the variable C(coach).
    type: list
    elements: dict
    default: []
    suboptions:
      src:
        description: The template, looked for in O(template_paths) and then where templates of a role are.
        type: str
        required: true
      dest:
        description: The path in the workspace, relative and without parts that begin with a dot.
        type: str
        required: true
      owner:
        description:
          - Whose file it is. With V(agent) it is seeded once and never touched again; only where none of a workspace's files
            is left, they were lost, and all are seeded again.
          - With V(fleet) it follows what is wanted of its coach, but only while it is what the fleet wrote; what
            somebody changed is reported as a conflict and left alone. A changed template alone does not reach the
            agents of coaches who are settled; their files are reported as outdated.
        type: str
        required: true
        choices: [agent, fleet]
  template_paths:
    description: Directories on the controller in which templates are looked for first, in this order.
    type: list
    elements: path
    default: []
"""

    RENDERED = r"""
options:
  contents:
    description:
      - What the templates were rendered to, by agent and O(workspace_files[].dest).
      - It is filled in on the controller and whatever is given here is replaced.
    type: dict
    default: {}
"""
