# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables: the fleet's (gateways, coaches, service tokens) and the coaches' own (clients, sessions, goals)."""

from __future__ import annotations

from claw_fleet.coachlist.models.coaching import (
    CoachingClient,
    CoachingGoal,
    CoachingMilestone,
    CoachingSession,
)
from claw_fleet.coachlist.models.fleet import CompanionProfile, Gateway, ServiceToken, Status, Wanted

__all__ = [
    "CoachingClient",
    "CoachingGoal",
    "CoachingMilestone",
    "CoachingSession",
    "CompanionProfile",
    "Gateway",
    "ServiceToken",
    "Status",
    "Wanted",
]
