# SPDX-License-Identifier: GPL-3.0-or-later
"""`ask/`: a coach's question goes to her agent on her gateway, and the answer comes back as it is made."""

from __future__ import annotations

from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from claw_fleet.coachlist import conf, rules
from claw_fleet.coachlist.asking import Asking, gateway_of, whole_answer
from claw_fleet.coachlist.authentication import CoachPrincipal, IsCoach
from claw_fleet.coachlist.relay import Relay
from claw_fleet.coachlist.serializing import Problem, validated
from claw_fleet.coachlist.views_base import CoachView

QUESTION_MAX = 100_000


class AskThrottle(SimpleRateThrottle):
    """So many asks of one coach in a time. Processes share the count as far as they share Django's cache."""

    scope = "coachlist_ask"

    def get_rate(self) -> str | None:
        """The configured rate, read when it is needed."""
        return conf.ask_rate()

    def get_cache_key(self, request: Request, view: APIView) -> str | None:
        """One count a coach."""
        if not isinstance(request.user, CoachPrincipal):
            return None
        return f"coachlist-ask-{request.user.pk}"


class Question(serializers.Serializer[Any]):
    """A question."""

    input = serializers.CharField(max_length=QUESTION_MAX, trim_whitespace=False)
    session = serializers.CharField(
        required=False,
        allow_null=True,
        validators=[rules.validate_session_slug],
        help_text="Asks of one session continue one conversation; without it each stands alone.",
    )
    stream = serializers.BooleanField(
        default=True, help_text="true: server-sent events as they come; false: the whole answer as JSON."
    )


class Answer(serializers.Serializer[Any]):
    """The whole answer."""

    answer = serializers.CharField()


class GatewayProblem(Problem):
    """What is wrong between here and the gateway."""

    gateway = serializers.CharField()
    gateway_status = serializers.IntegerField(required=False, help_text="What the gateway answered.")


class Ask(CoachView):
    """Asking the coach's agent."""

    # Not CoachMayWrite: why a coach cannot be asked is said below, more exactly.
    permission_classes = (IsCoach,)
    throttle_classes = (AskThrottle,)

    @property
    def default_response_headers(self) -> dict[str, str]:
        """An answer is nobody's to keep."""
        return {**super().default_response_headers, "Cache-Control": "no-store"}

    @extend_schema(
        operation_id="ask_send",
        tags=["ask"],
        summary="Ask the coach's agent",
        description=(
            "With `stream` (the default) the answer is the gateway's OpenResponses event stream as it comes; "
            "comments fill long silences, and a failure on the way is an event `error`. "
            "Otherwise it is the whole answer."
        ),
        request=Question,
        responses={
            (200, "text/event-stream"): OpenApiTypes.STR,
            (200, "application/json"): Answer,
            400: Problem,
            409: OpenApiResponse(Problem, description="The coach is paused, or not active."),
            429: Problem,
            502: OpenApiResponse(GatewayProblem, description="The gateway is not reachable, or refused."),
        },
    )
    def post(self, request: Request) -> Response | StreamingHttpResponse:
        """Relay the question, and the answer."""
        question = validated(Question(data=request.data))
        coach = self.coach
        gateway = gateway_of(coach)
        asking = Asking(coach, gateway, question)
        upstream = asking.send()
        if not question["stream"]:
            try:
                return Response({"answer": whole_answer(upstream, gateway)})
            finally:
                asking.begun()
        try:
            relay = Relay(
                upstream,
                gateway=gateway.name,
                keepalive=conf.ask_keepalive(),
                again=asking.send_again,
                begun=asking.begun,
            )
        except BaseException:
            # Nobody else would end what is under way.
            upstream.close()
            asking.begun()
            raise
        response = StreamingHttpResponse(relay, content_type="text/event-stream")
        response.headers["X-Accel-Buffering"] = "no"  # nginx would collect it otherwise
        return response
