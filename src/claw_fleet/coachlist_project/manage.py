#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Django's commands for this project: python -m claw_fleet.coachlist_project.manage COMMAND."""

from __future__ import annotations

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line


def main() -> None:
    """Run a command, once the project is configured."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "claw_fleet.coachlist_project.settings")
    from claw_fleet.coachlist_project import startup

    try:
        startup.require()
    except ImproperlyConfigured as exc:
        sys.exit(str(exc))
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
