# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a fault that the doctor knows by name, and the words that faults have in common.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

from typing import NamedTuple

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)
SITE = "`ansible-playbook -i inventory/ claw.fleet.site --limit {gateway}`"
PROVISION = "`ansible-playbook -i inventory/ claw.fleet.provision_coach --limit {gateway}`"
REBUILD = "`ansible-playbook -i inventory/ claw.fleet.rebuild_sandbox --limit {gateway}`"


class Code(NamedTuple):
    """What is known of a fault.

    ``means``: what it is and what comes of it; ``seen``: how the doctor sees it; ``fix``: what to do; ``remedies``: what the
    playbook does about it with ``--tags fix``, empty where that is not safe; ``explains``: other codes that are seen because
    of this one, and are left out beside it; ``beside_app``: whether it is seen by what the app said beside what the machine has,
    so that it is asked once more before it is told.
    """

    severity: str
    title: str
    means: str
    seen: str
    fix: str
    remedies: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()
    beside_app: bool = False


START, ENABLE, RESTART, RELOAD = "start", "enable", "restart", "reload"
GATEWAY, PROXY, COACHES, REGISTER, SANDBOX = "gateway", "proxy", "coaches", "register", "sandbox"
START_IT = "`systemctl reset-failed {unit}; systemctl start {unit}`, and look at `journalctl -u {unit}` for why it ended."
# What is seen of a gateway because its process is not there, or another one is in its place.
AWAY = ("gateway-down", "gateway-crash-loop", "gateway-not-ready", "proxy-leads-nowhere")
