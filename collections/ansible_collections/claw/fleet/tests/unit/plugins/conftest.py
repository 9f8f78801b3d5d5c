# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of plugins share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import CoachList
from hypothesis import HealthCheck, settings

# Examples are counted, not timed: a busy machine is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
def coach_list(monkeypatch: pytest.MonkeyPatch) -> Iterator[CoachList]:
    """An empty coach list that is being served, and no proxy between."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with CoachList().serving() as served:
        yield served
