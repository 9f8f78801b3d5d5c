# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of claw.fleet.service_token, on the controller.

Three files: the token; ``.pending`` beside it, which is to take its place; ``.former``, which is yet to be revoked.
Whatever ends a run in between, they say where to go on.
"""

from __future__ import annotations

import hashlib
import secrets
import stat
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import ApiError, Client, OptionsError
from ansible_collections.claw.fleet.plugins.modules.service_token import ARGUMENT_SPEC
from ansible_collections.claw.fleet.plugins.plugin_utils.actions import diff_of_secret

_BYTES = 32
_DAY_SECONDS = 86400


class ActionModule(ActionBase):
    """Replace the token."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        path = Path(args["path"]).absolute()
        try:
            # A check leaves nothing behind, not even a lock.
            if self._task.check_mode:
                return {**result, **_Rotation(path, args).predict()}
            with _durable.lock(path.with_name(f"{path.name}.lock")):
                return {**result, **_Rotation(path, args).run()}
        except (ApiError, OptionsError, _durable.DurableError) as exc:
            raise AnsibleActionFail(str(exc)) from None


class _Rotation:
    """One run."""

    def __init__(self, path: Path, args: dict[str, Any]) -> None:
        self.path = path
        self.pending = path.with_name(f"{path.name}.pending")
        self.former = path.with_name(f"{path.name}.former")
        self.args = args
        self.before = _read(path)
        if not self.before:
            raise AnsibleActionFail(
                f"{path} is absent or empty. Put a token there that Django accepts, such as one of its "
                "COACHLIST_SERVICE_TOKENS, and run again."
            )

    def predict(self) -> dict[str, Any]:
        """What a run would say."""
        return self._told(self._due(), self._replaces())

    def run(self) -> dict[str, Any]:
        """Go on from wherever the last run ended, or begin."""
        due, replaces = self._due(), self._replaces()
        if replaces or _read(self.pending):
            self._replace()
        if due:
            self._revoke()
        return self._told(due, replaces)

    def _due(self) -> bool:
        if _read(self.pending) or _read(self.former):
            return True
        age = time.time() - self.path.stat().st_mtime
        return age >= int(self.args["max_age_days"]) * _DAY_SECONDS

    def _replaces(self) -> bool:
        """Whether another token comes to be in the file; an earlier run may have left only what comes after that."""
        pending = _read(self.pending)
        return pending != self.before if pending else self._due() and not _read(self.former)

    def _replace(self) -> None:
        """Have a new token in the file, which Django takes."""
        new = _read(self.pending)
        if not new:
            new = secrets.token_urlsafe(_BYTES)
            _durable.write(self.pending, f"{new}\n".encode(), mode=0o600)
        if new != self.before:
            self._promote(new)
        _durable.remove(self.pending)

    def _promote(self, new: str) -> None:
        self._client(self.before).put_service_token(_hash(new), self.args["name"])
        found = self._client(new).service_token(_hash(new))
        if found.get("presented") is False:
            raise AnsibleActionFail("Django does not know the new token by its own hash. Is api_url right?")
        _durable.write(self.former, f"{self.before}\n".encode(), mode=0o600)
        # Whoever could read the token before can read the new one.
        mode = stat.S_IMODE(self.path.stat().st_mode)
        _durable.write(self.path, f"{new}\n".encode(), mode=mode, owner=_owner(self.path))

    def _revoke(self) -> None:
        """Have the token before refused."""
        former = _read(self.former)
        advice = ""
        try:
            self._client(_read(self.path)).revoke_service_token(_hash(former))
        except ApiError as exc:
            # One that Django does not know as a row stands in its settings, or has been taken out of them by now.
            if not exc.of_row or exc.status not in (404, 409):
                raise
            advice = str(exc)
        if not self._refused(former):
            raise AnsibleActionFail(
                f"The new token is in {self.path} and in force, and the one before is accepted still: "
                f"{advice or 'Django has revoked it and takes it all the same.'} Then run again."
            )
        _durable.remove(self.former)

    def _refused(self, token: str) -> bool:
        try:
            self._client(token).service_token(_hash(token))
        except ApiError as exc:
            if exc.status == 401:
                return True
            raise
        return False

    def _client(self, token: str) -> Client:
        return Client.of({**self.args, "api_token": token})

    def _told(self, due: bool, replaces: bool) -> dict[str, Any]:
        return {
            "changed": due,
            "token_sha256": _hash(_read(self.path)),
            "diff": diff_of_secret(f"service token in {self.path}", _hash(self.before), replaces),
        }


def _read(path: Path) -> str:
    return (_durable.read(path) or b"").decode("ascii", "replace").strip()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _owner(path: Path) -> _durable.Owner:
    found = path.stat()
    return _durable.Owner(found.st_uid, found.st_gid)
