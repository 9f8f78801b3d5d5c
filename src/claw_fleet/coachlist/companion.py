# SPDX-License-Identifier: GPL-3.0-or-later
"""The companion API: a coach's agent reads and changes that coach's data with the coach's key.

Every query begins at the coach whose key it is, so another coach's client is simply not there: 404.
"""

from __future__ import annotations

import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.text import slugify
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from claw_fleet.coachlist import people, rules
from claw_fleet.coachlist.errors import Conflict, Forbidden
from claw_fleet.coachlist.models import (
    CoachingClient,
    CoachingGoal,
    CoachingMilestone,
    CoachingSession,
    CompanionProfile,
)
from claw_fleet.coachlist.serializing import Problem, validated
from claw_fleet.coachlist.views_base import CoachView

UPCOMING = datetime.timedelta(days=7)
_NOT_FOUND: dict[int, Any] = {404: Problem}


class MilestoneData(serializers.ModelSerializer[CoachingMilestone]):
    """A step towards a goal."""

    class Meta:
        model = CoachingMilestone
        fields = ("id", "title", "target_date", "status")


class GoalData(serializers.ModelSerializer[CoachingGoal]):
    """A goal with its milestones."""

    milestones = MilestoneData(many=True, read_only=True)

    class Meta:
        model = CoachingGoal
        fields = ("id", "slug", "title", "status", "milestones")


class GoalCreate(serializers.ModelSerializer[CoachingGoal]):
    """A new goal. Without a slug one is made from the title."""

    slug = serializers.SlugField(max_length=80, required=False)

    class Meta:
        model = CoachingGoal
        fields = ("title", "status", "slug")


class GoalUpdate(serializers.ModelSerializer[CoachingGoal]):
    """What can change of a goal."""

    class Meta:
        model = CoachingGoal
        fields = ("title", "status")


class ClientSummary(serializers.ModelSerializer[CoachingClient]):
    """A client in a list."""

    class Meta:
        model = CoachingClient
        fields = ("id", "name", "email")


class ClientData(serializers.ModelSerializer[CoachingClient]):
    """A client with goals and milestones."""

    goals = GoalData(many=True, read_only=True)

    class Meta:
        model = CoachingClient
        fields = ("id", "name", "email", "total_sessions", "has_consented", "goals")


class SessionData(serializers.ModelSerializer[CoachingSession]):
    """A session, without its transcript."""

    client = ClientSummary(read_only=True)
    transcript_available = serializers.SerializerMethodField(
        help_text="Whether there is a transcript and the client agreed that it is read."
    )

    class Meta:
        model = CoachingSession
        fields = ("id", "client", "title", "date", "session_type", "transcript_available")

    def get_transcript_available(self, session: CoachingSession) -> bool:
        """Whether there is one to read."""
        return session.client.has_consented and bool(session.transcript)


class ProfileData(serializers.ModelSerializer[CompanionProfile]):
    """The coach's own profile."""

    class Meta:
        model = CompanionProfile
        fields = ("agent_id", "name", "wanted", "status")
        read_only_fields = ("agent_id", "wanted", "status")


class ProfileUpdate(serializers.Serializer[Any]):
    """What the coach's agent may change of the profile."""

    name = serializers.CharField(required=False, trim_whitespace=False, validators=[rules.validate_name])


class SearchQuery(serializers.Serializer[Any]):
    """The query of a search."""

    q = serializers.CharField(max_length=200, help_text="A part of the name, in any case.")


class RecentQuery(serializers.Serializer[Any]):
    """How many."""

    limit = serializers.IntegerField(min_value=1, max_value=100, default=10)


class _ClientView(CoachView):
    def clients(self) -> QuerySet[CoachingClient]:
        """The coach's clients."""
        return CoachingClient.objects.filter(coach=self.coach)

    def client(self, client_id: int) -> CoachingClient:
        """One of them, or 404."""
        return get_object_or_404(self.clients(), pk=client_id)

    def goals(self, client_id: int) -> QuerySet[CoachingGoal]:
        """The goals of one of them."""
        return self.client(client_id).goals.prefetch_related("milestones")

    def sessions(self) -> QuerySet[CoachingSession]:
        """The sessions of all of them."""
        return CoachingSession.objects.filter(client__coach=self.coach).select_related("client")


class Clients(_ClientView):
    """All clients."""

    @extend_schema(
        operation_id="clients_list",
        tags=["clients"],
        summary="All clients",
        responses={200: ClientSummary(many=True)},
    )
    def get(self, request: Request) -> Response:
        """Id, name and email of each."""
        return Response(ClientSummary(self.clients(), many=True).data)


class ClientSearch(_ClientView):
    """Clients by name."""

    @extend_schema(
        operation_id="clients_search",
        tags=["clients"],
        summary="Clients by a part of their name",
        parameters=[SearchQuery],
        responses={200: ClientSummary(many=True), 400: Problem},
    )
    def get(self, request: Request) -> Response:
        """Those whose name contains the words."""
        query = validated(SearchQuery(data=request.query_params))
        return Response(ClientSummary(self.clients().filter(name__icontains=query["q"]), many=True).data)


class ClientDetail(_ClientView):
    """One client."""

    @extend_schema(
        operation_id="clients_show",
        tags=["clients"],
        summary="A client with goals and milestones",
        responses={200: ClientData, **_NOT_FOUND},
    )
    def get(self, request: Request, client_id: int) -> Response:
        """One client with goals and milestones."""
        clients = self.clients().prefetch_related("goals__milestones")
        return Response(ClientData(get_object_or_404(clients, pk=client_id)).data)


class ClientSessions(_ClientView):
    """A client's sessions."""

    @extend_schema(
        operation_id="sessions_list",
        tags=["sessions"],
        summary="All sessions of a client, newest first",
        responses={200: SessionData(many=True), **_NOT_FOUND},
    )
    def get(self, request: Request, client_id: int) -> Response:
        """All of them, newest first."""
        return Response(SessionData(self.sessions().filter(client=self.client(client_id)), many=True).data)


class ClientGoals(_ClientView):
    """A client's goals."""

    @extend_schema(
        operation_id="goals_list",
        tags=["goals"],
        summary="A client's goals",
        responses={200: GoalData(many=True), **_NOT_FOUND},
    )
    def get(self, request: Request, client_id: int) -> Response:
        """All of them, oldest first."""
        return Response(GoalData(self.goals(client_id), many=True).data)

    @extend_schema(
        operation_id="goals_create",
        tags=["goals"],
        summary="A new goal for a client",
        request=GoalCreate,
        responses={201: GoalData, 400: Problem, 404: Problem, 409: Problem},
    )
    def post(self, request: Request, client_id: int) -> Response:
        """Create one; 409 when the client has a goal of that slug."""
        client = self.client(client_id)
        values = validated(GoalCreate(data=request.data))
        slug = values.pop("slug", "") or _free_slug(client, values["title"])
        try:
            with transaction.atomic():
                goal = client.goals.create(slug=slug, **values)
        except IntegrityError:
            raise Conflict(
                f"This client has a goal “{slug}” already. Change that one, or choose another slug.",
                "goal_exists",
            ) from None
        return Response(GoalData(goal).data, status=201)


class GoalDetail(_ClientView):
    """One goal."""

    @extend_schema(
        operation_id="goals_update",
        tags=["goals"],
        summary="Change a goal's title or status",
        request=GoalUpdate,
        responses={200: GoalData, 400: Problem, 404: Problem},
    )
    def patch(self, request: Request, client_id: int, goal_id: int) -> Response:
        """Change what is given."""
        goal = get_object_or_404(self.goals(client_id), pk=goal_id)
        values = validated(GoalUpdate(data=request.data, partial=True))
        for field, value in values.items():
            setattr(goal, field, value)
        if values:
            goal.save(update_fields=list(values))
        return Response(GoalData(goal).data)

    @extend_schema(
        operation_id="goals_delete",
        tags=["goals"],
        summary="Delete a goal and its milestones",
        responses={204: None, **_NOT_FOUND},
    )
    def delete(self, request: Request, client_id: int, goal_id: int) -> Response:
        """Delete it."""
        get_object_or_404(self.goals(client_id), pk=goal_id).delete()
        return Response(status=204)


def _free_slug(client: CoachingClient, title: str) -> str:
    """A slug from a title that none of the client's goals has."""
    base = slugify(title)[:70] or "goal"
    taken = set(client.goals.filter(slug__startswith=base).values_list("slug", flat=True))
    number, slug = 1, base
    while slug in taken:
        number += 1
        slug = f"{base}-{number}"
    return slug


class UpcomingSessions(_ClientView):
    """What comes."""

    @extend_schema(
        operation_id="sessions_upcoming",
        tags=["sessions"],
        summary="Sessions of the next 7 days, soonest first",
        responses={200: SessionData(many=True)},
    )
    def get(self, request: Request) -> Response:
        """From now to a week from now."""
        now = timezone.now()
        sessions = self.sessions().filter(date__gte=now, date__lt=now + UPCOMING).order_by("date", "pk")
        return Response(SessionData(sessions, many=True).data)


class RecentSessions(_ClientView):
    """What was."""

    @extend_schema(
        operation_id="sessions_recent",
        tags=["sessions"],
        summary="The last sessions, newest first",
        parameters=[RecentQuery],
        responses={200: SessionData(many=True), 400: Problem},
    )
    def get(self, request: Request) -> Response:
        """The last `limit` that have begun."""
        limit = validated(RecentQuery(data=request.query_params))["limit"]
        return Response(SessionData(self.sessions().filter(date__lt=timezone.now())[:limit], many=True).data)


class SessionDetail(_ClientView):
    """One session."""

    @extend_schema(
        operation_id="sessions_show",
        tags=["sessions"],
        summary="A session",
        responses={200: SessionData, **_NOT_FOUND},
    )
    def get(self, request: Request, session_id: int) -> Response:
        """One session, without its transcript."""
        return Response(SessionData(get_object_or_404(self.sessions(), pk=session_id)).data)


class Transcript(_ClientView):
    """What was said."""

    @extend_schema(
        operation_id="sessions_transcript",
        tags=["sessions"],
        summary="A session's transcript as plain text",
        responses={
            (200, "text/plain"): OpenApiTypes.STR,
            403: OpenApiResponse(Problem, description="The client has not agreed."),
            **_NOT_FOUND,
        },
    )
    def get(self, request: Request, session_id: int) -> HttpResponse:
        """The text; 403 unless the client agreed, 404 when there is none."""
        session = get_object_or_404(self.sessions(), pk=session_id)
        if not session.client.has_consented:
            raise Forbidden(
                "This client has not agreed that an agent reads transcripts. "
                "Ask the coach to obtain consent first.",
                "no_consent",
            )
        if not session.transcript:
            raise NotFound("This session has no transcript.")
        return HttpResponse(session.transcript, content_type="text/plain; charset=utf-8")


class Profile(CoachView):
    """The coach's own profile."""

    @extend_schema(
        operation_id="profile_show",
        tags=["profile"],
        summary="The coach's profile",
        responses={200: ProfileData},
    )
    def get(self, request: Request) -> Response:
        """The profile."""
        return Response(ProfileData(self.coach).data)

    @extend_schema(
        operation_id="profile_update",
        tags=["profile"],
        summary="Change the coach's name",
        description="A change of the name makes the coach due: the fleet renders it into the agent's files.",
        request=ProfileUpdate,
        responses={200: ProfileData, 400: Problem, 409: Problem},
    )
    def patch(self, request: Request) -> Response:
        """Change what is given and differs."""
        values = validated(ProfileUpdate(data=request.data))
        coach = self.coach
        people.edit(coach.pk, **{key: value for key, value in values.items() if getattr(coach, key) != value})
        coach.refresh_from_db()
        return Response(ProfileData(coach).data)
