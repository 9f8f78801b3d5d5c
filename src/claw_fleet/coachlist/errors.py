# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API answers when it cannot do what was asked: always {"detail": a sentence, …}."""

from __future__ import annotations

from typing import Any

from django.db import OperationalError
from rest_framework import status
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler as rest_exception_handler


class Refused(APIException):
    """A refusal with a machine-readable `code` and further fields beside the sentence."""

    def __init__(self, detail: str, code: str, **extra: object) -> None:
        super().__init__(detail, code)
        self.extra: dict[str, object] = {"code": code, **extra}


class Conflict(Refused):
    """409: the state of the coach or of the gateway does not allow it."""

    status_code = status.HTTP_409_CONFLICT


class Invalid(Refused):
    """400: what was sent cannot be right."""

    status_code = status.HTTP_400_BAD_REQUEST


class Forbidden(Refused):
    """403: the caller is known and may not."""

    status_code = status.HTTP_403_FORBIDDEN


class BadGateway(Refused):
    """502: the coach's gateway could not be asked, or refused."""

    status_code = status.HTTP_502_BAD_GATEWAY


def _sentences(errors: Any, field: str = "") -> list[str]:
    """Every message of DRF's nested error detail, each with the field it is about."""
    if isinstance(errors, dict):
        return [
            line
            for key, value in errors.items()
            for line in _sentences(value, "" if key == "non_field_errors" else f"{field}{key}: ")
        ]
    if isinstance(errors, list):
        return [line for item in errors for line in _sentences(item, field)]
    return [f"{field}{errors}"]


def exception_handler(exc: Exception, context: Any) -> Response | None:
    """DRF's handler, with one shape for all errors.

    Validation errors become {"detail": all of it in one line, "errors": {field: [sentence, …]}}; a database
    that is locked or away is a 503 the caller can repeat.
    """
    if isinstance(exc, OperationalError):
        return Response(
            {"detail": "The database is busy or away. Nothing was changed; try again.", "code": "database"},
            status=status.HTTP_503_SERVICE_UNAVAILABLE,
            headers={"Retry-After": "5"},
        )
    response = rest_exception_handler(exc, context)
    if response is None:
        return None
    if isinstance(exc, ValidationError):
        response.data = {"detail": " ".join(_sentences(exc.detail)), "errors": exc.detail}
    elif isinstance(exc, Refused):
        response.data = {"detail": exc.detail, **exc.extra}
    return response
