"""The project's own paths, and the weather; and a client in a list tells how she is called."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from claw_fleet.coachlist import companion, schema
from claw_fleet.coachlist.views_base import CoachView
from claw_fleet.coachlist_project.urls import urlpatterns as known

API = "api/companion/v1"

companion.ClientSummary._declared_fields["known_as"] = serializers.CharField(source="name", read_only=True)
companion.ClientSummary.Meta.fields = (*companion.ClientSummary.Meta.fields, "known_as")  # type: ignore[assignment]


class WeatherData(serializers.Serializer[Any]):
    """How it is outside."""

    sky = serializers.CharField()


class Weather(CoachView):
    """The weather where the coach is."""

    @extend_schema(
        operation_id="weather_show", tags=["weather"], summary="The weather", responses={200: WeatherData}
    )
    def get(self, request: Request) -> Response:
        """Always the same."""
        return Response({"sky": f"clear above {self.coach.agent_id}"})


def coachs(endpoints: list[Any], **_more: Any) -> list[Any]:
    """drf-spectacular preprocessing hook: what a coach's key opens, and that is the weather too."""
    theirs = [endpoint for endpoint in endpoints if endpoint[0].endswith("/weather/")]
    return [*schema.only_coach(endpoints), *theirs]


urlpatterns = [
    path(f"{API}/weather/", Weather.as_view()),
    path(
        f"{API}/schema/",
        SpectacularAPIView.as_view(
            custom_settings={**schema.COACH, "PREPROCESSING_HOOKS": [f"{__name__}.coachs"]}
        ),
    ),
    *known,
]
