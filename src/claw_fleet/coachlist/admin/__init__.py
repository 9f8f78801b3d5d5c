# SPDX-License-Identifier: GPL-3.0-or-later
"""The admin: where people say what is wanted, and see what the fleet made of it.

Forms and actions write people's columns alone (`people.py`); what the fleet writes is shown, and never
posted back.
"""

from __future__ import annotations

from claw_fleet.coachlist.admin.coaches import CompanionProfileAdmin
from claw_fleet.coachlist.admin.coaching import CoachingClientAdmin, CoachingGoalAdmin, CoachingSessionAdmin
from claw_fleet.coachlist.admin.gateways import GatewayAdmin, ServiceTokenAdmin

__all__ = [
    "CoachingClientAdmin",
    "CoachingGoalAdmin",
    "CoachingSessionAdmin",
    "CompanionProfileAdmin",
    "GatewayAdmin",
    "ServiceTokenAdmin",
]
