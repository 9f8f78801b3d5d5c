# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's own tokens, by their hashes: whoever presents a good one registers another, and revokes one.

Those of COACHLIST_SERVICE_TOKENS are the operator's: they are known here and can only be taken out of there.
One that is registered for some gateways may do nothing but tell these gateways' addresses (`address.py`).
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from claw_fleet.coachlist import rules
from claw_fleet.coachlist.authentication import ServicePrincipal, is_configured
from claw_fleet.coachlist.errors import Conflict
from claw_fleet.coachlist.internal import TAGS, Changed
from claw_fleet.coachlist.models import ServiceToken
from claw_fleet.coachlist.serializing import Problem, validated
from claw_fleet.coachlist.views_base import InternalView


class NewServiceToken(serializers.Serializer[Any]):
    """A token to register. The token itself never travels here."""

    name = serializers.CharField(max_length=100, help_text="Who will present it.")
    gateways = serializers.ListField(
        child=serializers.CharField(validators=[rules.validate_gateway_name]),
        required=False,
        help_text="The gateways whose addresses it may tell, and nothing else; empty: it may do everything. "
        "Left out, a token that is registered keeps what it has.",
    )

    def validate_gateways(self, value: list[str]) -> list[str]:
        """Each once, in the order of their names."""
        return sorted(set(value))


class ServiceTokenRow(serializers.Serializer[Any]):
    """A token that is good."""

    token_sha256 = serializers.CharField()
    name = serializers.CharField(help_text="Empty for one of COACHLIST_SERVICE_TOKENS.")
    configured = serializers.BooleanField(help_text="Whether it is one of COACHLIST_SERVICE_TOKENS.")
    presented = serializers.BooleanField(help_text="Whether it is the one of this request.")
    gateways = serializers.ListField(
        child=serializers.CharField(), help_text="The gateways it is for; empty: it may do everything."
    )


class ServiceTokenDetail(InternalView):
    """One service token."""

    @extend_schema(
        operation_id="internal_service_token_show",
        tags=TAGS,
        summary="Whether a service token is good",
        responses={200: ServiceTokenRow, 400: Problem, 404: Problem},
    )
    def get(self, request: Request, token_sha256: str) -> Response:
        """A token that is good; 404 for one that is unknown or revoked."""
        configured = is_configured(_checked(token_sha256))
        row = ServiceToken.objects.filter(token_sha256=token_sha256, revoked_at=None).first()
        if row is None and not configured:
            raise NotFound("There is no such service token, or it is revoked.")
        shown = {
            "token_sha256": token_sha256,
            "name": row.name if row else "",
            "configured": configured,
            "presented": token_sha256 == _presented(request),
            "gateways": row.gateways if row and not configured else [],
        }
        return Response(ServiceTokenRow(shown).data)

    @extend_schema(
        operation_id="internal_service_token_register",
        tags=TAGS,
        summary="Register the hash of a new service token",
        request=NewServiceToken,
        responses={200: Changed, 400: Problem, 409: Problem},
    )
    def put(self, request: Request, token_sha256: str) -> Response:
        """Register, or change what it is for; done again it changes nothing. A revoked one does not come back."""
        body = validated(NewServiceToken(data=request.data))
        if body.get("gateways"):
            _refuse_scope(_checked(token_sha256), request)
        with transaction.atomic():
            row, created = ServiceToken.objects.select_for_update().get_or_create(
                token_sha256=_checked(token_sha256), defaults=body
            )
            if row.revoked_at is not None:
                raise Conflict("This service token was revoked. Make a new one.", "service_token_revoked")
            changed = row.gateways != body.get("gateways", row.gateways)
            if changed:
                row.gateways = body["gateways"]
                row.save(update_fields=["gateways"])
        return Response({"changed": created or changed})

    @extend_schema(
        operation_id="internal_service_token_revoke",
        tags=TAGS,
        summary="Revoke a service token",
        request=None,
        responses={200: Changed, 400: Problem, 404: Problem, 409: Problem},
    )
    def delete(self, request: Request, token_sha256: str) -> Response:
        """Revoke; done again it changes nothing. Nobody can revoke the token they present."""
        if _checked(token_sha256) == _presented(request):
            raise Conflict(
                "This is the token of this very request. Present the one that shall stay.",
                "service_token_presented",
            )
        revoked = ServiceToken.objects.filter(token_sha256=token_sha256, revoked_at=None).update(
            revoked_at=timezone.now()
        )
        if is_configured(token_sha256):
            raise Conflict(
                "This token stands in COACHLIST_SERVICE_TOKENS. Take it out there, and restart the application.",
                "service_token_configured",
            )
        if not revoked and not ServiceToken.objects.filter(token_sha256=token_sha256).exists():
            raise NotFound("There is no such service token.")
        return Response({"changed": bool(revoked)})


def _refuse_scope(token_sha256: str, request: Request) -> None:
    """Raise Conflict where a token would not be bound by its gateways, or be of no more use to who binds it."""
    if is_configured(token_sha256):
        raise Conflict(
            "This token stands in COACHLIST_SERVICE_TOKENS and may do everything. Make another for the gateways.",
            "service_token_configured",
        )
    if token_sha256 == _presented(request):
        raise Conflict(
            "This is the token of this very request, which would lose what it may do. Make another for the gateways.",
            "service_token_presented",
        )


def _checked(token_sha256: str) -> str:
    try:
        rules.validate_sha256(token_sha256)
    except ValidationError as exc:
        raise serializers.ValidationError({"token_sha256": exc.messages}) from None
    return token_sha256


def _presented(request: Request) -> str:
    assert isinstance(request.user, ServicePrincipal)
    return request.user.token_sha256
