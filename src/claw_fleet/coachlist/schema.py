# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAPI documents: one for coaches' agents, one for the fleet.

`schema/` and `manage.py spectacular` give the coaches' document, from which a command line can be generated:
groups are tags, verbs are what follows the tag in an operation id. `internal/schema/` and
`manage.py spectacular --custom-settings claw_fleet.coachlist.schema.INTERNAL` give the fleet's.

Nothing of Django is imported here: settings modules take COACH from here as their SPECTACULAR_SETTINGS.
"""

from __future__ import annotations

from typing import Any

_PREFIX = "claw_fleet.coachlist.schema."
_Endpoints = list[tuple[str, str, str, Any]]


def _is_internal(endpoint: tuple[str, str, str, Any]) -> bool:
    return "/internal/" in endpoint[0]


def _is_ours(endpoint: tuple[str, str, str, Any]) -> bool:
    module = getattr(getattr(endpoint[3], "cls", None), "__module__", "")
    return module.startswith("claw_fleet.coachlist.")


def only_coach(endpoints: _Endpoints, **kwargs: Any) -> _Endpoints:
    """drf-spectacular preprocessing hook: what a coach's key opens."""
    return [endpoint for endpoint in endpoints if _is_ours(endpoint) and not _is_internal(endpoint)]


def only_internal(endpoints: _Endpoints, **kwargs: Any) -> _Endpoints:
    """drf-spectacular preprocessing hook: what a service token opens."""
    return [endpoint for endpoint in endpoints if _is_ours(endpoint) and _is_internal(endpoint)]


COACH: dict[str, Any] = {
    "TITLE": "Companion API",
    "DESCRIPTION": "What a coach's agent may read and change, with the coach's own key.",
    "VERSION": "1.0.0",
    "SCHEMA_PATH_PREFIX": r"/api/companion/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "PREPROCESSING_HOOKS": [f"{_PREFIX}only_coach"],
    "ENUM_NAME_OVERRIDES": {
        "CoachStatusEnum": "claw_fleet.coachlist.models.Status",
        "WantedEnum": "claw_fleet.coachlist.models.Wanted",
        "GoalStatusEnum": "claw_fleet.coachlist.models.CoachingGoal.Status",
        "MilestoneStatusEnum": "claw_fleet.coachlist.models.CoachingMilestone.Status",
    },
    "TAGS": [
        {"name": "clients", "description": "The people the coach works with."},
        {"name": "sessions", "description": "Meetings and their transcripts."},
        {"name": "goals", "description": "What clients want to reach."},
        {"name": "profile", "description": "The coach's own profile."},
        {"name": "ask", "description": "The coach's agent."},
    ],
}

INTERNAL: dict[str, Any] = {
    **COACH,
    "TITLE": "Coach list, internal API",
    "DESCRIPTION": "How the fleet, with a service token, reads the coach list and writes back the outcome.",
    "PREPROCESSING_HOOKS": [f"{_PREFIX}only_internal"],
    "TAGS": [{"name": "internal", "description": "The fleet's side."}],
}
