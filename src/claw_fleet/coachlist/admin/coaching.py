# SPDX-License-Identifier: GPL-3.0-or-later
"""What coaches' agents work with: clients, sessions, goals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

from claw_fleet.coachlist.models import (
    CoachingClient,
    CoachingGoal,
    CoachingMilestone,
    CoachingSession,
)

if TYPE_CHECKING:
    ClientAdminBase = admin.ModelAdmin[CoachingClient]
    SessionAdminBase = admin.ModelAdmin[CoachingSession]
    GoalAdminBase = admin.ModelAdmin[CoachingGoal]
    GoalInlineBase = admin.TabularInline[CoachingGoal, CoachingClient]
    MilestoneInlineBase = admin.TabularInline[CoachingMilestone, CoachingGoal]
else:
    ClientAdminBase = SessionAdminBase = GoalAdminBase = admin.ModelAdmin
    GoalInlineBase = MilestoneInlineBase = admin.TabularInline


class GoalInline(GoalInlineBase):
    """A client's goals."""

    model = CoachingGoal
    extra = 0


class MilestoneInline(MilestoneInlineBase):
    """A goal's milestones."""

    model = CoachingMilestone
    extra = 0


@admin.register(CoachingClient)
class CoachingClientAdmin(ClientAdminBase):
    """Clients."""

    list_display = ("name", "email", "coach", "has_consented", "total_sessions")
    list_filter = ("has_consented",)
    list_select_related = ("coach",)
    search_fields = ("name", "email", "coach__agent_id", "coach__name")
    autocomplete_fields = ("coach",)
    inlines = (GoalInline,)


@admin.register(CoachingSession)
class CoachingSessionAdmin(SessionAdminBase):
    """Sessions."""

    list_display = ("title", "client", "date", "session_type")
    list_filter = ("session_type",)
    list_select_related = ("client",)
    search_fields = ("title", "client__name")
    autocomplete_fields = ("client",)
    date_hierarchy = "date"


@admin.register(CoachingGoal)
class CoachingGoalAdmin(GoalAdminBase):
    """Goals."""

    list_display = ("title", "client", "status")
    list_filter = ("status",)
    list_select_related = ("client",)
    search_fields = ("title", "client__name")
    autocomplete_fields = ("client",)
    inlines = (MilestoneInline,)
