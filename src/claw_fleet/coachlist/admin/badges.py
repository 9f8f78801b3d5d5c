# SPDX-License-Identifier: GPL-3.0-or-later
"""What the admin's pages show alike."""

from __future__ import annotations

from typing import ClassVar

from django.utils.html import format_html
from django.utils.safestring import SafeString

TEXT_MAX = 120


class BadgeMedia:
    """The `Media` of a page with badges."""

    css: ClassVar = {"all": ("coachlist/admin.css",)}


def badge(kind: str, text: str) -> SafeString:
    """A word on a colour; the word alone says it all."""
    return format_html('<span class="coachlist-badge coachlist-{}">{}</span>', kind, text)


def beginning(text: str) -> str:
    """As much of a text as fits into a list."""
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}…"
