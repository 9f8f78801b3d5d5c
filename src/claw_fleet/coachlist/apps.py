# SPDX-License-Identifier: GPL-3.0-or-later
"""The Django application."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class CoachlistConfig(AppConfig):
    """Registers the models, the admin and the system checks under the label `coachlist`."""

    name = "claw_fleet.coachlist"
    label = "coachlist"
    verbose_name = "Coach list"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Load what registers itself by being imported."""
        import_module("claw_fleet.coachlist.checks")
        import_module("claw_fleet.coachlist.schema_auth")
