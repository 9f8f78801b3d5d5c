# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking a gateway's own version of OpenClaw what it has against a config, before anything is written.

PRIVATE to claw.fleet: may change at any time.

A copy is validated, as the gateway's user, with nothing of its state in reach of a write.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.claw.fleet.plugins.module_utils import _durable

if TYPE_CHECKING:
    from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway

_TIMEOUT_SECONDS = 180
_SCRATCH = ".claw-validate"


class NoVerdict(Exception):
    """OpenClaw could not be asked; str() is a plain sentence."""


def validate(gateway: Gateway, config: bytes | None, roster: bytes | None) -> list[str]:
    """What OpenClaw has against these file contents (None: the file as it is); empty if nothing."""
    state, owner = Path(gateway.state_dir), gateway.owner
    scratch = state / _SCRATCH
    config = _durable.read(gateway.config, root=state) if config is None else config
    roster = _durable.read(gateway.roster) if roster is None else roster
    copy = _relocate(gateway, config)
    with _durable.as_user(*owner):
        # A run that was killed while validating has left its copy.
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            _durable.make_dir(scratch, mode=0o700, root=state)
            _durable.write(scratch / "openclaw.json", copy, mode=0o600, root=state)
            _durable.write(scratch / "agents.json", roster or b"{}", mode=0o600, root=state)
            return _run(gateway, scratch, owner)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def issues(verdict: Mapping[str, Any], config: str) -> list[str]:
    """The issues of a verdict as sentences; ``config``: where what is not about agents stands."""
    found = [(issue.get("path") or "<root>", issue.get("message")) for issue in verdict.get("issues") or ()]
    return [f"{path}: {why}{'' if path.startswith('agents') else f' (in {config})'}" for path, why in found]


def _relocate(gateway: Gateway, config: bytes | None) -> bytes:
    """The config with the roster's include pointing at the copy beside it."""
    if config is None:
        raise NoVerdict(f"{gateway.config} is absent; run the role claw.fleet.gateway")
    try:
        found = json.loads(config)
        entries = found["agents"]["entries"]
        included = list(entries["$include"])
        included[included.index(gateway.roster)] = "./agents.json"
    except (ValueError, KeyError, TypeError) as error:
        raise NoVerdict(
            f"{gateway.config} is not JSON that includes the roster as agents.entries.$include: "
            f"[{gateway.roster}] ({error}); mend it, or run the role claw.fleet.gateway"
        ) from error
    entries["$include"] = included
    return json.dumps(found).encode()


def _run(gateway: Gateway, scratch: Path, owner: _durable.Owner) -> list[str]:
    environment = gateway.environment() | {
        "HOME": str(scratch),
        "OPENCLAW_STATE_DIR": str(scratch),
        "OPENCLAW_CONFIG_PATH": str(scratch / "openclaw.json"),
    }
    # Only our effective user is changed by now; the child must give up the real one too.
    switch: dict[str, Any] = {}
    if os.getuid() != owner.uid:
        switch = {"user": owner.uid, "group": owner.gid}
    try:
        done = subprocess.run(
            [gateway.node, gateway.entry, "config", "validate", "--json"],
            cwd=scratch,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
            **switch,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NoVerdict(f"cannot run OpenClaw's config validate: {error}") from error
    try:
        verdict = json.loads(done.stdout)
    except ValueError as error:
        tail = (done.stderr or done.stdout).strip()[-500:]
        raise NoVerdict(
            f"OpenClaw's config validate gave no verdict (status {done.returncode}): {tail}"
        ) from error
    if verdict.get("valid") is True:
        return []
    return issues(verdict, gateway.config) or [f"config validate ended with status {done.returncode}"]
