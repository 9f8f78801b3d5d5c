"""What all of the project's own tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Examples are counted, not timed: a busy machine is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
