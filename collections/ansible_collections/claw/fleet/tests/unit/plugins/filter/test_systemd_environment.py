# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.claw.fleet.plugins.filter.systemd_environment import systemd_environment


def test_there_is_a_line_for_each_and_what_systemd_would_take_apart_is_quoted() -> None:
    given = {"A": 'a "b" \\ 100%', "B": "x\ny", "C": 1}
    assert systemd_environment(given).splitlines() == [
        r'Environment="A=a \"b\" \\ 100%%"',
        r'Environment="B=x\ny"',
        'Environment="C=1"',
    ]
    assert systemd_environment({}) == ""
