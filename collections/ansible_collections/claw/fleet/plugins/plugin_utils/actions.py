# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What action plugins share: rows as plain data, the diff of a secret that is replaced, a place on the machine.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.module_utils._coach import CoachListError, Row, check_rows

SHOWN_DIGITS = 12
"""How much of a secret's SHA-256 is shown."""


def plain_rows(given: list[Any]) -> list[Row]:
    """The checked rows; AnsibleActionFail where the list as a whole is none.

    Through JSON: what comes out is plain data, which Ansible never takes for a template.
    """
    try:
        rows: list[Row] = json.loads(json.dumps(check_rows(given)))
    except CoachListError as exc:
        raise AnsibleActionFail(str(exc)) from exc
    return rows


def diff_of_secret(header: str, sha256: str, replaced: bool) -> dict[str, str]:
    """In Ansible's form: the one before by its hash, and whether another takes its place."""
    before = f"{sha256[:SHOWN_DIGITS]}\n"
    after = "another\n" if replaced else before
    return {"before_header": header, "after_header": header, "before": before, "after": after}


@contextmanager
def place_on_machine(action: ActionBase) -> Iterator[str]:
    """A directory on the machine of an action's host, for what is shipped there; it is gone afterwards."""
    directory: str = action._make_tmp_path()
    try:
        yield directory
    finally:
        action._remove_tmp_path(directory, force=True)
