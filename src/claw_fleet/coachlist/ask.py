# SPDX-License-Identifier: GPL-3.0-or-later
"""`ask/`: a coach's question goes to her agent on her gateway, and the answer comes back as it is made."""

from __future__ import annotations

import contextlib
import functools
import logging
from typing import Any

import httpx
from django.db import DatabaseError, connection
from django.http import StreamingHttpResponse
from django.views.decorators.debug import sensitive_variables
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from claw_fleet.coachlist import conf, rules, turned_away
from claw_fleet.coachlist.authentication import CoachPrincipal, IsCoach
from claw_fleet.coachlist.errors import BadGateway, Conflict
from claw_fleet.coachlist.models import CompanionProfile, Gateway, Status, Wanted
from claw_fleet.coachlist.relay import Relay
from claw_fleet.coachlist.serializing import Problem, validated
from claw_fleet.coachlist.views_base import CoachView

logger = logging.getLogger(__name__)

QUESTION_MAX = 100_000
# As much of a gateway's own words as goes into a message.
WORDS_MAX = 300


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
        gateway = _gateway_of(coach)
        asking = _Asking(coach, gateway, question)
        upstream = asking.send()
        if not question["stream"]:
            return Response({"answer": _whole_answer(upstream, gateway)})
        response = StreamingHttpResponse(
            Relay(upstream, gateway=gateway.name, keepalive=conf.ask_keepalive(), again=asking.send_again),
            content_type="text/event-stream",
        )
        response.headers["X-Accel-Buffering"] = "no"  # nginx would collect it otherwise
        return response


def session_key(coach: CompanionProfile, session: str) -> str:
    """The gateway's key of a coach's session.

    It is in the gateway's own form, bound to the agent; a bare key would be looked up as it stands, whoever's
    it is. The row's primary key keeps a coach who gets a former agent id out of the former coach's
    conversations.
    """
    return f"agent:{coach.agent_id}:coach-{coach.pk}-{session}"


def _gateway_of(coach: CompanionProfile) -> Gateway:
    """The gateway that serves the coach now; otherwise a 409 or 502 that says what to do."""
    if coach.wanted == Wanted.PAUSED:
        raise Conflict("This coach is paused. Resume her in the admin first.", "paused")
    if coach.status != Status.ACTIVE or coach.gateway is None:
        raise Conflict(
            f"This coach's agent is not active yet: its status is {coach.status}. "
            "Wait for the next run of the fleet, or look at the reason in the admin.",
            "not_active",
        )
    if not rules.AGENT_ID.fullmatch(coach.agent_id) or coach.agent_id in rules.RESERVED_AGENT_IDS:
        # Such a row was imported. The gateway would answer some of these with another agent.
        raise Conflict("This coach's agent id is not a valid one, so no agent can be asked.", "agent_id")
    if not coach.gateway.url:
        raise BadGateway(
            f"The gateway “{coach.gateway.name}” has no address yet. Run the play that sets it.",
            "gateway_no_address",
            gateway=coach.gateway.name,
        )
    return coach.gateway


@functools.cache
def _client() -> httpx.Client:
    """One pool of connections a process. Threads bound how many are open, so the pool does not."""
    return httpx.Client(
        follow_redirects=False,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=30),
    )


class _Asking:
    """One question on its way to the coach's gateway, with each of the gateway's tokens once at most."""

    def __init__(self, coach: CompanionProfile, gateway: Gateway, question: dict[str, Any]) -> None:
        self._coach = coach
        self._gateway = gateway
        self._question = question
        self._tried: set[str] = set()

    @sensitive_variables()
    def send(self) -> httpx.Response:
        """The gateway's answer, its headers read and its body not; otherwise a 502."""
        gateway = self._gateway
        tokens = gateway.tokens()
        if not tokens:
            if gateway.token_encrypted:
                logger.error("COACHLIST_ENCRYPTION_KEYS cannot decrypt the token of gateway %s", gateway.name)
            raise BadGateway(
                f"No usable token of the gateway “{gateway.name}” is stored. "
                "Run the play that registers the gateway.",
                "gateway_no_token",
                gateway=gateway.name,
            )
        while True:
            token = next(token for token in tokens if token not in self._tried)
            self._tried.add(token)
            upstream = _send_with(token, self._coach, gateway, self._question)
            if not _is_turned_away(upstream):
                break
            # It has done nothing, or told nothing. Its token may be changing at this moment: see what is known now.
            gateway.refresh_from_db()
            tokens = gateway.tokens()
            if self._tried.issuperset(tokens):
                break
            upstream.close()
        kind = upstream.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        expected = "text/event-stream" if self._question["stream"] else "application/json"
        if upstream.status_code != httpx.codes.OK or kind != expected:
            raise _refusal(gateway, upstream)
        gateway.accepted(token)
        return upstream

    def send_again(self) -> httpx.Response | None:
        """As `send`, where the gateway turned the ask away when it had begun to answer; None where that is no use."""
        try:
            self._gateway.refresh_from_db()
            if self._tried.issuperset(self._gateway.tokens()):
                return None
            return self.send()
        except (BadGateway, DatabaseError) as exc:
            logger.warning("gateway %s cannot be asked again: %s", self._gateway.name, exc)
            return None
        finally:
            # This thread is not one that Django tidies up after.
            connection.close()


def _is_turned_away(upstream: httpx.Response) -> bool:
    """Whether the gateway did nothing because of the token, or may have."""
    if upstream.status_code == httpx.codes.UNAUTHORIZED:
        return True
    if upstream.status_code not in (httpx.codes.FORBIDDEN, httpx.codes.INTERNAL_SERVER_ERROR):
        return False
    with contextlib.suppress(httpx.HTTPError):
        return turned_away.says_so(upstream.read())
    return False


@sensitive_variables()
def _send_with(
    token: str, coach: CompanionProfile, gateway: Gateway, question: dict[str, Any]
) -> httpx.Response:
    stream = question["stream"]
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "text/event-stream" if stream else "application/json",
        "Accept-Encoding": "identity",  # a compressed stream would arrive in lumps
        "x-openclaw-agent-id": coach.agent_id,
    }
    if question.get("session"):
        headers["x-openclaw-session-key"] = session_key(coach, question["session"])
    request = _client().build_request(
        "POST",
        f"{gateway.url.rstrip('/')}/v1/responses",
        headers=headers,
        json={"model": "openclaw", "input": question["input"], "stream": stream},
        timeout=httpx.Timeout(
            conf.ask_connect_timeout(), read=conf.ask_read_timeout(), connect=conf.ask_connect_timeout()
        ),
    )
    try:
        return _client().send(request, stream=True)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise _unreachable(gateway, exc) from exc


def _unreachable(gateway: Gateway, exc: Exception) -> BadGateway:
    silent = isinstance(exc, (httpx.ReadTimeout, httpx.WriteTimeout))
    logger.warning("gateway %s cannot be asked: %s: %s", gateway.name, type(exc).__name__, exc)
    return BadGateway(
        f"The gateway “{gateway.name}” {'does not answer' if silent else 'cannot be reached'}. Ask again; "
        "if it stays so, look whether the gateway runs and whether its address is still right.",
        "gateway_silent" if silent else "gateway_unreachable",
        gateway=gateway.name,
    )


def _refusal(gateway: Gateway, upstream: httpx.Response) -> BadGateway:
    """What the gateway says, with what to do about the cases an operator meets."""
    try:
        upstream.read()
        words = str(upstream.json()["error"]["message"])[:WORDS_MAX]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        words = ""
    finally:
        upstream.close()
    code = upstream.status_code
    advice = {
        200: "It did not send what was asked for. Is the address really the gateway's?",
        400: "If it does not know the agent, run the play that provisions coaches.",
        401: "The stored token is not the gateway's any more. Run the play that registers the gateway.",
        403: "A proxy in front of it refused. Is the address really the gateway's?",
        404: "Either its endpoint for responses is off, or the address is not the gateway's.",
        429: "It is busy. Ask again later.",
        503: "It is starting or stopping. Ask again.",
    }.get(code, "Its log says more.")
    logger.warning("gateway %s refused: %s %s", gateway.name, code, words)
    said = f": {words.rstrip('.')}" if words else ""
    return BadGateway(
        f"The gateway “{gateway.name}” refused with status {code}{said}. {advice}",
        "gateway_refused",
        gateway=gateway.name,
        gateway_status=code,
    )


def _whole_answer(upstream: httpx.Response, gateway: Gateway) -> str:
    """The text of an OpenResponses answer; otherwise a 502."""
    try:
        upstream.read()
        answer = upstream.json()
    except httpx.HTTPError as exc:
        raise _unreachable(gateway, exc) from exc
    except ValueError:
        answer = None
    finally:
        upstream.close()
    if not isinstance(answer, dict) or answer.get("status") == "failed":
        error = answer.get("error") if isinstance(answer, dict) else None
        words = str(error.get("message", ""))[:WORDS_MAX] if isinstance(error, dict) else ""
        raise BadGateway(
            f"The agent could not answer{': ' + words if words else ''}. "
            "Ask again; the gateway's log says more.",
            "agent_failed",
            gateway=gateway.name,
        )
    return "".join(
        part["text"]
        for item in answer.get("output") or []
        if item.get("type") == "message"
        for part in item.get("content") or []
        if part.get("type") == "output_text"
    )
