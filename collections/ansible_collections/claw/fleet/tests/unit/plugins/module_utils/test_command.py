# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that installs something, and how it may end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _command


def test_one_that_ends_all_of_its_group_does_not_end_us(tmp_path: Path) -> None:
    heard: list[int] = []
    former = signal.signal(signal.SIGHUP, lambda number, _frame: heard.append(number))
    line = "echo 'it cannot be written' >&2; trap '' HUP; kill -HUP 0; exit 3"
    try:
        with pytest.raises(_command.CommandError, match="failed with status 3: it cannot be written"):
            _command.run(["sh", "-c", line], tmp_path, os.environ)
    finally:
        signal.signal(signal.SIGHUP, former)
    assert heard == []
