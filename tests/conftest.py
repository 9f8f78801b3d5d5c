"""What all of the project's own tests share."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Examples are counted, not timed: a busy machine is no failure. And they are the same in every run, so that a change is
# judged by what it changes; `make soak` looks for new ones.
settings.register_profile(
    "patient",
    deadline=None,
    derandomize=os.environ.get("CLAW_SOAK") != "all",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")
