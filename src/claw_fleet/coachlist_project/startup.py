# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuses to start what is not configured, with a message for whoever starts it."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from claw_fleet.coachlist.checks import REQUIRED

SECRET_KEY_MIN = 50


def problems() -> list[str]:
    """What keeps the project from starting, a sentence or two each."""
    found: list[str] = []
    try:
        secret_key = settings.SECRET_KEY
    except ImproperlyConfigured:  # Django's word for an empty one
        secret_key = ""
    if len(secret_key) < SECRET_KEY_MIN:
        found.append(
            f"COACHLIST_SECRET_KEY is missing or shorter than {SECRET_KEY_MIN} characters. "
            "Make one with: openssl rand -hex 32"
        )
    messages = [message for check in REQUIRED for message in check(None)]
    found += [f"{message.msg} {message.hint}" for message in messages if message.is_serious()]
    return found


def require() -> None:
    """Raise ImproperlyConfigured with everything that is missing, or return."""
    found = problems()
    if found:
        lines = "\n".join(f"  - {problem}" for problem in found)
        raise ImproperlyConfigured(
            f"The coach list is not configured:\n{lines}\n"
            "For a trial on your own machine set COACHLIST_DEBUG=1 instead; never where others can reach it."
        )
