# SPDX-License-Identifier: GPL-3.0-or-later
"""The internal API: the fleet reads the coach list, claims coaches, and writes back what became of them."""

from __future__ import annotations

import re
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.http import parse_etags
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response

from claw_fleet.coachlist import fleet, rules
from claw_fleet.coachlist.models import CompanionProfile, Gateway, Status
from claw_fleet.coachlist.models.fleet import ROW_FIELDS, CompanionQuerySet
from claw_fleet.coachlist.serializing import Problem, validated
from claw_fleet.coachlist.views_base import InternalView

TAGS = ["internal"]
GENERATION_MAX = 2**63 - 1
FORMER_SECONDS_MAX = 300


class CoachRow(serializers.ModelSerializer[CompanionProfile]):
    """A row of the coach list, exactly as it is stored: imports may hold what no form would take."""

    vars = serializers.SerializerMethodField()
    gateway = serializers.CharField(source="gateway_id", allow_null=True, read_only=True)

    class Meta:
        model = CompanionProfile
        fields = ROW_FIELDS
        read_only_fields = ROW_FIELDS

    @extend_schema_field({"type": "object", "additionalProperties": {}})
    def get_vars(self, coach: CompanionProfile) -> Any:
        """The template variables as they are."""
        return coach.vars


class CoachFilter(serializers.Serializer[Any]):
    """The query of the coach list."""

    gateway = serializers.CharField(
        required=False, allow_blank=True, help_text="Only coaches this gateway holds; `none`: held by nobody."
    )
    status = serializers.ChoiceField(Status.choices, required=False, allow_blank=True)


class Claimant(serializers.Serializer[Any]):
    """Who claims."""

    gateway = serializers.CharField(max_length=255)


class Outcome(serializers.Serializer[Any]):
    """What became of a coach."""

    gateway = serializers.CharField(
        max_length=255,
        required=False,
        allow_null=True,
        help_text="Who says so; null if nobody holds the coach.",
    )
    status = serializers.ChoiceField(Status.choices)
    observed_generation = serializers.IntegerField(min_value=0, max_value=GENERATION_MAX, required=False)
    reason = serializers.CharField(
        required=False,
        allow_blank=True,
        default="",
        help_text=f"Why, in a sentence; required with status error. {fleet.REASON_MAX} characters are kept.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """An error without a reason helps nobody."""
        if attrs["status"] == Status.ERROR and not attrs["reason"]:
            raise serializers.ValidationError({"reason": "Say in a sentence what went wrong."})
        return attrs


class KeyHash(serializers.Serializer[Any]):
    """A key's hash. The key itself never travels here."""

    key_id = serializers.CharField(max_length=255)
    key_sha256 = serializers.CharField(validators=[rules.validate_sha256])
    key_generation = serializers.IntegerField(min_value=0, max_value=GENERATION_MAX)
    former_seconds = serializers.IntegerField(
        min_value=0,
        max_value=FORMER_SECONDS_MAX,
        default=0,
        help_text="How many seconds more the key before is good; told again of the same key, it can only be less.",
    )


class Changed(serializers.Serializer[Any]):
    """Whether anything changed."""

    changed = serializers.BooleanField()


class GatewayChange(serializers.Serializer[Any]):
    """What is told of a gateway; what is left out stays as it is."""

    url = serializers.CharField(
        max_length=500,
        required=False,
        allow_blank=True,
        help_text="http(s)://host[:port][/path], to which /v1/responses is appended; empty: not reachable.",
    )
    token = serializers.CharField(
        required=False,
        write_only=True,
        trim_whitespace=False,
        validators=[rules.validate_gateway_token],
        help_text="The token that is in force. What was announced before is forgotten.",
    )
    next_token = serializers.CharField(
        required=False,
        write_only=True,
        trim_whitespace=False,
        validators=[rules.validate_gateway_token],
        help_text="A token that will be in force soon. It is tried where the gateway refuses the other.",
    )
    capacity = serializers.IntegerField(min_value=0, max_value=100_000, required=False)

    def validate_url(self, value: str) -> str:
        """The address without a slash at its end."""
        return rules.tidy_gateway_url(value) if value else ""

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One token at a time."""
        if "token" in attrs and "next_token" in attrs:
            raise serializers.ValidationError({"next_token": "Send either the token or the next one."})
        return attrs


class GatewayRow(serializers.ModelSerializer[Gateway]):
    """A gateway. Its token is never given out, only the hash to compare with."""

    used = serializers.IntegerField(read_only=True, help_text="How many coaches it holds.")

    class Meta:
        model = Gateway
        fields = ("name", "url", "capacity", "used", "token_sha256", "next_token_sha256")


class GatewayPut(serializers.ModelSerializer[Gateway]):
    """A gateway, and whether this request changed it."""

    changed = serializers.BooleanField(read_only=True)

    class Meta:
        model = Gateway
        fields = ("name", "url", "capacity", "token_sha256", "next_token_sha256", "changed")


class ClaimProblem(Problem):
    """Why not, and who holds the coach (null: nobody, the gateway is full)."""

    gateway = serializers.CharField(allow_null=True)


class CoachCursor(CursorPagination):
    """Pages by primary key, so a row that comes or goes moves no other across a page's edge."""

    ordering = "pk"
    page_size = 500
    page_size_query_param = "page_size"
    max_page_size = 1000

    def decode_cursor(self, request: Request) -> Cursor | None:
        """A cursor that was damaged on the way must not begin the list anew."""
        cursor = super().decode_cursor(request)
        if cursor is not None and not re.fullmatch(r"[0-9]{1,18}", str(cursor.position)):
            raise NotFound("This cursor is not valid. Read the list again from its first page.")
        return cursor


def _unchanged(request: Request, etag: str) -> bool:
    """Whether the caller has the list already. Weak comparison: a proxy that compresses weakens the tag."""
    known = parse_etags(request.headers.get("If-None-Match", ""))
    return "*" in known or etag in {tag.removeprefix("W/") for tag in known}


class Coaches(InternalView):
    """The coach list."""

    @extend_schema(
        operation_id="internal_coaches_list",
        tags=TAGS,
        summary="The coach list, page by page",
        description=(
            "The ETag stands for the whole filtered list and is the same on every page while nothing visible "
            "changes: if it differs between two pages, read again from the first. "
            "If-None-Match is honoured on the first page."
        ),
        parameters=[
            CoachFilter,
            OpenApiParameter("cursor", str, description="From `next`."),
            OpenApiParameter("page_size", int, description="1 to 1000, default 500."),
            OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER),
            OpenApiParameter("ETag", str, OpenApiParameter.HEADER, response=[200, 304]),
        ],
        responses={
            200: CoachCursor().get_paginated_response_schema({"$ref": "#/components/schemas/CoachRow"}),
            304: OpenApiResponse(description="You have this list."),
            400: Problem,
        },
    )
    def get(self, request: Request) -> Response:
        """A page of coaches in the order of their primary keys."""
        query = validated(CoachFilter(data=request.query_params))
        coaches: CompanionQuerySet = CompanionProfile.objects.all()
        if query.get("status"):
            coaches = coaches.filter(status=query["status"])
        if query.get("gateway") == "none":
            coaches = coaches.filter(gateway=None)
        elif query.get("gateway"):
            coaches = coaches.filter(gateway=query["gateway"])
        # Before the rows are read: a change in between gives new rows an old tag, and they are read again.
        # The other way round it would hide the change.
        etag = coaches.etag()
        if "cursor" not in request.query_params and _unchanged(request, etag):
            return Response(status=304, headers={"ETag": etag})
        pages = CoachCursor()
        page = pages.paginate_queryset(coaches, request, view=self)
        response = pages.get_paginated_response(CoachRow(page, many=True).data)
        response["ETag"] = etag
        return response


class Claim(InternalView):
    """A coach's place."""

    @extend_schema(
        operation_id="internal_coach_claim",
        tags=TAGS,
        summary="Place a coach on a gateway",
        request=Claimant,
        responses={200: CoachRow, 400: Problem, 404: Problem, 409: ClaimProblem},
    )
    def post(self, request: Request, pk: int) -> Response:
        """Claim; done again by the holder it changes nothing."""
        body = validated(Claimant(data=request.data))
        return Response(CoachRow(fleet.claim(pk, body["gateway"])).data)


class CoachStatus(InternalView):
    """A coach's status."""

    @extend_schema(
        operation_id="internal_coach_status",
        tags=TAGS,
        summary="Report what became of a coach",
        request=Outcome,
        responses={200: CoachRow, 400: Problem, 404: Problem, 409: ClaimProblem},
    )
    def patch(self, request: Request, pk: int) -> Response:
        """Write the fleet's columns; `removed` also releases the claim."""
        body = validated(Outcome(data=request.data))
        coach = fleet.report(
            pk,
            gateway=body.get("gateway"),
            status=body["status"],
            observed_generation=body.get("observed_generation"),
            reason=body["reason"],
        )
        return Response(CoachRow(coach).data)


class Key(InternalView):
    """A coach's key, by its hash."""

    @extend_schema(
        operation_id="internal_key_set",
        tags=TAGS,
        summary="Register the hash of a coach's key",
        request=KeyHash,
        responses={200: Changed, 400: Problem, 404: Problem, 409: Problem},
    )
    def post(self, request: Request, agent_id: str) -> Response:
        """Register; done again it changes nothing."""
        body = validated(KeyHash(data=request.data))
        return Response({"changed": fleet.set_key(_agent_id(agent_id), **body)})

    @extend_schema(
        operation_id="internal_key_revoke",
        tags=TAGS,
        summary="Revoke a coach's key",
        request=None,
        responses={200: Changed, 404: Problem},
    )
    def delete(self, request: Request, agent_id: str) -> Response:
        """Revoke; done again it changes nothing."""
        return Response({"changed": fleet.revoke_key(_agent_id(agent_id))})


def _agent_id(value: str) -> str:
    """An agent id from a path. PostgreSQL cannot even be asked for one with a NUL in it."""
    if "\x00" in value:
        raise NotFound("There is no such coach.")
    return value


class Gateways(InternalView):
    """All gateways."""

    @extend_schema(
        operation_id="internal_gateways_list",
        tags=TAGS,
        summary="All gateways",
        responses={200: GatewayRow(many=True)},
    )
    def get(self, request: Request) -> Response:
        """All gateways, by name."""
        return Response(GatewayRow(Gateway.objects.with_used(), many=True).data)


class GatewayDetail(InternalView):
    """One gateway."""

    @extend_schema(
        operation_id="internal_gateway_show",
        tags=TAGS,
        summary="One gateway",
        responses={200: GatewayRow, 404: Problem},
    )
    def get(self, request: Request, name: str) -> Response:
        """One gateway."""
        return Response(GatewayRow(fleet.known_gateway(name, Gateway.objects.with_used())).data)

    @extend_schema(
        operation_id="internal_gateway_put",
        tags=TAGS,
        summary="Register a gateway, or change it",
        request=GatewayChange,
        responses={200: GatewayPut, 400: Problem},
    )
    def put(self, request: Request, name: str) -> Response:
        """Write what is given; what is left out stays as it is."""
        try:
            rules.validate_gateway_name(name)
        except ValidationError as exc:
            raise serializers.ValidationError({"name": exc.messages}) from None
        body = validated(GatewayChange(data=request.data))
        gateway, changed = fleet.put_gateway(name, fleet.GatewayValues(**body))
        shown = {field: getattr(gateway, field) for field in GatewayPut.Meta.fields if field != "changed"}
        return Response({**shown, "changed": changed})
