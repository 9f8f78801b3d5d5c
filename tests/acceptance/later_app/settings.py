"""The project's own settings, with other paths."""

from __future__ import annotations

from claw_fleet.coachlist_project.settings import *  # noqa: F403 - whatever the project has

ROOT_URLCONF = "tests.acceptance.later_app.urls"
