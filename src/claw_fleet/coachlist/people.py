# SPDX-License-Identifier: GPL-3.0-or-later
"""What people do to coaches.

Each function writes people's columns alone, in one statement that counts the generation up in the database,
so it neither loses another person's click nor touches what the fleet reports in the meantime.
"""

from __future__ import annotations

from typing import Any

from django.db.models import F

from claw_fleet.coachlist.models import CompanionProfile, Wanted
from claw_fleet.coachlist.models.fleet import CompanionQuerySet

# What people may edit of a coach who is there; the rest of their columns change by the functions below.
EDITABLE = frozenset({"name", "vars"})


def edit(coach_pk: int, **values: Any) -> int:
    """Change `name` and/or `vars`; the number of rows changed (0 when there was nothing to do)."""
    unknown = values.keys() - EDITABLE
    if unknown:
        raise ValueError(f"not for people to edit: {', '.join(sorted(unknown))}")
    if not values:
        return 0
    return CompanionProfile.objects.filter(pk=coach_pk).update(**values, generation=F("generation") + 1)


def let_in(coach_pk: int, user_pk: int | None) -> int:
    """Have a user sign in as this coach, or nobody. It is no change that the fleet has anything to do for."""
    return CompanionProfile.objects.filter(pk=coach_pk).update(user=user_pk)


def provision(coaches: CompanionQuerySet) -> int:
    """Want them running, and have the fleet act again whatever the status is."""
    return coaches.update(wanted=Wanted.RUNNING, generation=F("generation") + 1)


def pause(coaches: CompanionQuerySet) -> int:
    """Pause those who are wanted running."""
    return coaches.filter(wanted=Wanted.RUNNING).update(wanted=Wanted.PAUSED, generation=F("generation") + 1)


def resume(coaches: CompanionQuerySet) -> int:
    """Let those run again who are wanted paused."""
    return coaches.filter(wanted=Wanted.PAUSED).update(wanted=Wanted.RUNNING, generation=F("generation") + 1)


def remove(coaches: CompanionQuerySet) -> int:
    """Have the agents of those removed who are not yet wanted removed."""
    return coaches.exclude(wanted=Wanted.REMOVED).update(
        wanted=Wanted.REMOVED, generation=F("generation") + 1
    )


def rotate_key(coaches: CompanionQuerySet) -> int:
    """Want a new key for those who are not wanted removed."""
    return coaches.exclude(wanted=Wanted.REMOVED).update(
        key_wanted_generation=F("key_wanted_generation") + 1, generation=F("generation") + 1
    )
