# SPDX-License-Identifier: GPL-3.0-or-later
"""What a coach's agent works with: clients, their sessions, goals and milestones."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Lower

from claw_fleet.coachlist.models.fleet import CompanionProfile


class CoachingClient(models.Model):
    """Somebody a coach works with."""

    coach = models.ForeignKey(CompanionProfile, on_delete=models.CASCADE, related_name="clients")
    name = models.CharField(max_length=200)
    email = models.EmailField(blank=True)
    total_sessions = models.PositiveIntegerField(default=0)
    has_consented = models.BooleanField(
        default=False,
        help_text="Whether this client agreed that an agent reads the transcripts of the sessions.",
    )

    class Meta:
        verbose_name = "client"
        ordering = ("pk",)
        indexes = (models.Index("coach", Lower("name"), name="coachlist_client_name"),)

    def __str__(self) -> str:
        return self.name


class CoachingSession(models.Model):
    """One meeting of a coach and a client."""

    class Type(models.TextChoices):
        """What kind of meeting."""

        REGULAR = "regular", "regular"
        INTAKE = "intake", "intake"

    client = models.ForeignKey(CoachingClient, on_delete=models.CASCADE, related_name="sessions")
    title = models.CharField(max_length=200)
    date = models.DateTimeField(db_index=True)
    session_type = models.CharField(max_length=16, choices=Type, default=Type.REGULAR)
    transcript = models.TextField(blank=True)

    class Meta:
        verbose_name = "session"
        ordering = ("-date", "-pk")

    def __str__(self) -> str:
        return self.title


class CoachingGoal(models.Model):
    """Something a client wants to reach."""

    class Status(models.TextChoices):
        """How it stands."""

        ACTIVE = "active", "active"
        PAUSED = "paused", "paused"
        COMPLETE = "complete", "complete"

    client = models.ForeignKey(CoachingClient, on_delete=models.CASCADE, related_name="goals")
    slug = models.SlugField(max_length=80)
    title = models.CharField(max_length=200)
    status = models.CharField(max_length=16, choices=Status, default=Status.ACTIVE)

    class Meta:
        verbose_name = "goal"
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(fields=["client", "slug"], name="coachlist_goal_slug_per_client"),
        )

    def __str__(self) -> str:
        return self.title


class CoachingMilestone(models.Model):
    """A step towards a goal."""

    class Status(models.TextChoices):
        """How it stands."""

        UPCOMING = "upcoming", "upcoming"
        COMPLETED = "completed", "completed"
        MISSED = "missed", "missed"

    goal = models.ForeignKey(CoachingGoal, on_delete=models.CASCADE, related_name="milestones")
    title = models.CharField(max_length=200)
    target_date = models.DateField(null=True, blank=True)
    status = models.CharField(max_length=16, choices=Status, default=Status.UPCOMING)

    class Meta:
        verbose_name = "milestone"
        ordering = ("target_date", "pk")

    def __str__(self) -> str:
        return self.title
