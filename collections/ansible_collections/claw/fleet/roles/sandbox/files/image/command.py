# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the command starts with, in an interpreter that takes nothing from its environment or directory."""

import sys

sys.path.insert(0, "/usr/lib/coachcli")

from coachcli.commands import main

main()
