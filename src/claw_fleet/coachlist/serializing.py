# SPDX-License-Identifier: GPL-3.0-or-later
"""What the internal and the companion API's serializers share."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class Problem(serializers.Serializer[Any]):
    """What is wrong and what to do."""

    detail = serializers.CharField()
    code = serializers.CharField(required=False)


def validated(serializer: serializers.Serializer[Any] | serializers.ModelSerializer[Any]) -> dict[str, Any]:
    """What was sent, once it is valid; otherwise a 400 naming each field."""
    serializer.is_valid(raise_exception=True)
    data: dict[str, Any] = serializer.validated_data
    return data
