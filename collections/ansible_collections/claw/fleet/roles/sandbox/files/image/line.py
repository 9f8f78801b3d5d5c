# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an agent executes: a line of words, the first of which has to be the coach's command.

The words are split as a shell does and then taken as they are: nothing is expanded, and no other program is started.
"""

import sys

sys.path.insert(0, "/usr/lib/coachcli")

from coachcli.lines import main

main(sys.argv[1])
