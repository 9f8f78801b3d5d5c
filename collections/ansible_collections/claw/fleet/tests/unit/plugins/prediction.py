# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check, do, do again, check again: what all properties of prediction are made of, and what they run and look at."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway
from ansible_collections.claw.fleet.tests.unit.plugins.offline import OfflineGateway, offline_gateway

Result = dict[str, Any]
Run = Callable[[bool], Result]
"""One run of a module with the same wish each time; given is whether it is a check."""


@contextmanager
def fresh_place() -> Iterator[Path]:
    """An empty directory."""
    with TemporaryDirectory(prefix="claw-prediction-") as place:
        yield Path(place)


@contextmanager
def fresh_gateway() -> Iterator[OfflineGateway]:
    """A stopped gateway in a place of its own, with nothing in it but its lock."""
    with fresh_place() as place:
        gateway = offline_gateway(place)
        # Whoever is first makes it, and its directory tells the time of that.
        gateway.lock_path.touch(mode=0o600)
        yield gateway


def below(place: Path, *, but: tuple[str, ...] = ("lock",), dated: bool = True) -> dict[str, Any]:
    """Everything below a directory: kind, mode, inode, time and content.

    ``but``: names that do not count; ``dated``: whether the times of directories do.
    """
    found: dict[str, Any] = {}
    for path in sorted(place.rglob("*")):
        if not set(path.relative_to(place).parts) & set(but):
            entry = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(entry.st_mode) else b""
            when = entry.st_mtime_ns if dated or path.is_file() else 0
            found[str(path.relative_to(place))] = (oct(entry.st_mode), entry.st_ino, when, content)
    return found


def on_disk(gateway: Gateway, *, but: tuple[str, ...] = ("lock",)) -> dict[str, Any]:
    """Everything below the gateway's places."""
    # A directory that has only the fleet's own notes written anew is the same.
    return below(Path(gateway.state_dir).parent, but=but, dated=but == ("lock",))


def four_times(
    run: Run,
    seen: Callable[[], Any],
    *,
    alike: Callable[[Result], Any] = lambda result: result,
    between: Callable[[], Any] = lambda: None,
) -> Result:
    """Check, do, do again, check again; what was done.

    The check leaves all that is ``seen`` as it was, and says what the deed says then, all of it or what ``alike`` makes of
    it. What is changed is seen, and what is seen is changed. Then there is nothing to do; what was refused, is again.
    ``between`` are the tasks that a play has before this one, which a check has not done either.
    """
    before = seen()
    predicted = run(True)
    assert seen() == before
    between()
    before = seen()
    done = run(False)
    assert alike(done) == alike(predicted)
    assert (seen() != before) is bool(done.get("changed"))
    after = seen()
    for check in (False, True):
        again = run(check)
        assert again == done if "failed" in done else nothing_to_do(again)
        assert seen() == after
    return done


def nothing_to_do(result: Result) -> bool:
    """Whether a result says so, in its diff too."""
    diff = result.get("diff", [])
    parts = diff if isinstance(diff, list) else [diff]
    return not result["changed"] and all(part["before"] == part["after"] for part in parts)


def without(*names: str) -> Callable[[Result], Result]:
    """A result without what nobody can know beforehand."""
    return lambda result: {name: value for name, value in result.items() if name not in names}


class _Told(Exception):
    """How a module ended."""


def run_module(module: ModuleType, given: dict[str, Any], check: bool) -> Result:
    """What the module tells of itself when it is run in this process with these options."""
    warnings: list[str] = []

    class Module:
        def __init__(self, argument_spec: dict[str, Any], supports_check_mode: bool, **_rules: Any) -> None:
            assert supports_check_mode
            assert given.keys() <= argument_spec.keys()
            self.params = {name: given.get(name, spec.get("default")) for name, spec in argument_spec.items()}
            self.check_mode = check
            self.no_log_values: set[Any] = set()
            self.warn = warnings.append

        def exit_json(self, **told: Any) -> None:
            raise _Told({**told, **({"warnings": warnings} if warnings else {})})

        def fail_json(self, **told: Any) -> None:
            raise _Told({"failed": True, **told})

    with pytest.MonkeyPatch.context() as patch, pytest.raises(_Told) as ended:
        patch.setattr(module, "AnsibleModule", Module)
        module.main()
    told: Result = ended.value.args[0]
    return told


def on_this_machine(action: type[ActionBase], module: ModuleType) -> type[ActionBase]:
    """The action for a host that is this process: its module runs here, and what it ships is copied."""

    class Here(action):  # type: ignore[misc]
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self._task.delegate_to = None
            shell = SimpleNamespace(tmpdir="unused", join_path=os.path.join)
            self._connection = SimpleNamespace(_shell=shell, fetch_file=shutil.copyfile)

        def _execute_module(self, *, module_args: dict[str, Any], **_others: Any) -> Result:
            return run_module(module, module_args, self._task.check_mode)

        def _make_tmp_path(self) -> str:
            return mkdtemp(prefix="claw-shipped-")

        def _remove_tmp_path(self, path: str, force: bool) -> None:
            shutil.rmtree(path)

        def _transfer_file(self, local: str, remote: str) -> None:
            shutil.copyfile(local, remote)

    return Here
