# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a gateway's secrets, and having the running process take what is new in them, without a restart.

PRIVATE to claw.fleet: may change at any time.

OpenClaw reads the files that its config refers to when it starts, and again, all of them at once, when something
about secrets changes in its config. Turns under way go on. So the config carries a mark: the fingerprint of the
files, in a provider of secrets that nothing refers to. To change the mark is to have the files read; and a mark that
is right says that they were.

The gateway's token has up to three files: ``token``, which the config refers to; ``token.pending``, which is to
take its place; and ``token.former``, with which the process may still run while ``token`` is newer.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    FORMER,
    Gateway,
    GatewayError,
    GatewayRefused,
    GatewayUnreachable,
)

MARK = "fleet"
TOKEN_BYTES = 24
_MODE = 0o400
_ATTEMPTS = 5
_PAUSE_SECONDS = 1.0
# A gateway of a busy machine has been seen to take two minutes.
_PATIENCE_SECONDS = 180
_READY_SECONDS = 240
_KEY_FILE = re.compile(r"provider-.+\.key")

Contents = Mapping[Path, "bytes | None"]
"""What files will hold, for those that are not as they will be; None: they will be gone."""


class SecretFiles:
    """The files of one gateway's secrets. The caller holds its lock and acts as root or as the gateway's user."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.state = Path(gateway.state_dir)
        self.token = Path(gateway.token_file)
        self.pending = self.token.with_name("token.pending")
        self.former = Path(gateway.token_file + FORMER)

    def read(self, path: Path) -> str:
        """The secret in a file; "" if there is none."""
        return (_durable.read(path, root=self.state) or b"").decode("ascii", "replace").strip()

    def have(self, path: Path, secret: str, *, check: bool) -> bool:
        """Have the file with this secret; whether it had to be written."""
        data, owner = secret.encode(), self.gateway.owner
        found = _durable.inspect(path, root=self.state)
        right = found is not None and (found.mode, found.owner) == (_MODE, owner)
        if right and _durable.read(path, root=self.state) == data:
            return False
        if not check:
            _durable.write(path, data, mode=_MODE, owner=owner, root=self.state)
        return True

    def replace_token(self, token: str, *, check: bool) -> bool:
        """Have this token in the file; the one that the process may run with is kept until it has taken the new."""
        old = self.read(self.token)
        if not check and old and old != token and not self.read(self.former):
            self.have(self.former, old, check=False)
        return self.have(self.token, token, check=check)

    def set_token_right(self, *, check: bool) -> bool:
        """Have mode and owner of the token's file right; whether they had to be set."""
        found = _durable.inspect(self.token, root=self.state)
        if found is not None and (found.mode, found.owner) == (_MODE, self.gateway.owner):
            return False
        if not check:
            _durable.set_attributes(self.token, mode=_MODE, owner=self.gateway.owner, root=self.state)
        return True

    def remove(self, path: Path) -> None:
        """Have no such file."""
        _durable.remove(path, root=self.state)

    def provider_keys(self) -> list[str]:
        """The names of the providers' key files that are there."""
        return [
            name
            for name in _durable.list_dir(self.state, root=self.state.parent)
            if _KEY_FILE.fullmatch(name)
        ]


def fingerprint(config: Mapping[str, Any], state: Path, instead: Contents | None = None) -> str:
    """What tells one content of the files that a config refers to from another; "" if one of them is missing,
    or there are none."""
    digest = hashlib.sha256()
    files = _files(config)
    for path in files:
        if instead and path in instead:
            data = instead[path]
        else:
            data = _durable.read(path, root=state if state in path.parents else None)
        if data is None:
            return ""
        digest.update(f"{path} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()[:24].upper() if files else ""


def marked(config: Mapping[str, Any], mark: str) -> dict[str, Any]:
    """The config with this mark; without one where the mark is empty."""
    secrets = dict(config.get("secrets") or {})
    providers = {name: value for name, value in (secrets.get("providers") or {}).items() if name != MARK}
    if mark:
        providers[MARK] = _provider(mark)
    if not providers:
        return dict(config)
    return {**config, "secrets": {**secrets, "providers": providers}}


def take(gateway: Gateway, *, check: bool, instead: Contents | None = None) -> bool:
    """Have the running gateway read its secrets where they are not what it has read; whether it had to, or would.

    One that does not run reads them when it starts. Proves that it takes the token of today and no former one.
    """
    files = SecretFiles(gateway)
    if not gateway.unit_state().running:
        if not check:
            files.remove(files.former)
        return False
    config = _config(gateway)
    mark = fingerprint(config, files.state, instead)
    due = bool(mark) and config.get("secrets", {}).get("providers", {}).get(MARK) != _provider(mark)
    if check:
        return due
    former = files.read(files.former)
    if due:
        gateway.wait_ready(_READY_SECONDS)
        _patch(gateway, mark)
    if due or former:
        _await(gateway)
    if former:
        _prove(gateway, former)
        files.remove(files.former)
    return due


def _files(config: Mapping[str, Any]) -> list[Path]:
    providers = (config.get("secrets") or {}).get("providers") or {}
    found = (value.get("path") for value in providers.values() if value.get("source") == "file")
    return sorted(Path(path) for path in found if path)


def _provider(mark: str) -> dict[str, Any]:
    return {"source": "env", "allowlist": [f"SECRETS_{mark}"]}


def _config(gateway: Gateway) -> dict[str, Any]:
    data = _durable.read(gateway.config, root=gateway.state_dir)
    try:
        found = json.loads(data or b"{}")
    except ValueError as error:
        raise GatewayError(f"{gateway.config} is not JSON ({error}); mend it, or move it away") from error
    return found if isinstance(found, dict) else {}


def _patch(gateway: Gateway, mark: str) -> None:
    """Write the mark through the gateway, which reads its secrets then."""
    patch = {"secrets": {"providers": {MARK: _provider(mark)}}}
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            found = gateway.rpc("config.get", timeout=_PATIENCE_SECONDS)
            params = {
                "raw": json.dumps(patch),
                "baseHash": found.get("hash"),
                "replacePaths": [f"secrets.providers.{MARK}.allowlist"],
            }
            gateway.rpc("config.patch", params, timeout=_PATIENCE_SECONDS)
        except GatewayUnreachable:
            # It may have been done or not; done again it changes nothing.
            pause = _PAUSE_SECONDS
            if attempt == _ATTEMPTS:
                raise
        except GatewayRefused as error:
            # Another write came in between, or it takes no more of them for a while.
            pause = error.retry_after or _PAUSE_SECONDS
            passing = error.status == 503 or "changed since last load" in error.reason
            if not passing or attempt == _ATTEMPTS:
                raise
        else:
            return
        time.sleep(pause)


def _await(gateway: Gateway) -> None:
    """Wait until the process has applied what is in its files."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            served = gateway.served()
            if served.valid and served.converged:
                return
            why = "; ".join(served.issues) or "it does not say why"
        except GatewayUnreachable as error:
            why = str(error)
        if time.monotonic() >= deadline:
            raise GatewayError(f"gateway {gateway.name} has not read its secrets anew: {why}")
        time.sleep(_PAUSE_SECONDS)


def _prove(gateway: Gateway, former: str) -> None:
    token = gateway.token()
    if not gateway.accepts(token):
        raise GatewayError(f"gateway {gateway.name} does not take its new token; the former one is kept")
    if former != token and gateway.accepts(former):
        raise GatewayError(f"gateway {gateway.name} still takes its former token beside the new one")
