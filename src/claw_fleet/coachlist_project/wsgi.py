# SPDX-License-Identifier: GPL-3.0-or-later
"""The WSGI application, for gunicorn with threads: an answer that streams occupies one."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

from claw_fleet.coachlist_project import startup

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "claw_fleet.coachlist_project.settings")

startup.require()
application = get_wsgi_application()
