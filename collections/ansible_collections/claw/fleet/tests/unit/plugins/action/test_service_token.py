# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another service token: check, apply, killed anywhere and carried on, and no token where it does not belong."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.claw.fleet.plugins.action.service_token import ActionModule
from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import TOKEN, CoachList
from ansible_collections.claw.fleet.tests.unit.plugins.run_action import run_action

FIRST = "registered-" + "0123456789" * 4


class Killed(BaseException):
    """The run ends here, as by SIGKILL."""


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture
def path(tmp_path: Path, coach_list: CoachList) -> Path:
    """A file with a token that is registered."""
    coach_list.service_tokens[sha256(FIRST)] = True
    path = tmp_path / "service-token"
    path.write_text(f"{FIRST}\n")
    path.chmod(0o640)
    return path


def run(coach_list: CoachList, path: Path, *, check_mode: bool = False, **args: Any) -> dict[str, Any]:
    given = {"api_url": coach_list.url, "path": str(path), "retries": 0, **args}
    return run_action(ActionModule, given, check_mode=check_mode)


def files(path: Path) -> dict[str, str]:
    return {
        found.name: found.read_text().strip() for found in path.parent.iterdir() if found.suffix != ".lock"
    }


def test_four_times(coach_list: CoachList, path: Path) -> None:
    predicted = run(coach_list, path, check_mode=True)
    assert files(path) == {"service-token": FIRST} and coach_list.requests == []
    done = run(coach_list, path)
    assert (
        (done["changed"], done["diff"]) == (predicted["changed"], predicted["diff"]) == (True, done["diff"])
    )
    new = path.read_text().strip()
    assert files(path) == {"service-token": new} and new != FIRST
    assert done["token_sha256"] == sha256(new)
    assert coach_list.service_tokens == {sha256(FIRST): False, sha256(new): True}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    for check_mode in (False, True):
        again = run(coach_list, path, check_mode=check_mode, max_age_days=1)
        assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"]
    assert path.read_text().strip() == new
    for token in (FIRST, new):
        assert token not in str([predicted, done, coach_list.requests])


def test_a_token_is_replaced_when_it_is_old(coach_list: CoachList, path: Path) -> None:
    old = time.time() - 31 * 86400
    os.utime(path, (old, old))
    assert run(coach_list, path, check_mode=True, max_age_days=30)["changed"]
    assert run(coach_list, path, max_age_days=30)["changed"]
    assert not run(coach_list, path, max_age_days=30)["changed"]


def test_killed_anywhere_the_next_run_finishes_with_the_same_token(
    coach_list: CoachList, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for point in count(1):
        deeds = count(1)

        def dying(deed: Callable[..., Any], point: int = point, deeds: Any = deeds) -> Callable[..., Any]:
            def done(*args: Any, **kwargs: Any) -> Any:
                if next(deeds) == point:
                    raise Killed
                result = deed(*args, **kwargs)
                if next(deeds) == point:
                    raise Killed
                return result

            return done

        with monkeypatch.context() as patch:
            for name in ("write", "remove"):
                patch.setattr(_durable, name, dying(getattr(_durable, name)))
            patch.setattr(coach_list, "faults", [])
            try:
                run(coach_list, path)
                ended = True
            except Killed:
                ended = False
        if ended:
            break
        made = files(path).get("service-token.pending") or path.read_text().strip()
        assert coach_list.service_tokens[sha256(path.read_text().strip())], (
            "what is in the file is always good"
        )
        # Young as it is, it is replaced only where something was left to be carried on.
        left = set(files(path)) != {"service-token"}
        assert run(coach_list, path, max_age_days=1, check_mode=True)["changed"] is left
        assert run(coach_list, path, max_age_days=1)["changed"] is left
        assert path.read_text().strip() == made, point
        assert set(files(path)) == {"service-token"}
        assert list(coach_list.service_tokens.values()).count(True) == 1
    assert point > 8


@pytest.mark.parametrize("refused", [1, 2, 3, 4])
def test_a_django_that_fails_in_between_costs_nothing(
    coach_list: CoachList, path: Path, refused: int
) -> None:
    coach_list.faults = [*[None] * (refused - 1), lambda handler: handler.answer(500, {"detail": "no"})]
    with pytest.raises(AnsibleActionFail):
        run(coach_list, path)
    made = files(path).get("service-token.pending") or path.read_text().strip()
    assert run(coach_list, path)["changed"]
    assert files(path) == {"service-token": made}
    assert coach_list.service_tokens == {sha256(FIRST): False, sha256(made): True}


def test_a_token_of_the_settings_is_named_until_it_is_gone(coach_list: CoachList, path: Path) -> None:
    path.write_text(TOKEN)
    for _time in range(2):
        with pytest.raises(AnsibleActionFail, match="COACHLIST_SERVICE_TOKENS") as caught:
            run(coach_list, path)
        assert TOKEN not in str(caught.value)
    new = path.read_text().strip()
    assert new != TOKEN and coach_list.service_tokens[sha256(new)]
    coach_list.configured = False
    assert run(coach_list, path)["changed"]
    assert files(path) == {"service-token": new}


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_file_without_a_token_is_nothing_to_begin_with(
    coach_list: CoachList, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "service-token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AnsibleActionFail, match="COACHLIST_SERVICE_TOKENS"):
        run(coach_list, path)
    assert coach_list.requests == []
