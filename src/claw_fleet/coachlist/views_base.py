# SPDX-License-Identifier: GPL-3.0-or-later
"""What all views of the API share.

All of it is set here, so that of a host project's REST_FRAMEWORK only DEFAULT_SCHEMA_CLASS matters:
drf-spectacular takes it from nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.permissions import BasePermission
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from claw_fleet.coachlist.authentication import (
    CoachMayWrite,
    CoachPrincipal,
    CompanionAPIKeyAuthentication,
    IsCoach,
    IsService,
    ServiceTokenAuthentication,
)
from claw_fleet.coachlist.errors import exception_handler
from claw_fleet.coachlist.models import CompanionProfile


class OnlyJSON(BaseContentNegotiation):
    """Answers in JSON whatever Accept says, so that a client of event streams can read its errors."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        """The JSON parser, whatever Content-Type says."""
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """The JSON renderer."""
        renderer = next(iter(renderers))
        return renderer, renderer.media_type or "application/json"


class ApiView(APIView):
    """JSON in, JSON out, errors as `errors.py` shapes them."""

    parser_classes = (JSONParser,)
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = OnlyJSON
    throttle_classes: Sequence[type[BaseThrottle]] = ()

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        """The one shape of errors."""
        return exception_handler

    @property
    def default_response_headers(self) -> dict[str, str]:
        """Keep what is private out of shared caches."""
        return {"Cache-Control": "private, no-cache", **super().default_response_headers}


class InternalView(ApiView):
    """For the fleet, with a service token."""

    authentication_classes = (ServiceTokenAuthentication,)
    permission_classes: Sequence[type[BasePermission]] = (IsService,)


class CoachView(ApiView):
    """For a coach's agent, with the coach's key."""

    authentication_classes: Sequence[type[BaseAuthentication]] = (CompanionAPIKeyAuthentication,)
    permission_classes: Sequence[type[BasePermission]] = (IsCoach, CoachMayWrite)

    @property
    def coach(self) -> CompanionProfile:
        """The coach whose key it is; every query of these views begins here."""
        principal = self.request.user
        assert isinstance(principal, CoachPrincipal)
        return principal.coach
