# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting a config into force: written only while the gateway is stopped, proven by its coming up, else put back.

PRIVATE to claw.fleet: may change at any time.

What we know of earlier runs is in ``<config_dir>/config.applied.json``, so that a run which was killed anywhere is
finished, or undone, by the next one:

    {"config": what we applied (while an attempt is under way: or may have applied),
     "started_with": fingerprint of the other files that the running process was started with,
     "previous": text of the config file that worked before the attempt under way, or null}
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import _config, _durable, _gateway_secrets
from ansible_collections.claw.fleet.plugins.module_utils._gateway import APPLIED, Gateway, GatewayError

# systemd gives the gateway 330 s to finish the turns it is in.
_STOP_SECONDS = 345
_REFUSED = 78


class ConfigChange(NamedTuple):
    """What was done, or would be. ``before``, ``after``: the config as it may be shown."""

    changed: bool
    restarted: bool
    before: dict[str, Any]
    after: dict[str, Any]


class Drift(NamedTuple):
    """The config as it may be shown, and as the fleet has left it."""

    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True)
class _Applied:
    """The content of config.applied.json."""

    config: Mapping[str, Any]
    started_with: str
    previous: str | None

    def write(self, path: Path) -> None:
        data = {"config": self.config, "started_with": self.started_with, "previous": self.previous}
        _durable.write(path, (json.dumps(data, indent=2) + "\n").encode(), mode=0o600)


class ConfigFile:
    """The config of one gateway, which the caller has locked."""

    def __init__(
        self, gateway: Gateway, wanted: Mapping[str, Any], inputs: Sequence[str], timeout: float
    ) -> None:
        """``inputs``: files that the process reads when it starts; ``timeout``: seconds it may take to be ready."""
        self.gateway = gateway
        self.wanted = wanted
        self.inputs = inputs
        self.timeout = timeout
        self._applied_path = Path(gateway.config_dir) / APPLIED

    def apply(self, *, check: bool) -> ConfigChange:
        """Have the gateway run with what is wanted."""
        gateway = self.gateway
        old = _durable.read(gateway.config, root=gateway.state_dir)
        applied = self._applied()
        current = self._parse(old)
        # A process that is started reads its secrets, so it starts with their mark; for the mark alone none is.
        mark = _gateway_secrets.fingerprint(self.wanted, Path(gateway.state_dir))
        new = _config.merge(applied.config, current, _gateway_secrets.marked(self.wanted, mark))
        before, after = (_gateway_secrets.marked(config, "") for config in (current, new))
        fingerprint = self._fingerprint()
        write = before != after
        restart = write or fingerprint != applied.started_with or not gateway.unit_state().running
        change = ConfigChange(restart, restart, _config.shown(before), _config.shown(after))
        if check:
            return change
        settled = _Applied(self.wanted, fingerprint, None)
        if not restart:
            try:
                gateway.wait_ready(self.timeout)
            except GatewayError:
                if applied.previous is None:
                    raise
                # The run that started it with this file did not live to see whether it comes up.
                self._put_into_force(None, old, applied)
            if applied != settled:
                settled.write(self._applied_path)
            return change
        if write:
            self._validate(new)
        self._put_into_force(_config.render(new) if write else None, old, applied)
        settled.write(self._applied_path)
        return change

    @property
    def applied(self) -> Mapping[str, Any]:
        """What was wanted last."""
        return self._applied().config

    def drift(self) -> Drift:
        """What somebody else has changed since the fleet was here; nothing where it never was."""
        applied = self._applied()
        current = self._parse(_durable.read(self.gateway.config, root=self.gateway.state_dir))
        # The mark of secrets is the gateway's to change.
        before = _gateway_secrets.marked(current, "")
        after = _config.merge(applied.config, before, applied.config)
        return Drift(_config.shown(before), _config.shown(after))

    def started_otherwise(self) -> bool:
        """Whether the other files are not those that the fleet has started the process with; never where it did not."""
        started_with = self._applied().started_with
        return bool(started_with) and self._fingerprint() != started_with

    def _put_into_force(self, new: bytes | None, old: bytes | None, applied: _Applied) -> None:
        """Restart with ``new`` (None: with the file as it is); with what worked before if that does not come up."""
        good = applied.previous
        if good is None and old is not None and applied.started_with:
            good = old.decode()
        # From here on a later run must know both what may be in the file and what to go back to.
        under_way = replace(applied, config=_config.union(applied.config, self.wanted), previous=good)
        under_way.write(self._applied_path)
        began = time.time()
        try:
            self._restart(new)
        except _durable.DurableError as error:
            # The disk did not take the new one, and the gateway is stopped for it.
            if old is None:
                raise
            try:
                self._restart(None)
            except GatewayError as second:
                raise GatewayError(
                    f"{error}. With the config it had it does not come up: {second}"
                ) from error
            raise GatewayError(f"The gateway runs with the config it had: {error}") from error
        except GatewayError as error:
            failure = f"{error}. It said:\n{self.gateway.words(began)}"
            if good is None or good.encode() == (old if new is None else new):
                raise GatewayError(failure) from error
            try:
                self._restart(good.encode())
            except (GatewayError, _durable.DurableError) as second:
                raise GatewayError(
                    f"The config that worked before does not come up either: {second}. {failure}"
                ) from error
            replace(under_way, previous=None).write(self._applied_path)
            raise GatewayError(
                f"The config that worked before is back, and the gateway runs: {failure}"
            ) from error

    def _applied(self) -> _Applied:
        data = _durable.read(self._applied_path)
        found = json.loads(data) if data else {}
        return _Applied(found.get("config", {}), found.get("started_with", ""), found.get("previous"))

    def _parse(self, old: bytes | None) -> dict[str, Any]:
        if old is None:
            return {}
        try:
            found = json.loads(old)
        except ValueError as error:
            raise GatewayError(
                f"{self.gateway.config} is not JSON ({error}); mend it, or move it away"
            ) from error
        if not isinstance(found, dict):
            raise GatewayError(f"{self.gateway.config} does not hold a JSON object; mend it, or move it away")
        return found

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in self.inputs:
            below = Path(self.gateway.state_dir) in Path(path).parents
            data = _durable.read(path, root=self.gateway.state_dir if below else None)
            digest.update(f"{path} {'absent' if data is None else len(data)}\n".encode())
            digest.update(data or b"")
        return digest.hexdigest()

    def _validate(self, new: Mapping[str, Any]) -> None:
        issues = self.gateway.validate(config=_config.render(new))
        if issues:
            raise GatewayError(
                f"OpenClaw {self.gateway.version} refuses the config, nothing was changed: {'; '.join(issues)}"
            )

    def _restart(self, config: bytes | None) -> None:
        """Stop, write, start, wait until it is ready."""
        gateway = self.gateway
        _systemctl("stop", gateway.unit)
        if config is not None:
            owner = gateway.owner
            try:
                with _durable.as_user(*owner):
                    _durable.write(gateway.config, config, mode=0o600, owner=owner, root=gateway.state_dir)
            except _durable.DurableError as error:
                if _durable.read(gateway.config, root=gateway.state_dir) != config:
                    raise
                # It is in place, but it may not outlast a crash of the machine.
                raise GatewayError(str(error)) from error
        # The unit's files may be newer than what systemd has read, whoever wrote them.
        _systemctl("daemon-reload")
        gateway.start()
        try:
            gateway.wait_ready(self.timeout)
        except GatewayError:
            # OpenClaw also ends with 78 when one of its own deadlines passes while it starts, as on a machine that
            # is busy, and systemd leaves it at that. A config that it finds valid gets one more start.
            if gateway.unit_state().exit_status != _REFUSED or gateway.validate():
                raise
            gateway.start()
            gateway.wait_ready(self.timeout)


def _systemctl(verb: str, *arguments: str) -> None:
    command = ["systemctl", verb, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_STOP_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GatewayError(f"{' '.join(command)} did not work: {error}") from error
    if done.returncode != 0:
        raise GatewayError(f"{' '.join(command)} failed: {done.stderr.strip()}")
