# SPDX-License-Identifier: GPL-3.0-or-later
"""The page on which a coach asks her agent. She signs in as a Django user; asking is `ask.Ask`, in plain words.

Everything she may get to read here when something does not work stands in this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse_lazy
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from rest_framework import exceptions
from rest_framework.response import Response

from claw_fleet.coachlist.ask import QUESTION_MAX, Ask
from claw_fleet.coachlist.authentication import CoachSessionAuthentication
from claw_fleet.coachlist.errors import Refused, exception_handler
from claw_fleet.coachlist.models import CompanionProfile

# The pages load nothing but the application's own files, and nobody frames them.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)

UNREACHABLE = "Your companion cannot be reached right now. Please try again in a few minutes."
BROKEN_OFF = "The answer broke off. Please send your question again."
FAILED = "Your companion could not answer that. Please send your question again."
SIGNED_OUT = "You are signed out. Please open this page again and sign in."
TOO_LONG = "This question cannot be sent as it is. Please make it shorter."
NOT_READY = "Your companion is not ready yet. Please try again in a few minutes."
# By the codes of refusals; every other one is a companion who cannot be reached.
REFUSED = {
    "paused": "Your companion is paused. Whoever looks after it can let it go on.",
    "not_active": NOT_READY,
    "agent_id": NOT_READY,
    "no_coach": "There is no companion for you here. Whoever gave you this account can change that.",
}


def self_contained(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """A page of this application's own files alone, which no cache keeps."""

    @never_cache
    @wraps(view)
    def contained(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = view(request, *args, **kwargs)
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response

    return contained


@self_contained
@require_safe
@login_required(login_url=reverse_lazy("coachlist_chat:login"))
def page(request: HttpRequest) -> HttpResponse:
    """The page of the coach who is signed in; for any other user one that says that there is no companion."""
    assert request.user.is_authenticated
    coach = CompanionProfile.objects.of_user(request.user.pk)
    if coach is None:
        return render(request, "coachlist/chat_nobody.html", {"sentence": REFUSED["no_coach"]}, status=403)
    context = {
        "coach": coach,
        "question_max": QUESTION_MAX,
        # A day is one conversation, on whichever of her devices: she goes on where she was, and her agent does
        # not carry all that was ever said through each of its turns.
        "session": f"chat-{timezone.localdate():%Y-%m-%d}",
        "unreachable": UNREACHABLE,
        "broken_off": BROKEN_OFF,
        "failed": FAILED,
    }
    return render(request, "coachlist/chat.html", context)


class ChatAsk(Ask):
    """Asking, by a coach who is signed in; what is wrong is said in one plain sentence."""

    authentication_classes = (CoachSessionAuthentication,)
    # It is the page's own, and no key opens it.
    schema = None

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        """The API's status, and a sentence for her instead of the operator's."""
        return _plainly


def _plainly(exc: Exception, context: dict[str, Any]) -> Response | None:
    response = exception_handler(exc, context)
    if response is not None:
        response.data = {"detail": _sentence(exc)}
    return response


def _sentence(exc: Exception) -> str:
    if isinstance(exc, Refused):
        return REFUSED.get(str(exc.extra["code"]), UNREACHABLE)
    if isinstance(exc, exceptions.Throttled):
        minutes = math.ceil((getattr(exc, "wait", None) or 60) / 60)
        wait = "a minute" if minutes == 1 else f"{minutes} minutes"
        return f"You have asked a lot in a short time. Please wait {wait} and send it again."
    if isinstance(exc, exceptions.ValidationError):
        return TOO_LONG
    if isinstance(exc, (exceptions.NotAuthenticated, exceptions.PermissionDenied)):
        return SIGNED_OUT
    return UNREACHABLE
