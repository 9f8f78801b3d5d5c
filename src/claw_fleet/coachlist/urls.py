# SPDX-License-Identifier: GPL-3.0-or-later
"""The paths of the API, to be included under a prefix such as api/companion/v1/."""

from __future__ import annotations

from django.urls import path, register_converter
from django.urls.converters import StringConverter
from drf_spectacular.views import SpectacularAPIView

from claw_fleet.coachlist import address, ask, companion, internal, schema, service_tokens
from claw_fleet.coachlist.authentication import IsService, ServiceTokenAuthentication


class AnyText(StringConverter):
    """Whatever a percent-encoded part of a path decodes to, slashes and line breaks included."""

    regex = r"[\s\S]+"


register_converter(AnyText, "coachlist_any")

app_name = "coachlist"

urlpatterns = [
    path("clients/", companion.Clients.as_view(), name="clients"),
    path("clients/search/", companion.ClientSearch.as_view(), name="client-search"),
    path("clients/<int:client_id>/", companion.ClientDetail.as_view(), name="client"),
    path("clients/<int:client_id>/sessions/", companion.ClientSessions.as_view(), name="client-sessions"),
    path("clients/<int:client_id>/goals/", companion.ClientGoals.as_view(), name="goals"),
    path("clients/<int:client_id>/goals/<int:goal_id>/", companion.GoalDetail.as_view(), name="goal"),
    path("sessions/upcoming/", companion.UpcomingSessions.as_view(), name="sessions-upcoming"),
    path("sessions/recent/", companion.RecentSessions.as_view(), name="sessions-recent"),
    path("sessions/<int:session_id>/", companion.SessionDetail.as_view(), name="session"),
    path("sessions/<int:session_id>/transcript/", companion.Transcript.as_view(), name="transcript"),
    path("profile/", companion.Profile.as_view(), name="profile"),
    path("ask/", ask.Ask.as_view(), name="ask"),
    path("internal/coaches/", internal.Coaches.as_view(), name="internal-coaches"),
    path("internal/coaches/<int:pk>/claim/", internal.Claim.as_view(), name="internal-claim"),
    path("internal/coaches/<int:pk>/status/", internal.CoachStatus.as_view(), name="internal-status"),
    path("internal/set-key/<coachlist_any:agent_id>/", internal.Key.as_view(), name="internal-key"),
    path("internal/gateways/", internal.Gateways.as_view(), name="internal-gateways"),
    path("internal/gateways/<str:name>/", internal.GatewayDetail.as_view(), name="internal-gateway"),
    path("internal/gateways/<str:name>/address/", address.Address.as_view(), name="internal-address"),
    path(
        "internal/service-tokens/<str:token_sha256>/",
        service_tokens.ServiceTokenDetail.as_view(),
        name="internal-service-token",
    ),
    path(
        "internal/schema/",
        SpectacularAPIView.as_view(
            custom_settings=schema.INTERNAL,
            authentication_classes=(ServiceTokenAuthentication,),
            permission_classes=(IsService,),
        ),
        name="internal-schema",
    ),
    path("schema/", SpectacularAPIView.as_view(custom_settings=schema.COACH), name="schema"),
]
