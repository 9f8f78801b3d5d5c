# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of plugins share."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator

import pytest
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import CoachList
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
# Where a property does not hold, it shows what was and what should have been.
pytest.register_assert_rewrite("ansible_collections.claw.fleet.tests.unit.plugins.prediction")


def pytest_configure(config: pytest.Config) -> None:
    """Name the project's own marker to ansible-test, which knows nothing of its settings."""
    config.addinivalue_line("markers", "slow: starts programs or tries many examples")


@pytest.fixture(scope="module")
def no_authorities() -> Iterator[None]:
    """Nobody is asked by https; to read all authorities takes a client longer than to ask."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_default_certs", lambda *_purpose: None)
        yield


@pytest.fixture
def coach_list(monkeypatch: pytest.MonkeyPatch) -> Iterator[CoachList]:
    """An empty coach list that is being served, and no proxy between."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with CoachList().serving() as served:
        yield served
