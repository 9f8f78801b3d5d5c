# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a gateway is reached: told by what watches its tunnel, as often as the tunnel gets another address.

This is all that a service token of gateways alone opens. Whoever holds one has the application send those
gateways' tokens to an address of their choice, so it must be a public one, and can be bound to some hosts.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from claw_fleet.coachlist import conf, fleet, rules
from claw_fleet.coachlist.authentication import MayTellAddress, ServicePrincipal
from claw_fleet.coachlist.internal import TAGS
from claw_fleet.coachlist.models import Gateway
from claw_fleet.coachlist.serializing import Problem, validated
from claw_fleet.coachlist.views_base import InternalView


class Probe(serializers.Serializer[Any]):
    """What came of asking a gateway through its tunnel."""

    url = serializers.CharField(
        max_length=500,
        required=False,
        allow_blank=True,
        default="",
        help_text="http(s)://host[:port][/path]; required where it answered, and taken from then on.",
    )
    answered = serializers.BooleanField(help_text="Whether the gateway itself answered there.")
    reason = serializers.CharField(
        required=False,
        allow_blank=True,
        default="",
        help_text=f"Why not; required where it did not answer. {fleet.PROBE_ERROR_MAX} characters are kept.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """An address that answers, or a reason. An address that did not answer is not looked at."""
        if not attrs["answered"]:
            if not attrs["reason"]:
                raise serializers.ValidationError({"reason": "Say in a sentence what did not answer."})
            return attrs
        if not attrs["url"]:
            raise serializers.ValidationError({"url": "Send the address at which the gateway answered."})
        try:
            attrs["url"] = rules.tidy_gateway_url(attrs["url"])
            if self.context["scoped"]:
                rules.validate_public_url(attrs["url"], conf.address_hosts())
        except ValidationError as exc:
            raise serializers.ValidationError({"url": exc.messages}) from None
        return attrs


class AddressRow(serializers.ModelSerializer[Gateway]):
    """Where a gateway is reached, and what the last probe found."""

    class Meta:
        model = Gateway
        fields = ("url", "url_set_at", "probed_at", "probe_error")
        read_only_fields = fields


class AddressPut(serializers.Serializer[Any]):
    """The address of now, the one before this request, and whether they differ."""

    changed = serializers.BooleanField()
    url = serializers.CharField()
    former_url = serializers.CharField()


class Address(InternalView):
    """A gateway's address."""

    permission_classes = (MayTellAddress,)

    @extend_schema(
        operation_id="internal_address_show",
        tags=TAGS,
        summary="Where a gateway is reached",
        responses={200: AddressRow, 403: Problem, 404: Problem},
    )
    def get(self, request: Request, name: str) -> Response:
        """The address, and the last probe."""
        return Response(AddressRow(fleet.known_gateway(name, Gateway.objects.all())).data)

    @extend_schema(
        operation_id="internal_address_put",
        tags=TAGS,
        summary="Tell where a gateway answers, or that it does not",
        request=Probe,
        responses={200: AddressPut, 400: Problem, 403: Problem, 404: Problem},
    )
    def put(self, request: Request, name: str) -> Response:
        """Take the address, where the gateway answered there; otherwise only why it did not."""
        assert isinstance(request.user, ServicePrincipal)
        probe = validated(Probe(data=request.data, context={"scoped": bool(request.user.gateways)}))
        if probe["answered"]:
            gateway, former = fleet.probed(name, url=probe["url"])
        else:
            gateway, former = fleet.probed(name, url=None, error=probe["reason"])
        return Response({"changed": gateway.url != former, "url": gateway.url, "former_url": former})
