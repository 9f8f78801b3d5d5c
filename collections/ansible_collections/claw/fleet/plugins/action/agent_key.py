# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of claw.fleet.agent_key: between a pending key on the machine and a promoted one.

The machine says what is to be done; Django is asked only then; the machine concludes what Django agreed to.
Whatever ends this in between, the next run goes on with the key that is pending.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.module_utils._coach import (
    Row,
    check_rows,
    error,
    has_error,
)
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import ApiError, Client, OptionsError
from ansible_collections.claw.fleet.plugins.modules.agent_key import ARGUMENT_SPEC
from ansible_collections.claw.fleet.plugins.plugin_utils.actions import SHOWN_DIGITS, plain_rows

_STEP = "key"
_FIELDS = ("key_id", "key_sha256", "key_generation")
# How long the key before is good: until the new one is in its place, at most; and for who has read it just before.
_UNTIL_PROMOTED_SECONDS = 120
_AFTERWARDS_SECONDS = 5


class ActionModule(ActionBase):
    """Prepare on the machine, ask Django, conclude on the machine."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        try:
            client = Client.of(args)
        except OptionsError as exc:
            raise AnsibleActionFail(str(exc)) from exc
        rows = plain_rows(args["agents"])
        prepared = self._on_machine(
            args,
            task_vars,
            agents=rows,
            state=args["state"],
            rotate=args["rotate"],
            coach_api_url=args["coach_api_url"] or args["api_url"],
            reveal=client.options.send == "plaintext",
        )
        if prepared.get("failed"):
            return {**result, **prepared}
        work = _Work(check_rows(prepared["results"]), prepared["changed"])
        if self._task.check_mode:
            work.predict()
        else:
            work.ask(client)
            if work.registered or work.revoked:
                concluded = self._on_machine(
                    args, task_vars, registered=work.registered, revoked=work.revoked
                )
                if concluded.get("failed"):
                    return {**result, **concluded}
                work.conclude(concluded["wrong"])
                work.end(client)
        return {**result, **work.told()}

    def _on_machine(self, args: dict[str, Any], task_vars: Any, **options: Any) -> dict[str, Any]:
        where = {"gateway": args["gateway"], "config_root": args["config_root"]}
        if options.get("reveal"):
            # Connection plugins print what a module answers from -vvv on, unless they are told not to.
            self._play_context.no_log = self._connection._play_context.no_log = True
        answer: dict[str, Any] = self._execute_module(
            module_name="claw.fleet.agent_key_file", module_args={**where, **options}, task_vars=task_vars
        )
        return answer


class _Work:
    """The rows on their way through Django, and what came of it."""

    def __init__(self, rows: list[Row], changed: bool) -> None:
        self.keys: list[dict[str, Any]] = [row.pop("key", {}) for row in rows]
        self.before = [dict(row) for row in rows]
        self.rows = rows
        self.changed = changed
        self.registered: dict[str, str] = {}
        self.revoked: list[str] = []
        self.replaced: list[tuple[Row, dict[str, Any]]] = []
        self.failure = ""

    def predict(self) -> None:
        """As if Django agreed to everything."""
        for row, key in zip(self.rows, self.keys, strict=True):
            if key.get("need"):
                _take_over(row, key)
                self.changed = True

    def ask(self, client: Client) -> None:
        """Register and revoke, row by row. A Django that does not answer ends it, with what was done until then."""
        for row, key in zip(self.rows, self.keys, strict=True):
            need = key.get("need")
            if not need or self.failure:
                continue
            try:
                if need == "register":
                    replaces = key["pending"] and bool(row["key_sha256"])
                    new = _register(client, row, key, _UNTIL_PROMOTED_SECONDS if replaces else None)
                    self.changed |= new
                    self.replaced += [(row, key)] if replaces else []
                    # What Django knew already, although the row did not say so, is no news.
                    key["need"] = "register" if new or key["pending"] else ""
                elif need == "promote":
                    self.replaced.append((row, key))
                elif need == "revoke":
                    self.changed |= client.revoke_key(row["agent_id"])
            except ApiError as exc:
                if exc.of_row:
                    row["error"] = error(_STEP, str(exc))
                else:
                    self.failure = f"{exc} Nothing was done for {row['agent_id']} and those after."
                continue
            _take_over(row, key)
            if need == "revoke":
                self.revoked.append(row["agent_id"])
            elif key["pending"]:
                self.registered[row["agent_id"]] = key["key_id"]

    def conclude(self, wrong: dict[str, str]) -> None:
        """Take down what went wrong on the machine after Django had agreed."""
        self.changed = True
        for row in self.rows:
            reason = wrong.get(row["agent_id"])
            if reason and not has_error(row):
                row["error"] = error(_STEP, reason)

    def end(self, client: Client) -> None:
        """The new keys are in their places: those before them end within seconds."""
        for row, key in self.replaced:
            if has_error(row):
                continue
            try:
                _register(client, row, key, _AFTERWARDS_SECONDS)
            except ApiError as exc:
                row["error"] = error(_STEP, f"{exc} Her former key ends by itself.")

    def told(self) -> dict[str, Any]:
        """The task's result."""
        diff = []
        for old, new, key in zip(self.before, self.rows, self.keys, strict=True):
            done = _action(old, key) if not has_error(new) else ""
            if done:
                new["actions"] = [*(new.get("actions") or []), done]
            before, after = _shown(old), _shown(new)
            for what in key.get("right") or []:
                before[what], after[what] = "wrong", "right"
            if before != after:
                header = f"{new['agent_id']}: key"
                diff.append(
                    {"before_header": header, "after_header": header, "before": before, "after": after}
                )
        failure = {"failed": True, "msg": self.failure} if self.failure else {}
        return {"results": self.rows, "changed": self.changed, "diff": diff, **failure}


def _register(client: Client, row: Row, key: dict[str, Any], former_seconds: int | None) -> bool:
    return client.set_key(
        row["agent_id"],
        **{field: key[field] for field in _FIELDS},
        plaintext=key.get("plaintext"),
        former_seconds=former_seconds,
    )


def _take_over(row: Row, key: dict[str, Any]) -> None:
    row.update({field: key[field] for field in _FIELDS})


def _action(row: Row, key: dict[str, Any]) -> str:
    need = key.get("need")
    if need == "revoke":
        return "revoked key"
    if key.get("made"):
        return f"made key {key['key_id']}".rstrip()
    if need:
        return f"{'promoted' if key['pending'] else 'registered'} key {key['key_id']}"
    return "set credentials right" if key.get("right") else ""


def _shown(row: Row) -> dict[str, Any]:
    shown = {field: row[field] for field in _FIELDS}
    return shown | {"key_sha256": shown["key_sha256"][:SHOWN_DIGITS]}
