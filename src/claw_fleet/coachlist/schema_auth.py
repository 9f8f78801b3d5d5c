# SPDX-License-Identifier: GPL-3.0-or-later
"""How the two kinds of bearer token appear in the OpenAPI documents."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema


class _ServiceTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "claw_fleet.coachlist.authentication.ServiceTokenAuthentication"
    name = "serviceToken"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        """Bearer, with the fleet's token."""
        return {"type": "http", "scheme": "bearer", "description": "A service token of the fleet."}


class _CompanionKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "claw_fleet.coachlist.authentication.CompanionAPIKeyAuthentication"
    name = "companionKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        """Bearer, with the coach's key."""
        return {"type": "http", "scheme": "bearer", "description": "The coach's own key."}
